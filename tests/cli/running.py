"""Commands run in the tests' own process, and what they leave."""

import logging
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

import otfkd.__main__


class Outcome(NamedTuple):
    """What a command left."""

    code: object
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def otfkd_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `otfkd ARGUMENTS` in this process."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    log = logging.getLogger("otfkd")
    level, propagate = log.level, log.propagate

    def run(*arguments: str) -> Outcome:
        before, log.handlers = log.handlers, []  # the terminal's handler belongs to one command
        monkeypatch.setattr(sys, "argv", ["otfkd", *arguments])
        try:
            with pytest.raises(SystemExit) as stopped:
                otfkd.__main__.main()
        finally:
            log.handlers, log.propagate = before, propagate
            log.setLevel(level)
        return Outcome(stopped.value.code, *capfd.readouterr())

    return run


def assert_refused(outcome: Outcome, *words: str) -> None:
    """One sentence on stderr and exit code 2."""
    assert outcome.code == 2
    assert outcome.err.startswith("otfkd: ")
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert word in outcome.err
