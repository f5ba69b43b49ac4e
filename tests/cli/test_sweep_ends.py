"""How a sweep ends: every job of it has an end that is told."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest

import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.cli.sweep import SweepTask, run_sweep
from otfkd.config.schema import Config
from otfkd.evaluation.rows import score_rows
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.commands import Command, finish, start, states, wait_for

ONE_STEP = ("trainer.max_steps=1", "evaluation.every=null")


@pytest.mark.parametrize(("where", "code"), [("training", 0), ("training", 3), ("scoring", 0), ("scoring", None)])
def test_a_job_that_exits_is_a_failed_one_and_the_others_go_on(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    where: str, code: int | None,
) -> None:  # fmt: skip
    def exiting(original: Callable[..., Any]) -> Callable[..., Any]:
        def exits(*given: Any) -> Any:
            return sys.exit(code) if 0 in (getattr(one, "seed", None) for one in given) else original(*given)

        return exits

    if where == "scoring":
        monkeypatch.setattr(otfkd.training.train, "score_rows", exiting(score_rows))
    else:
        monkeypatch.setattr(otfkd.training.train, "train", exiting(train))
    swept = otfkd_command("train", "-m", *overrides, *ONE_STEP, "seed=0,1")
    assert swept.code == 1
    assert f"1 jobs failed (seed=0: RuntimeError: exited by itself with code {code})" in swept.err.splitlines()[-1]
    assert ("finished", "s1") in states(otfkd_command, tmp_path / "runs")
    alone = otfkd_command("train", *overrides, *ONE_STEP, "seed=0")
    assert alone.code == 1
    assert "exited by itself" in alone.err.splitlines()[-1]


class Interrupt(L.Callback):
    """Ctrl-C in the middle of a step, so often."""

    def __init__(self, times: int):
        self.times = times

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, _: Any, batch_idx: int) -> None:
        for _again in range(self.times if batch_idx == 3 else 0):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("times", "told"),
    [(1, "stopped after step 4; the same command goes on from there"),
     (2, "stopped at once; the same command goes on from the last checkpoint")],
    ids=["once", "twice"],
)  # fmt: skip
def test_an_interrupted_sweep_says_which_jobs_it_did_not_begin(
    otfkd_command: Command, overrides: list[str], times: int, told: str
) -> None:
    with joined_by(Interrupt(times)):
        stopped = otfkd_command("train", "-m", *overrides, "seed=0,1,2")
        alone = otfkd_command("train", *overrides, "seed=3")
    assert (stopped.code, alone.code) == (130, 130)
    assert stopped.err.splitlines()[-1] == f"otfkd: {told}; 2 jobs were not begun (seed=1; seed=2)"
    assert alone.err.splitlines()[-1] == f"otfkd: {told}"


class FailThenInterrupt(L.Callback):
    """The first job fails, the second one is interrupted."""

    def __init__(self) -> None:
        self.jobs = 0

    def on_train_start(self, *_: Any) -> None:
        self.jobs += 1
        if self.jobs == 1:
            raise ValueError("bang")
        signal.raise_signal(signal.SIGINT)


def test_an_interrupted_sweep_tells_of_the_jobs_that_had_failed(
    otfkd_command: Command, overrides: list[str], tmp_path: Path
) -> None:
    with joined_by(FailThenInterrupt()):
        stopped = otfkd_command("train", "-m", *overrides, "seed=0,1,2")
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == (
        "otfkd: stopped after step 1; the same command goes on from there; "
        "1 jobs failed (seed=0: ValueError: bang); 1 jobs were not begun (seed=2)"
    )
    assert states(otfkd_command, tmp_path / "runs") == [("failed", "s0"), ("interrupted", "s1")]


@pytest.mark.parametrize(
    ("kinds", "raised", "words"),
    [
        (("users", "interrupted"), Interrupted, "1 jobs were interrupted; the same command goes on from there; "
         "1 jobs failed (job 0: no)"),
        (("users", "done"), UserError, "1 jobs failed (job 0: no); the same command tries them again"),
        (("users", "ours"), RuntimeError, "2 jobs failed (job 0: no; job 1: no); the same command tries them again"),
        (("users", "begun"), RuntimeError, "2 jobs failed (job 0: no; job 1: its process was lost); "),
    ],
)  # fmt: skip
def test_what_the_ends_of_jobs_add_up_to(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], raised: type[BaseException], words: str
) -> None:
    """As a launcher leaves them that has its own processes."""
    ends = [{"job": f"job {number}", "kind": kind, "reason": "no"} for number, kind in enumerate(kinds)]
    monkeypatch.setattr(SweepTask, "states", lambda _: ends)
    with pytest.raises(raised) as caught:
        run_sweep(lambda _: None, SweepTask(lambda _: None, Config, []), lambda _: None)
    assert str(caught.value).startswith(words)


def test_a_sweep_is_done_only_when_every_job_has_an_end(
    otfkd_command: Command, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a launcher lost without a word: a job that did not begin, or one that did and never ended."""
    original = SweepTask.__call__

    def losing(self: SweepTask, composed: Any) -> Any:
        return None if composed.seed == 1 else original(self, composed)

    monkeypatch.setattr(SweepTask, "__call__", losing)
    swept = otfkd_command("train", "-m", *overrides, "dry_run=true", "seed=0,1,2")
    assert swept.code == 1
    assert "1 jobs failed (seed=1: never begun)" in swept.err.splitlines()[-1]


@pytest.mark.slow
def test_a_killed_worker_of_joblib_is_named_by_its_jobs(real: list[str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    many = ["seed=0,1,2", "trainer.max_steps=20000", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = start(tmp_path, "train", "-m", *real, *many)
    runs = tmp_path / "runs"
    wait_for(lambda: sum(path.stat().st_size > 300 for path in runs.glob("*/*/*/metrics.jsonl")) == 2, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    worker = next(int(child) for child in children if b"popen_loky" in Path(f"/proc/{child}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    lost = finish(process)
    assert lost.code == 2, lost.err
    last = lost.err.splitlines()[-1]
    assert last.startswith("otfkd: the process of a job was lost (")
    assert "; 2 jobs did not end (seed=0; seed=1); 1 jobs were not begun (seed=2)" in last
