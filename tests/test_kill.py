"""SIGKILL at any moment: the same command goes on and ends with the same bits."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.config import Config
from otfkd.runs import train
from tests.test_resume import final

# Each moment is seeded; with four variants, forty kills.
VARIANTS = {
    "plain": (),
    "accumulated": ("trainer.accumulate=3",),
    "bfloat16": ("precision=bfloat16", "objective=distill_group_p"),
    "best": ("schedule.source=best", "schedule.cache_every=1"),
}
KILLS = 10


def fork_and_train(config: Config) -> int:
    """Train in a child process; a fork, because importing torch anew would take longer than the run."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(config)
            code = 0
        finally:
            os._exit(code)
    return child


def kill_amid(child: int, metrics: Path, rng: random.Random) -> None:
    """Kill a child a moment after it wrote a random line; most of a run's time is not training."""
    lines = rng.randint(0, 30)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0):
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= lines:
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_runs_end_with_the_same_bits(configure: Callable[..., Config], tmp_path: Path, variant: str) -> None:
    run = (
        "experiment=otfkd",
        "schedule.every=4",
        "trainer.checkpoint_every=3",
        "trainer.max_steps=24",
        *VARIANTS[variant],
    )
    straight = configure(*run, f"paths.runs={tmp_path / 'straight'}")
    assert os.waitpid(fork_and_train(straight), 0)[1] == 0
    folder = next((tmp_path / "straight").glob("otfkd/*/s0")).relative_to(tmp_path / "straight")
    expected = final(tmp_path / "straight" / folder)
    rng = random.Random(variant)
    for number in range(KILLS):
        config = configure(*run, f"paths.runs={tmp_path / str(number)}")
        for _ in range(rng.randint(1, 3)):
            kill_amid(fork_and_train(config), tmp_path / str(number) / folder / "metrics.jsonl", rng)
        assert os.waitpid(fork_and_train(config), 0)[1] == 0
        assert final(tmp_path / str(number) / folder) == expected
