"""What a person sees while a run goes on: a live bar in a terminal, plain lines elsewhere."""

import sys
from typing import Any

import lightning as L
from rich.progress import Progress

from otfkd.base.memory import forget_peak_memory, peak_memory
from otfkd.base.progress import Pace, live_bar
from otfkd.distill.driver import RunDriver
from otfkd.distill.training import TrainingModule


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
        self.bar: Progress | None = None
        self.values: dict[str, float] = {}  # of the newest step

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.step = trainer.global_step
        self.pace = Pace(self.total, self.step)
        forget_peak_memory()
        self.run_log.timing("start", step=self.step)
        self.bar = live_bar()
        if self.bar is not None:
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
        values = self.values = module.step_metrics()
        last = self.step == self.total
        if self.step % self.every == 0 or last:
            self.run_log.metrics(self.step, {**values, "generation": self.driver.generation})
        due = self.pace.due(self.step)
        if self.bar is not None or (due and not last):  # the last step's line waits for its dev score
            self._show(values)

    def _show(self, values: dict[str, float]) -> None:
        shown = self._describe(values)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.step, description=shown)
        else:
            sys.stderr.write(f"step {self.step}/{self.total}  {shown}  {self.pace.times()}\n")

    def _describe(self, values: dict[str, float]) -> str:
        parts = [f"loss {values['loss']:.4f}" if "loss" in values else "left out"]
        parts += [
            f"{name.removeprefix('term/')} {value:.4f}"
            for name, value in values.items()
            if name == "kd" or (name.startswith("term/") and name.count("/") == 1)
        ]
        parts.append(f"teacher {self.driver.generation}")
        if self.driver.dev.latest is not None:
            scored = max((step for step in self.driver.plan.evaluate if step <= self.driver.step), default=0)
            parts.append(f"dev {self.driver.dev.latest:.2f} after {scored}")
        return "  ".join(parts)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.values:
            self._show(self.values)
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        self.run_log.timing("stop", step=self.step, peak_bytes=peak_memory())
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
