"""The LightningModule: a student, its training-only head, and the teacher slot."""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from otfkd.config import Config
from otfkd.data.collate import Batch
from otfkd.distill.objective import Terms, objective
from otfkd.distill.teacher import TeacherSlot
from otfkd.models.encoder import Encoder, Head
from otfkd.provenance import derived_seed


class Distillation(L.LightningModule):
    """Trains a student by InfoNCE and, while the slot is filled, by distillation from the teacher.

    Args:
        student: backbone and pooler.
        head: SimCSE's head, used in training only; None for the pooler that has it built in.
        teacher: the slot.
        config: the run's config.
    """

    def __init__(self, student: Encoder, head: Head | None, teacher: TeacherSlot, config: Config):
        super().__init__()
        self.student = student
        self.head = head
        self.teacher = teacher
        self.config = config
        self.rate = 0.0  # of the optimizer step just done
        self.grad_norm = torch.zeros(())  # before clipping
        self.terms: list[Terms] = []  # of the micro-batches since the last optimizer step

    def on_fit_start(self) -> None:
        # transformers loads in evaluation mode and Lightning keeps it; without dropout both views would be one.
        self.student.train()
        if self.head is not None:
            self.head.train()

    def project(self, pooled: Tensor) -> Tensor:
        """The vector the losses see, (B, d): through the head, where there is one."""
        projected: Tensor = pooled if self.head is None else self.head(pooled)
        return projected

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Each batch has random streams of its own, so neither evaluation nor a resume can shift them.
        torch.manual_seed(derived_seed(self.config.seed, "dropout", batch_idx))
        shuffle = torch.Generator().manual_seed(derived_seed(self.config.seed, "group_p", batch_idx))
        view1, view2 = self.project(self.student(batch.student.twice())).chunk(2)
        teacher = self.teacher(batch) if self.teacher.filled and self.config.distils else None
        terms = objective(self.config.objective, (view1, view2), teacher, shuffle)
        self.terms.append(terms)
        return terms.total

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        # By hand, because Lightning's refuses fused optimizers under autocast, where only fp16 would need it to.
        parameters = optimizer.param_groups[0]["params"]
        self.grad_norm = clip_grad_norm_(parameters, self.config.optimizer.clip_norm)
        self.rate = optimizer.param_groups[0]["lr"]

    def step_metrics(self) -> dict[str, float]:
        """Means over the micro-batches of the optimizer step just done; asking starts the next step's."""
        terms, self.terms = self.terms, []
        metrics = {
            "lr": self.rate,
            "grad_norm": float(self.grad_norm),
            "loss": _mean([term.total for term in terms]),
            "info_nce": _mean([term.contrastive for term in terms]),
        }
        distilled = [term.distillation for term in terms if term.distillation is not None]
        if distilled:
            metrics["kd"] = _mean(distilled)
        return metrics

    def configure_optimizers(self) -> Any:
        optimizer = AdamW(
            [parameter for part in (self.student, self.head) if part is not None for parameter in part.parameters()],
            lr=self.config.optimizer.lr,
            weight_decay=self.config.optimizer.weight_decay,
            fused=True,
        )
        steps = self.config.trainer.max_steps
        decay = LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack([value.detach() for value in values]).mean())
