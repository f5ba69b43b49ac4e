"""A signal is a flag while a run trains, and ends everything else as Ctrl-C does."""

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import otfkd.training.train
from otfkd.base.errors import Interrupted
from otfkd.base.signals import stop_flag
from otfkd.cli.common import exit_with
from otfkd.config.schema import Config
from otfkd.training.train import train
from tests.support.resuming import final, unclocked

OTHERS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


def test_a_signal_sets_the_flag_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_flag() as came:
        assert not came()
        signal.raise_signal(signal.SIGTERM)
        assert came()
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_earlier_handler_hears_of_a_signal_when_the_run_has_saved() -> None:
    """As submitit's, which queues the job again and ends the process."""
    happened: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: happened.append("queued again"))
    try:
        with stop_flag() as outer:
            with stop_flag() as came:
                signal.raise_signal(signal.SIGUSR2)
                assert came() and outer()  # one flag, however deep
                happened.append("saved")
            assert happened == ["saved"]
        assert happened == ["saved", "queued again"]
        with stop_flag() as came:
            assert not came()
    finally:
        signal.signal(signal.SIGUSR2, before)


def assert_ends_with(action: Callable[[], object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        exit_with(action)
    assert ended.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"otfkd: {message}"
    assert {signal.getsignal(number) for number in OTHERS} == {signal.SIG_DFL}


@pytest.mark.parametrize("number", OTHERS)
def test_outside_of_training_a_signal_ends_a_command_by_way_of_all_that_closes(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    closed: list[bool] = []

    def action() -> None:
        with contextlib.ExitStack() as open_things:
            open_things.callback(closed.append, True)
            signal.raise_signal(number)

    assert_ends_with(action, f"interrupted by {number.name}", capsys)
    assert closed == [True]


def test_a_command_whose_run_has_saved_says_what_the_run_says(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        with stop_flag() as came:
            signal.raise_signal(signal.SIGTERM)
            assert came()
            raise Interrupted("saved")

    assert_ends_with(action, "saved", capsys)


def test_a_run_that_was_interrupted_while_it_was_scored_is_scored_by_the_same_command(
    configure: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ("experiment=otfkd", "schedule.every=4")
    straight, config = train(configure(*run, f"paths.runs={tmp_path / 'straight'}")), configure(*run)
    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.train, "score_rows", lambda *_: signal.raise_signal(signal.SIGTERM))
        assert_ends_with(lambda: train(config), "interrupted by SIGTERM", capsys)
    result = train(config)
    assert final(result.folder) == final(straight.folder)
    assert unclocked(result.rows) == unclocked(straight.rows)
