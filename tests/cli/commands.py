"""What a command leaves, and how tests ask for it."""

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a command left."""

    code: object
    out: str
    err: str


Command = Callable[..., Outcome]


def assert_refused(outcome: Outcome, *words: str) -> None:
    """One sentence on stderr, nothing else, and exit code 2."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("otfkd: ")
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err
