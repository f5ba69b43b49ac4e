"""The Callback that drives any run: after each optimizer step it evaluates, checkpoints and, where asked, stops."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from torch import nn

from otfkd.base.errors import Interrupted
from otfkd.distill.checkpoints import Checkpoints
from otfkd.distill.patience import Patience
from otfkd.distill.schedule import Plan
from otfkd.distill.triggers import DevWatch
from otfkd.runs.folder import RunFolder
from otfkd.runs.log import PointReceiver, RunLog


class RunDriver(L.Callback):
    """Does what is due after an optimizer step of a LightningModule with a `student`.

    All in one hook, so that the checkpoint of step N holds whatever step N+1 will learn from.

    Args:
        folder: gets the run's checkpoints, metrics.jsonl and timings.
        plan: what is due after which optimizer step.
        evaluate: a dev score of the student, higher is better.
        stopping: whether a signal asked the run to stop.
        mirror: gets every point of metrics.jsonl too.
        run: what the run computes, as a hash or a name; a checkpoint of another is refused.
        extra: further numbers of the student by the names that they are logged by, asked right after each dev score.

    Attributes:
        step: optimizer steps done.
        generation: rotations so far.
        dev: what dev scores have said.
        patience: whether they end the run.
    """

    generation = 0

    def __init__(
        self,
        folder: str | Path,
        plan: Plan,
        *,
        evaluate: Callable[[Any], float],
        stopping: Callable[[], bool] = lambda: False,
        mirror: PointReceiver | None = None,
        run: str = "",
        extra: Callable[[Any], Mapping[str, float]] = lambda student: {},
    ):
        self.folder = RunFolder(Path(folder))
        self.plan = plan
        self.checkpoints = Checkpoints(self.folder, run)
        self.run_log = RunLog(self.folder, mirror)
        self.evaluate = evaluate
        self.extra = extra
        self.stopping = stopping
        self.step = 0
        self.dev = DevWatch(plan.schedule)
        self.patience = Patience(plan.patience)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.step == 0:
            self.run_log.rewind({"metrics": 0, "rotations": 0})
            self.checkpoints.drop_best()
        if self.patience.spent:  # killed between its last checkpoint and its scores
            trainer.should_stop = True

    @property
    def ended(self) -> bool:
        """Whether nothing is learnt after this step."""
        return self.step == self.plan.max_steps or self.patience.spent

    @property
    def stopped(self) -> tuple[int, int] | None:
        """After which step of how many dev scores ended the run; None where they did not."""
        return (self.step, self.plan.max_steps) if self.patience.spent and self.step < self.plan.max_steps else None

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return  # a micro-batch in between two optimizer steps
        self.step = trainer.global_step
        if self.step in self.plan.evaluate:
            self._evaluate(student_of(module))
        self.after_evaluation(trainer, module, batch)
        self._save(trainer)

    def after_evaluation(self, trainer: L.Trainer, module: L.LightningModule, batch: Any) -> None:
        """What else is done after a step, before its checkpoint."""

    def after_checkpoint(self, *, saved: bool) -> None:
        """What is done last.

        Args:
            saved: whether a checkpoint of this step was written.
        """

    def _evaluate(self, student: nn.Module) -> None:
        score = self.evaluate(student)
        self.dev.see(score)
        if self.step > (self.plan.fills or 0):
            self.patience.see(score)
        self.run_log.metrics(self.step, {"dev": score, **self.extra(student)})
        if self.dev.improved:
            self.checkpoints.save_best(student, {"step": self.step, "dev": score, "generation": self.generation})

    def _save(self, trainer: L.Trainer) -> None:
        stop = self.stopping() and not self.ended
        saved = stop or self.ended or self.step in self.plan.checkpoint
        if saved:
            trainer.save_checkpoint(self.checkpoints.last)
            self.checkpoints.settle_best()
        self.after_checkpoint(saved=saved)
        if self.patience.spent:
            trainer.should_stop = True
        if stop:
            raise Interrupted(f"stopped after step {self.step}; the same command goes on from there")

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["otfkd"] = self.checkpoints.stamp

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.checkpoints.check(checkpoint)

    def state_dict(self) -> dict[str, Any]:
        state = {
            "step": self.step,
            "dev": self.dev.state_dict(),
            "best": self.checkpoints.chosen,
            "offsets": self.run_log.offsets(),
        }
        return state if self.patience.limit is None else {**state, "patience": self.patience.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.dev.load_state_dict(state["dev"])
        if "patience" in state:
            self.patience.load_state_dict(state["patience"])
        self.checkpoints.resume_best(state["best"])
        self.run_log.rewind(state["offsets"])


def student_of(module: L.LightningModule) -> nn.Module:
    """What a module trains."""
    student = module.student
    assert isinstance(student, nn.Module)
    return student
