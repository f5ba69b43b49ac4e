"""What every run's LightningModule does alike: modes, the head, the learning rate, clipping and the optimizer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from otfkd.config import Config
from otfkd.distill.rate import decayed
from otfkd.distill.schedule import Plan
from otfkd.distill.teacher import TeacherSlot
from otfkd.errors import UserError
from otfkd.models.encoder import Encoder, Head


class TrainingModule(L.LightningModule, ABC):
    """A student in training, its training-only head, and the teacher slot; what is minimised is a subclass's.

    Args:
        student: backbone and pooler.
        head: SimCSE's head, used in training only; None for the pooler that has it built in.
        teacher: the slot.
        config: the run's config.
        plan: between which rotations the learning rate decays, where it restarts.
    """

    def __init__(self, student: Encoder, head: Head | None, teacher: TeacherSlot, config: Config, plan: Plan):
        super().__init__()
        self.student = student
        self.head = head
        self.teacher = teacher
        self.config = config
        self.plan = plan
        self.rate = 0.0  # of the optimizer step just done
        self.grad_norm = torch.zeros(())  # before clipping

    def on_fit_start(self) -> None:
        # transformers loads in evaluation mode and Lightning keeps it; without dropout both views would be one.
        self.student.train()
        if self.head is not None:
            self.head.train()

    def project(self, pooled: Tensor) -> Tensor:
        """The vector the losses see, (B, d): through the head, where there is one."""
        projected: Tensor = pooled if self.head is None else self.head(pooled)
        return projected

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        # By hand, because Lightning's refuses fused optimizers under autocast, where only fp16 would need it to.
        parameters = optimizer.param_groups[0]["params"]
        self.grad_norm = clip_grad_norm_(parameters, self.config.optimizer.clip_norm)
        self.rate = optimizer.param_groups[0]["lr"] = self.learning_rate(self.trainer.global_step)

    def learning_rate(self, step: int) -> float:
        """The rate of the optimizer step after `step`; with restarts, each teacher's time has a decay of its own."""
        config = self.config
        restarts = config.schedule.on_rotation.lr == "restart"
        start = self.teacher.installed if restarts else 0
        end = self.plan.cycle_end(start) if restarts else config.trainer.max_steps
        return config.optimizer.lr * decayed(config.optimizer.decay, step, start, end)

    def step_metrics(self) -> dict[str, float]:
        """Of the optimizer step just done; asking starts the next step's.

        Raises:
            UserError: one is not finite: the run has diverged.
        """
        metrics = {"lr": self.rate, "grad_norm": float(self.grad_norm), **self.step_losses()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{name} is {value} at step {self.trainer.global_step}, the run has diverged: "
                    "lower optimizer.lr or raise the objective's temperatures"
                )
        return metrics

    @abstractmethod
    def step_losses(self) -> dict[str, float]:
        """Means over the micro-batches of the optimizer step just done, `loss` among them, which begins anew."""

    def configure_optimizers(self) -> Optimizer:
        return AdamW(
            # The teacher is frozen; a weight that an auxiliary head shares with the student counts once.
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=self.config.optimizer.lr,
            weight_decay=self.config.optimizer.weight_decay,
            fused=True,
        )


def mean(values: Sequence[Tensor]) -> float:
    """Of scalars."""
    return float(torch.stack([value.detach() for value in values]).mean())
