"""SIGKILL at any moment: the same command goes on and ends with the same bits."""

import functools
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import otfkd.runs.folder
import otfkd.training.train
from otfkd.base import files
from otfkd.config.schema import Config
from otfkd.distill import checkpoints, snapshots
from otfkd.distill.ema import Shadow
from otfkd.distill.pool import Pool
from otfkd.distill.rotation import TeacherRotation
from otfkd.runs.rows import read_rows
from otfkd.training.launch import _free_port
from otfkd.training.train import train
from tests.support.killing import Where, arm, fork_and_train, killed
from tests.support.processes import TWO, forked, in_processes
from tests.support.resuming import final, unclocked
from tests.support.variants import GIVEN

# Each is killed at half of the moments, so every moment has three or four variants.
VARIANTS = {
    "plain": (),
    "accumulated pool of averages": (
        "trainer.accumulate=3", "schedule.source=average", "schedule.cache_every=1", "schedule.retain=pool",
        "schedule.pool_size=2",
    ),
    "bfloat16 average beside a given teacher, sampled": (
        *GIVEN, "precision=bfloat16", "objective=distill_group_p", "schedule.source=ema", "schedule.ema.decay=0.7",
        "schedule.retain=pool_initial", "schedule.aggregate=sample",
    ),
    "best, gated": ("schedule.source=best", "schedule.cache_every=1", "schedule.gate=0.0"),
    "accumulated bfloat16 follower": (
        "precision=bfloat16", "trainer.accumulate=3", "schedule=follow", "teacher.after_warmup=continue",
        "teacher.warmup_steps=3", "schedule.ema.decay=0.7",
    ),
    "rounds": (
        *GIVEN, "schedule.source=best", "schedule.cache_every=1", "schedule.on_rotation.student=reinit",
        "schedule.on_rotation.optimizer=reset", "schedule.on_rotation.lr=restart",
    ),
    "plateau, pool by dev": (
        "schedule=plateau", "teacher.warmup_steps=2", "schedule.patience=1", "evaluation.every=2",
        "schedule.retain=pool", "schedule.aggregate=dev_weighted",
    ),
}  # fmt: skip

MOMENTS: list[tuple[Any, str, Where]] = [
    (snapshots, "save_file", "amid"),
    (torch, "save", "amid"),
    (checkpoints, "save_file", "amid"),
    (files.JsonLines, "append", "amid"),
    (os, "fsync", "before"),
    (snapshots, "sha256_file", "before"),
    (snapshots.SnapshotCache, "prune", "before"),
    (Path, "unlink", "after"),
    (checkpoints.WholeFiles, "save_checkpoint", "before"),
    (checkpoints.WholeFiles, "save_checkpoint", "after"),
    (checkpoints.Checkpoints, "save_best", "after"),
    (checkpoints.Checkpoints, "settle_best", "before"),
    (otfkd.training.train, "dev_score", "before"),
    (otfkd.training.train, "dev_score", "after"),
    (TeacherRotation, "_rotate", "before"),
    (TeacherRotation, "_begin_again", "after"),
    (Pool, "add", "before"),
    (Pool, "add", "after"),
    (Shadow, "update", "after"),
    (files.JsonLines, "truncate", "after"),
    (otfkd.training.train, "save_encoder", "before"),
    (otfkd.runs.folder, "write_rows", "before"),
]


def kill_sometime(child: int, rng: random.Random) -> None:
    """Kill a child after a random part of the time a run takes; it may be done by then."""
    time.sleep(rng.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)  # not yet waited for, so the number is still its own
    killed(child)


def count_calls(patched: pytest.MonkeyPatch) -> list[int]:
    """Have the calls of every moment's function counted."""
    counts = [0] * len(MOMENTS)

    def counted(at: int, original: Callable[..., Any]) -> Callable[..., Any]:
        def count(*given: Any, **named: Any) -> Any:
            counts[at] += 1
            return original(*given, **named)

        return count

    for at, (owner, name, _) in enumerate(MOMENTS):
        patched.setattr(owner, name, counted(at, getattr(owner, name)))
    return counts


def within(folder: Path) -> list[str]:
    """A run's folder and a token cache of its own, so that every run makes as many files."""
    return [f"paths.runs={folder}", f"paths.cache={folder / 'cache'}"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(VARIANTS)), ids=list(VARIANTS))
def test_killed_runs_end_with_the_same_bits(
    configure: Callable[..., Config],
    command: Callable[..., tuple[str, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    name = list(VARIANTS)[number]
    run = command("trainer.checkpoint_every=4", "trainer.max_steps=14", "schedule.every=3", *VARIANTS[name])
    with monkeypatch.context() as patched:
        counts = count_calls(patched)
        straight = train(configure(*run, *within(tmp_path / "straight")))
    expected, rng = final(straight.folder), random.Random(name)
    reached = [(moment, count) for moment, count in zip(MOMENTS, counts, strict=True) if count]
    for trial, (moment, count) in enumerate(reached[number % 2 :: 2]):
        runs = tmp_path / str(trial)
        config, call = configure(*run, *within(runs)), rng.randint(1, count)
        assert killed(fork_and_train(config, functools.partial(arm, moment, call))), (moment, call)
        kill_sometime(fork_and_train(config), rng)
        assert not killed(fork_and_train(config))
        folder = runs / straight.folder.relative_to(tmp_path / "straight")
        assert final(folder) == expected, (moment, call)
        assert unclocked(read_rows(folder / "results.jsonl")) == unclocked(straight.rows)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_two_processes_of_which_one_is_killed_end_with_the_same_bits(
    configure: Callable[..., Config], command: Callable[..., tuple[str, ...]], tmp_path: Path, victim: int
) -> None:
    run = command("trainer.checkpoint_every=4", "trainer.max_steps=14", "schedule.every=3", TWO)

    def together(folder: Path, action: Callable[[Config], Any] = train) -> list[Any]:
        return in_processes(2, folder, lambda: action(configure(*run, *within(folder))))

    def counting(config: Config) -> list[int]:
        counts = count_calls(pytest.MonkeyPatch())
        train(config)
        return counts

    counts = together(tmp_path / "straight", counting)[victim]
    (straight,) = (tmp_path / "straight").glob("*/*/s0")
    expected, rng = final(straight), random.Random(victim)
    reached = [(moment, count) for moment, count in zip(MOMENTS, counts, strict=True) if count]
    assert len(reached) >= (15 if victim == 0 else 3)  # most writing is the first's
    for trial, (moment, count) in enumerate(reached):
        folder = tmp_path / str(trial)
        lose_one(
            configure(*run, *within(folder)), folder, victim, functools.partial(arm, moment, rng.randint(1, count))
        )
        together(folder)
        assert final(folder / straight.relative_to(tmp_path / "straight")) == expected, moment


def lose_one(config: Config, folder: Path, victim: int, arm_it: Callable[[], None]) -> None:
    """Train in two processes of which one dies; the other is ended then, as a launcher does it."""

    def action() -> None:
        if os.environ["RANK"] == str(victim):
            arm_it()
        train(config)

    folder.mkdir()
    port = _free_port()
    children = [forked(place, 2, port, folder / str(place), action) for place in range(2)]
    assert killed(children[victim])
    other = children[1 - victim]
    os.kill(other, signal.SIGKILL)  # not yet waited for, so the number is still its own
    os.waitpid(other, 0)
