"""How far something long has come, in words where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

import otfkd.training.progress
from otfkd.training.progress import counted


def test_ten_lines_say_how_far_it_is_and_how_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))  # two seconds whenever something is said
    with counted("sentences", 2000) as advance:
        for _ in range(40):
            advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "sentences 200/2,000  2 s, about 18 s left"
    assert lines[4] == "sentences 1,000/2,000  10 s, about 10 s left"
    assert lines[-1] == "sentences 2,000/2,000  20 s, about 0 s left"


def test_steps_larger_than_a_tenth_take_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with counted("sentences", 5) as advance:
        advance(3)
        advance(2)
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == ["sentences 3/5", "sentences 5/5"]


def test_in_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        otfkd.training.progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80)
    )
    with counted("sentences", 4) as advance:
        advance(3)
        advance(1)
    assert re.search(r"sentences .*4/4", screen.getvalue())
