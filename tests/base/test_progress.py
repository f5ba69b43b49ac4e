"""How far something long has come, in words where there is no terminal."""

import io
import re
import time

import pytest
from rich.console import Console

import otfkd.base.progress
from otfkd.base.progress import Pace, counted, waiting


class Clock:
    """A clock that goes on only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


def test_ten_lines_say_how_far_it_is_and_how_long_it_takes(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with counted("sentences", 2000) as advance:
        for _ in range(40):
            clock.now += 0.5
            advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "sentences 200/2,000  2 s, about 18 s left"
    assert lines[4] == "sentences 1,000/2,000  10 s, about 10 s left"
    assert lines[-1] == "sentences 2,000/2,000  20 s, about 0 s left"


def test_no_silence_is_longer_than_half_a_minute(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with counted("sentences", 1000) as advance:
        for _ in range(50):
            clock.now += 10
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["sentences 3/1,000  30 s, about 9970 s left", "sentences 6/1,000  60 s, about 9940 s left"]
    assert len(lines) == 16


def test_what_is_left_is_told_by_what_this_attempt_did(clock: Clock) -> None:
    pace = Pace(100, done=80)
    clock.now = 5.0
    assert not pace.due(85)
    assert pace.due(90)
    assert pace.times() == "5 s, about 5 s left"


def test_the_next_of_several_things_is_told_with_the_time_for_the_rest(clock: Clock) -> None:
    pace = Pace(3)
    assert pace.left(0) == ""
    clock.now = 60.0
    assert pace.left(1) == " (60 s, about 120 s left)"


def test_steps_larger_than_a_tenth_take_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with counted("sentences", 5) as advance:
        advance(3)
        advance(2)
    assert [line.split("  ")[0] for line in capsys.readouterr().err.splitlines()] == ["sentences 3/5", "sentences 5/5"]


def test_in_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(otfkd.base.progress, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    with counted("sentences", 4) as advance:
        advance(3)
        advance(1)
    assert re.search(r"sentences .*4/4", screen.getvalue())


def test_only_what_takes_longer_than_a_moment_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(otfkd.base.progress, "_MOMENT", 0.05)
    with waiting("loading"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
    with waiting("scoring"):
        time.sleep(0.2)
        assert capsys.readouterr().err == "scoring ...\n"
