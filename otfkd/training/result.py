"""What became of a run, as `train` returns it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from otfkd.runs.rows import Row


@dataclass(frozen=True)
class TrainResult:
    """What became of a run.

    Attributes:
        folder: the run's folder.
        status: `planned` after a dry run, `tried` after a trial, `skipped` when it was finished before.
        plan: the plan in words; after a trial, what was done.
        rows: its results; empty after a dry run or a trial.
        also: its scores on further suites, in the order of `evaluation.also`.
    """

    folder: Path
    status: Literal["planned", "tried", "skipped", "finished"]
    plan: str
    rows: list[Row]
    also: list[Row] = field(default_factory=list)
