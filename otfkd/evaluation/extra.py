"""Evaluators of a user's own, `evaluation.extra=[package.module:Class]`: further numbers beside those of the suite."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from otfkd.base.errors import UserError
from otfkd.config.parts import Part, blaming, resolve
from otfkd.evaluation.sentences import SentenceEncoder
from otfkd.models.encoder import Encoder, evaluating
from otfkd.models.untouched import changed, state_of

_SIGNATURE = (
    "give a class that is made without arguments and has score(encoder), which returns a dict from names to finite "
    "numbers"
)


@dataclass(frozen=True)
class Evaluator:
    """An evaluator that has been made.

    Attributes:
        part: what it was made of.
        made: has `score`.
    """

    part: Part
    made: Any


def check_evaluator(path: str) -> None:
    """Raise a UserError where an import path leads to no class of evaluators; none is made yet."""
    part = resolve("evaluation.extra", path)
    if not inspect.isclass(part.value) or not callable(getattr(part.value, "score", None)):
        raise UserError(f"{part} is no evaluator: {_SIGNATURE}")


def make_evaluators(paths: Sequence[str]) -> list[Evaluator]:
    """Make the evaluators that import paths name.

    Raises:
        UserError: one cannot be imported or made.
    """
    made = []
    for path in paths:
        check_evaluator(path)
        part = resolve("evaluation.extra", path)
        with blaming(part):
            made.append(Evaluator(part, part.value()))
    return made


def extra_scores(evaluators: Sequence[Evaluator], encoder: Encoder, max_length: int) -> dict[str, float]:
    """What evaluators say of a model, by the names that they give.

    Args:
        evaluators: whose names differ.
        encoder: the model; it comes out as it went in.
        max_length: tokens read of a sentence.

    Raises:
        UserError: one fails, gives something else than numbers by names, or changes the model.
    """
    found: dict[str, float] = {}
    for one in evaluators:
        before = state_of(encoder)
        with blaming(one.part), evaluating(encoder):
            scores = one.made.score(SentenceEncoder(encoder, max_length))
        if (what := changed(before, state_of(encoder))) is not None:
            raise UserError(f"{one.part} changed {what} of the model that it scores: let it only look")
        if not _are_scores(scores):
            raise UserError(f"{one.part} gave {scores!r:.60}: {_SIGNATURE}")
        if twice := found.keys() & scores.keys():
            raise UserError(f"{one.part} gives {min(twice)}, as an evaluator before it does: rename one of the two")
        found |= {name: float(value) for name, value in scores.items()}
    return found


def check_selects(name: str | None, scores: Mapping[str, float]) -> None:
    """Refuse a name by which the checkpoint is to be selected that no evaluator gives.

    Raises:
        UserError: there is no such number among `extra_scores`.
    """
    if name is not None and name not in scores:
        given = ", ".join(scores) or "nothing"
        raise UserError(f"evaluation.select={name} is no number of evaluation.extra, which gives {given}: name one")


def _are_scores(scores: object) -> bool:
    if not isinstance(scores, Mapping):
        return False
    try:
        return all(
            isinstance(name, str) and not isinstance(value, str) and math.isfinite(float(value))
            for name, value in scores.items()
        )
    except (TypeError, ValueError):
        return False
