"""Processes that a run starts itself, and real launchers: slow, because each imports everything anew."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from otfkd.base.errors import UserError
from otfkd.base.processes import any_process, rank
from otfkd.config.schema import Config
from otfkd.runs.rows import read_rows
from otfkd.training.launch import join, launch

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "otfkd", "train"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
SMALL = ["trainer.devices=2", "experiment=otfkd", "schedule.every=2", "trainer.max_steps=4", "evaluation.every=null"]


def numbers(config: Config) -> tuple[int, bool]:
    join(config)
    return rank(), any_process(rank() == 1)


def refused(config: Config) -> None:
    join(config)
    raise UserError("this will not do")


def failing(config: Config) -> None:
    """The second process fails while the first waits for it."""
    join(config)
    if rank() == 1:
        raise ValueError("bang")
    any_process(True)


def killed(config: Config) -> None:
    join(config)
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def test_the_first_processs_answer_comes_back(configure: Callable[..., Config]) -> None:
    assert launch(numbers, configure("trainer.devices=2")) == (0, True)


def test_a_users_error_comes_back_as_one(configure: Callable[..., Config]) -> None:
    with pytest.raises(UserError, match="this will not do"):
        launch(refused, configure("trainer.devices=2"))


@pytest.mark.parametrize(("task", "sentence"), [(failing, "process 1: ValueError: bang"), (killed, "SIGKILL")])
def test_a_process_that_fails_ends_the_others(
    configure: Callable[..., Config], task: Callable[[Config], None], sentence: str
) -> None:
    with pytest.raises(RuntimeError, match=sentence):
        launch(task, configure("trainer.devices=2"))


def finished(runs: Path) -> list[Path]:
    return sorted(path.parent for path in runs.glob("*/*/*/results.jsonl"))


@pytest.mark.parametrize("launcher", [COMMAND, [*TORCHRUN, *COMMAND[1:]]], ids=["own", "torchrun"])
def test_a_sweep_of_two_processes_a_run(overrides: list[str], tmp_path: Path, launcher: list[str]) -> None:
    command = [*launcher, "-m", *overrides, *SMALL, "seed=0,1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    assert [folder.name for folder in finished(tmp_path / "runs")] == ["s0", "s1"]
    for folder in finished(tmp_path / "runs"):
        assert {row.environment["processes"] for row in read_rows(folder / "results.jsonl")} == {2}
        assert [json.loads(line)["step"] for line in (folder / "rotations.jsonl").read_text().splitlines()] == [2]
        assert result.stdout.count(f"finished: {folder}") == 1
    assert result.stderr.count("step 4/4") == 2


def test_a_signal_to_the_command_is_passed_on_and_the_same_command_goes_on(
    overrides: list[str], tmp_path: Path
) -> None:
    command = [*COMMAND, *overrides, *SMALL, "trainer.max_steps=20000"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not any(path.stat().st_size for path in tmp_path.glob("runs/*/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.2)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=200)
    assert child.returncode == 130, errors
    assert "the same command goes on from there" in errors
    checkpoint = next(tmp_path.glob("runs/*/*/*/checkpoints/last.ckpt"))
    assert 0 < torch.load(checkpoint, weights_only=True)["global_step"] < 20000
