"""Callbacks that take part in the runs a test makes."""

import contextlib
from collections.abc import Sequence
from typing import Any
from unittest import mock

import lightning as L

import otfkd.training.train


def joined_by(*last: L.Callback, first: Sequence[L.Callback] = ()) -> contextlib.AbstractContextManager[Any]:
    """Have callbacks take part in the runs to come, after those of otfkd or before them."""
    original = otfkd.training.train.make_trainer  # type: ignore[attr-defined]  # or what is in its place already
    return mock.patch.object(
        otfkd.training.train, "make_trainer", lambda config, given: original(config, [*first, *given, *last])
    )
