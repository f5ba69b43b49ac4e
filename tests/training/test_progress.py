"""What a run shows of its steps where there is no terminal."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

import otfkd.training.train
from otfkd.base import progress
from otfkd.config.schema import Config
from otfkd.evaluation.rows import dev_score
from otfkd.training.train import train


def test_a_dev_score_is_shown_with_its_step_and_the_last_one_too(
    configure: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(configure("trainer.max_steps=4", "evaluation.every=2"))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [re.sub(r" [\d.]+(?= |$)", " N", line.split("  ")[0]) for line in lines] == [
        f"step {n}/4" for n in (1, 2, 3, 4)
    ]
    told = [re.search(r"dev ([\d.]+) after (\d)", line) for line in lines]
    assert [found and found[2] for found in told] == [None, None, "2", "4"]
    assert all(re.search(r"  \d+ s, about \d+ s left$", line) for line in lines)
    last = next(row for row in result.rows if row.split == "dev" and row.checkpoint == "last")
    assert told[-1] is not None and last.average is not None
    assert float(told[-1][1]) == pytest.approx(last.average, abs=0.01)


def test_a_dev_score_that_takes_long_is_announced(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score = dev_score

    def slowly(*given: Any) -> float:
        time.sleep(0.05)
        return score(*given)

    monkeypatch.setattr(otfkd.training.train, "dev_score", slowly)
    monkeypatch.setattr(progress, "_MOMENT", 0.02)
    train(configure("trainer.max_steps=4", "evaluation.every=2"))
    assert capsys.readouterr().err.count("scoring on tiny dev ...\n") == 2
