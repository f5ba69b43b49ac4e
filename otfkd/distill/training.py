"""What every run's LightningModule does alike: modes, the head, the learning rate, clipping and the optimizer."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from otfkd.base.errors import DivergenceError
from otfkd.base.hashing import derived_seed
from otfkd.base.processes import all_gather_object, any_process
from otfkd.config.schema import Config
from otfkd.data.collate import Batch, LabelledBatch
from otfkd.distill.checkpoints import check_names
from otfkd.distill.rate import decayed
from otfkd.distill.schedule import Plan
from otfkd.models.encoder import Encoder, Head

log = logging.getLogger("otfkd")


class TrainingModule(L.LightningModule, ABC):
    """A student in training with its training-only head; what is minimised is a subclass's.

    Args:
        student: backbone and pooler.
        head: SimCSE's head, used in training only; None for the pooler that has it built in.
        config: the run's config.
        plan: between which rotations the learning rate decays, where it restarts.

    Attributes:
        skipped: optimizer steps that were left out so far, because their loss or gradient was not finite.
    """

    def __init__(self, student: Encoder, head: Head | None, config: Config, plan: Plan):
        super().__init__()
        self.student = student
        self.head = head
        self.config = config
        self.plan = plan
        self.rate = 0.0  # of the optimizer step just done
        self.grad_norm = torch.zeros(())  # before clipping
        self.skipped = 0
        self.left_out = False  # whether the optimizer step just done was
        self.lines: tuple[int, ...] = ()  # of the micro-batch at hand
        self.read: list[tuple[tuple[int, ...], Tensor]] = []  # lines and loss of those since the last optimizer step

    def on_fit_start(self) -> None:
        # transformers loads in evaluation mode and Lightning keeps it; without dropout both views would be one.
        self.student.train()
        if self.head is not None:
            self.head.train()

    def draw_from(self, *stream: int | str) -> None:
        """Let torch's next random numbers come from a stream of their own.

        Each batch has one, so neither evaluation nor a resume can shift them.
        """
        seed = derived_seed(self.config.seed, *stream)
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # which would note a traceback for each kind of device that is not there, every step anew
            torch.default_generator.manual_seed(seed)

    def project(self, pooled: Tensor) -> Tensor:
        """The vector the losses see, (B, d): through the head, where there is one."""
        projected: Tensor = pooled if self.head is None else self.head(pooled)
        return projected

    def on_train_batch_start(self, batch: Batch | LabelledBatch, batch_idx: int) -> None:
        self.lines = batch.lines

    def on_before_backward(self, loss: Tensor) -> None:
        self.read.append((self.lines, loss.detach()))

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        # By hand, because Lightning's refuses fused optimizers under autocast, where only fp16 would need it to.
        parameters = optimizer.param_groups[0]["params"]
        self.grad_norm = clip_grad_norm_(parameters, self.config.optimizer.clip_norm)
        self.rate = optimizer.param_groups[0]["lr"] = self.learning_rate(self.trainer.global_step)
        read, self.read = self.read, []
        finite = all(bool(loss.isfinite()) for _, loss in read) and bool(self.grad_norm.isfinite())
        self.left_out = any_process(not finite)
        if self.left_out:
            self._leave_out(parameters, self._told(read))

    def _leave_out(self, parameters: Sequence[Tensor], told: str) -> None:
        """Make the optimizer step to come change nothing, where that is wanted and of use."""
        sound = all(bool(weight.isfinite().all()) for weight in parameters)  # or no loss to come is finite either
        if self.config.trainer.on_nonfinite == "stop" or not sound:
            raise DivergenceError(told, of_a_step=sound)
        for weight in parameters:
            weight.grad = None
        self.skipped += 1
        log.warning("%s: left out", told)

    def _told(self, read: Sequence[tuple[tuple[int, ...], Tensor]]) -> str:
        """What is not finite in the optimizer step to come, and in which lines."""
        bad = [part for part in read if not part[1].isfinite()]
        what = f"the loss is {float(bad[0][1])}" if bad else f"the gradient's norm is {float(self.grad_norm)}"
        own = [line + 1 for lines, _ in bad or read for line in lines]
        lines = sorted({line for part in all_gather_object(own) for line in part})
        return f"{what} at step {self.trainer.global_step + 1} (lines {', '.join(map(str, lines))})"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["skipped"] = self.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_names(checkpoint["state_dict"], self.state_dict(), "the run's checkpoint last.ckpt")
        self.skipped = checkpoint.get("skipped", 0)

    @property
    def installed(self) -> int:
        """The optimizer step after which the latest teacher came; 0 without one."""
        return 0

    def learning_rate(self, step: int) -> float:
        """The rate of the optimizer step after `step`; with restarts, each teacher's time has a decay of its own."""
        config, restarts = self.config, self.config.schedule.on_rotation.lr == "restart"
        start, end = self.plan.decay(step, self.installed, restarts=restarts)
        return config.optimizer.lr * decayed(config.optimizer.decay, step, start, end)

    def step_metrics(self) -> dict[str, float]:
        """Of the optimizer step just done, one that was left out having no loss; asking starts the next step's."""
        losses, metrics = self.step_losses(), {"lr": self.rate}
        if not self.left_out:
            metrics |= {"grad_norm": float(self.grad_norm), **losses}
        if self.config.trainer.on_nonfinite == "skip":
            metrics["skipped"] = self.skipped
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
    """The mean of scalar tensors."""
    return float(torch.stack([value.detach() for value in values]).mean())
