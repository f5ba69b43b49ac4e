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


def finish(child: int) -> tuple[float, int]:
    started = time.monotonic()
    _, status = os.waitpid(child, 0)
    return time.monotonic() - started, status


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_runs_end_with_the_same_bits(configure: Callable[..., Config], tmp_path: Path, variant: str) -> None:
    run = ("experiment=otfkd", "schedule.every=4", "trainer.checkpoint_every=2", *VARIANTS[variant])
    straight = configure(*run, f"paths.runs={tmp_path / 'straight'}")
    seconds, status = finish(fork_and_train(straight))
    assert status == 0
    expected = final(next((tmp_path / "straight").glob("otfkd/*/s0")))
    rng = random.Random(variant)
    for number in range(KILLS):
        config = configure(*run, f"paths.runs={tmp_path / str(number)}")
        for _ in range(rng.randint(1, 3)):
            child = fork_and_train(config)
            time.sleep(rng.uniform(0, seconds))
            os.kill(child, signal.SIGKILL)
            finish(child)
        assert finish(fork_and_train(config))[1] == 0
        assert final(next((tmp_path / str(number)).glob("otfkd/*/s0"))) == expected
