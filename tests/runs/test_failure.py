"""Why a run failed, as its folder keeps it and as commands tell it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.runs.failure import Failure, failure_kept, jobs_failed
from otfkd.runs.folder import RunFolder
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.commands import Command


class Fail(L.Callback):
    """Ends a run after its fourth step."""

    def __init__(self, error: BaseException):
        self.error = error

    def on_train_batch_end(self, *given: Any) -> None:
        if given[-1] == 3:
            raise self.error


def listed(otfkd_command: Command, runs: Path) -> list[tuple[str, str, str]]:
    """State, folder and reason of each run, as otfkd-runs writes them."""
    rows = [line.split("\t") for line in otfkd_command("runs", runs).out.splitlines()]
    return [(row[0], row[1], row[-1]) for row in rows]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "state", "told"),
    [
        (RuntimeError("bang\nand more"), 1, "failed", "RuntimeError: bang"),
        (UserError("the disk is\nfull: make room"), 2, "failed", "the disk is full: make room"),
        (OSError(28, "No space left on device", "/x"), 2, "failed", "/x cannot be read or written "
         "(No space left on device): make room or change its permissions, or name another folder, then give the same "
         "command again"),
        (SystemExit(3), 1, "failed", "RuntimeError: exited by itself with code 3"),
        (KeyboardInterrupt("stopped at once"), 130, None, "-"),
        (Interrupted("stopped"), 130, None, "-"),
    ],
    ids=["ours", "the user's", "the machine's", "an exit", "at once", "a signal"],
)  # fmt: skip
def test_a_run_that_an_error_ended_is_listed_as_failed_with_its_reason(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, checkpointed: bool,
    error: BaseException, code: int, state: str | None, told: str,
) -> None:  # fmt: skip
    command = ("train", *overrides, f"trainer.checkpoint_every={2 if checkpointed else 'null'}")
    with joined_by(Fail(error)):
        assert otfkd_command(*command).code == code
    runs = tmp_path / "runs"
    (run,) = runs.glob("simcse/*/s0")
    state = state or ("interrupted" if checkpointed else "new")
    assert listed(otfkd_command, runs) == [(state, str(run), told)]
    # The next attempt forgets it, and ends as if nothing had been.
    assert otfkd_command(*command).code == 0
    assert listed(otfkd_command, runs) == [("finished", str(run), "-")]
    assert not RunFolder(run).failure_file.exists()


def test_a_killed_attempt_is_not_failed_though_the_one_before_it_was(
    configure: Callable[..., Config], tmp_path: Path
) -> None:
    config = configure("trainer.checkpoint_every=2")
    with joined_by(Fail(RuntimeError("bang"))), pytest.raises(RuntimeError, match="bang"):
        train(config)
    (folder,) = (tmp_path / "runs").glob("simcse/*/s0")
    assert RunFolder(folder).state == "failed"
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        with joined_by(Die()):
            train(config)
        os._exit(1)  # not reached
    assert RunFolder(folder).state == "interrupted"


class Die(L.Callback):
    def on_train_start(self, *_: Any) -> None:
        os.kill(os.getpid(), 9)


def test_an_attempt_that_was_refused_is_the_last_one(
    otfkd_command: Command, overrides: list[str], tmp_path: Path
) -> None:
    """An interrupted run that cannot go on as it is asked to."""
    command = ("train", *overrides, "trainer.checkpoint_every=2")
    with joined_by(Fail(Interrupted("stopped"))):
        otfkd_command(*command)
    (run,) = (tmp_path / "runs").glob("simcse/*/s0")
    facts = RunFolder(run).provenance_file
    facts.write_text(facts.read_text().replace('"torch": "', '"torch": "0.'))
    assert otfkd_command(*command).code == 2
    ((state, folder, told),) = listed(otfkd_command, tmp_path / "runs")
    assert (state, folder) == ("failed", str(run))
    assert told.startswith(f"{run} was started under other versions")


def test_the_first_of_several_processes_to_fail_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "failure.json"
    for error in (ValueError("bang"), RuntimeError("connection closed by peer")):
        with pytest.raises(type(error)), failure_kept(file):
            raise error
    assert Failure.read(file) == Failure(kind="ours", reason="ValueError: bang")


@pytest.mark.parametrize(
    ("kinds", "kind"), [("u", UserError), ("uu", UserError), ("o", RuntimeError), ("uo", RuntimeError)]
)
def test_jobs_are_the_users_fault_only_if_each_is(kinds: str, kind: type[Exception]) -> None:
    errors = [UserError("no") if one == "u" else ValueError("bang") for one in kinds]
    assert type(jobs_failed([(number, Failure.of(error)) for number, error in enumerate(errors)])) is kind
