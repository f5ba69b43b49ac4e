"""Loggers that mirror what a run's own files say: none stops training, and none sends anything unless it is chosen."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from otfkd.base.errors import first_line
from otfkd.config.differences import flat
from otfkd.config.logger import LoggerName
from otfkd.runs.folder import METRICS, ROTATIONS
from otfkd.runs.log import Point
from otfkd.runs.rows import Row
from otfkd.training.mlflow_run import MLflowRun
from otfkd.training.run import Run
from otfkd.training.wandb_run import WandbRun

log = logging.getLogger("otfkd")


class Logger(Protocol):
    """What of Lightning's loggers is used."""

    def log_metrics(self, metrics: Any, step: int) -> None: ...
    def finalize(self, status: str) -> None: ...


def make_mirrors(run: Run, *, resumed: bool) -> "list[Mirror]":
    """What gives a run's points to the loggers it chose, each of which fails alone.

    Args:
        run: the run.
        resumed: whether it goes on from a checkpoint.
    """
    return [_mirror(run, name, resumed) for name in run.config.logger.names]


def _mirror(run: Run, name: LoggerName, resumed: bool) -> "Mirror":
    match name:
        case "wandb":
            return Mirror("W&B", lambda: WandbRun(run, resumed=resumed))
        case "mlflow":
            return Mirror("MLflow", lambda: MLflowRun(run))
        case "tensorboard":
            return Mirror("TensorBoard", lambda: _local(run, name, TensorBoardLogger, default_hp_metric=False))
        case "csv":
            return Mirror("CSV", lambda: _local(run, name, CSVLogger))


def _local(run: Run, name: LoggerName, kind: type[CSVLogger] | type[TensorBoardLogger], **options: Any) -> Logger:
    """A logger of files in a folder of its own, which is emptied: the run's own files fill it again."""
    folder = run.folder.logger(name)
    shutil.rmtree(folder, ignore_errors=True)
    made = kind(folder.parent, name="", version=folder.name, **options)
    made.log_hyperparams(flat(run.config.model_dump(mode="json")))
    return made


class Mirror:
    """Gives a logger a run's points, each optimizer step's once and whole, and closes it with the block.

    Args:
        name: of the logger, for messages.
        open: makes it, with no points in it.
    """

    def __init__(self, name: str, open: Callable[[], Logger]):
        self.name = name
        self._open = open
        self._logger: Logger | None = None
        self._step = 0
        self._pending: dict[str, float] = {}  # of that step, which may not be over
        self._given = self._lost = 0
        self._trouble: str | None = None

    def begin(self, points: Iterable[Point]) -> None:
        """Open the logger and give it the points of earlier attempts, in the order of their steps."""

        def opened() -> None:
            self._logger = self._open()

        self._attempt(opened)
        for step, values in points:
            self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take in values of a step; they are given on when its last have come."""
        if step != self._step:
            self._give()
        self._step = step
        self._pending.update(values)

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give()
        if self._logger is not None:
            self._attempt(partial(self._logger.finalize, "success" if error is None else "failed"))
        if self._lost:
            log.info(
                "%s lost %d of %d points (%s): %s and %s have them all",
                self.name, self._lost, self._given, self._trouble, METRICS, ROTATIONS,
            )  # fmt: skip

    def _give(self) -> None:
        values, self._pending = self._pending, {}
        if values:
            self._given += 1
            logger = self._logger
            if logger is None or not self._attempt(partial(logger.log_metrics, values, self._step)):
                self._lost += 1

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Whether the logger did something; its first failure is said."""
        try:
            action()
        except Exception as error:
            if self._trouble is None:
                self._trouble = first_line(error)
                log.warning("%s failed (%s), and the run goes on without it", self.name, self._trouble)
            return False
        return True


def final_scores(rows: Sequence[Row]) -> dict[str, float]:
    """A run's results as numbers for a logger: scores of the selected model as far as defined, and what it cost."""
    chosen = [row for row in rows if row.checkpoint == "selected"]
    scored = {f"{row.split}/average": row.average for row in chosen}
    scored |= {f"{row.split}/{task}": scores["all"] for row in chosen for task, scores in row.scores.items()}
    for row in chosen:
        scored |= _at_sizes(row)
    found = {name: score for name, score in scored.items() if score is not None}
    found |= {f"extra/{name}": value for name, value in (chosen[0].extra or {}).items()}
    cost = chosen[0].cost
    if cost is not None:
        found |= {"cost/seconds": cost.seconds, "cost/forwards": cost.forwards}
        if cost.peak_bytes is not None:
            found["cost/peak_bytes"] = cost.peak_bytes
    return found


def _at_sizes(row: Row) -> dict[str, float | None]:
    sizes = row.sizes or {}
    return {f"{row.split}/{size}/{task}": score for size, of in sizes.items() for task, score in of.items()}
