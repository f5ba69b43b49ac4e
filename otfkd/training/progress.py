"""What a person sees while a run goes on: a live bar in a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from otfkd.base.memory import forget_peak_memory, peak_memory
from otfkd.distill.driver import RunDriver
from otfkd.distill.training import TrainingModule

_LINES = 10  # plain lines a run, where there is no terminal


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


@contextlib.contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show how far something long has come and how long it may still take.

    Args:
        what: the things that are counted, for the reader.
        total: how many there are.

    Yields:
        A function that takes how many more are done.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
        return
    started, done = time.monotonic(), 0

    def tell(more: int) -> None:
        nonlocal done
        lines, done = done * _LINES // total, done + more
        if done * _LINES // total > lines:
            elapsed = time.monotonic() - started
            left = elapsed * (total / done - 1)
            sys.stderr.write(f"{what} {done:,}/{total:,}  {elapsed:.0f} s, about {left:.0f} s left\n")

    yield tell


class StepReport(L.Callback):
    """Writes each optimizer step's metrics and shows them; before the rotation, so a line names its step's teacher.

    Args:
        driver: knows the teacher's generation and the newest dev score, and where metrics are written.
        every: optimizer steps between lines of metrics.
        total: optimizer steps of the run.
    """

    def __init__(self, driver: RunDriver, every: int, total: int):
        self.driver = driver
        self.run_log = driver.run_log
        self.every = every
        self.total = total
        self.step = 0
        self.started = 0.0
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.step = trainer.global_step
        self.started = time.monotonic()
        forget_peak_memory()
        self.run_log.timing("start", step=self.step)
        console = Console(stderr=True)
        if console.is_terminal:
            self.bar = _bar(console)
            self.task = self.bar.add_task("training", total=self.total, completed=self.step)
            self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        self.run_log.alive(self.step)
        assert isinstance(module, TrainingModule)
        values = module.step_metrics()
        last = self.step == self.total
        if self.step % self.every == 0 or last:
            self.run_log.metrics(self.step, {**values, "generation": self.driver.generation})
        shown = self._describe(values)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.step, description=shown)
        elif self.step % max(1, self.total // _LINES) == 0 or last:
            elapsed = time.monotonic() - self.started
            sys.stderr.write(f"step {self.step}/{self.total}  {shown}  {elapsed:.0f} s\n")

    def _describe(self, values: dict[str, float]) -> str:
        parts = [f"loss {values['loss']:.4f}" if "loss" in values else "left out"]
        if "kd" in values:
            parts.append(f"kd {values['kd']:.4f}")
        parts.append(f"teacher {self.driver.generation}")
        if self.driver.dev.latest is not None:
            parts.append(f"dev {self.driver.dev.latest:.2f}")
        return "  ".join(parts)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        self.run_log.timing("stop", step=self.step, peak_bytes=peak_memory())
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
