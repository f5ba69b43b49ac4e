"""Commands run in the test's own process."""

import logging
import sys

import pytest

import otfkd.__main__
from tests.cli.commands import Command, Outcome


@pytest.fixture
def otfkd_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `otfkd ARGUMENTS` in this process."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    log = logging.getLogger("otfkd")
    level, propagate = log.level, log.propagate

    def run(*arguments: object) -> Outcome:
        before, log.handlers = log.handlers, []  # the terminal's handler belongs to one command
        monkeypatch.setattr(sys, "argv", ["otfkd", *map(str, arguments)])
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as stopped:
                otfkd.__main__.main()
        finally:
            log.handlers, log.propagate = before, propagate
            log.setLevel(level)
        return Outcome(stopped.value.code, *capfd.readouterr())

    return run
