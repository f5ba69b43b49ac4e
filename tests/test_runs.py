"""Whole runs on the tiny BERT."""

import json
from collections.abc import Callable

from otfkd.config import Config
from otfkd.runs import train


def test_a_run_finishes_and_is_then_skipped(configure: Callable[..., Config]) -> None:
    config = configure("experiment=otfkd", "schedule.every=3")
    result = train(config)
    assert result.status == "finished"
    steps = [json.loads(line)["step"] for line in (result.folder / "rotations.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 9]
    again = train(config)
    assert again.status == "skipped"
    assert again.rows == result.rows
