"""The LightningModule: a student, its training-only head, and the teacher slot."""

import math
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from otfkd.config import Config
from otfkd.data.collate import Batch, Tokens
from otfkd.distill.diagnostics import compare
from otfkd.distill.embeddings import Projections
from otfkd.distill.mlm import MaskedLanguage
from otfkd.distill.objective import Student, Terms, objective, repeated
from otfkd.distill.rate import decayed
from otfkd.distill.schedule import Plan
from otfkd.distill.teacher import TeacherSlot
from otfkd.distill.weighting import Weighting, moving, weighting
from otfkd.errors import UserError
from otfkd.models.encoder import Encoder, Head, evaluating
from otfkd.processes import gathered, rank
from otfkd.provenance import derived_seed


class Distillation(L.LightningModule):
    """Trains a student by InfoNCE and, while the slot is filled, by distillation from the teacher.

    Args:
        student: backbone and pooler.
        head: SimCSE's head, used in training only; None for the pooler that has it built in.
        teacher: the slot.
        config: the run's config.
        plan: between which rotations the learning rate decays, where it restarts.
        mlm: the head of the auxiliary loss, where the objective has one.
    """

    def __init__(
        self,
        student: Encoder,
        head: Head | None,
        teacher: TeacherSlot,
        config: Config,
        plan: Plan,
        mlm: MaskedLanguage | None = None,
    ):
        super().__init__()
        self.student = student
        self.head = head
        self.teacher = teacher
        self.mlm = mlm
        self.config = config
        self.plan = plan
        self.projections: Projections | None = None
        if config.distils and config.objective.compares_embeddings:
            widths = [member.width for member in teacher.members if isinstance(member, Encoder)]
            self.projections = Projections(student.width, widths, derived_seed(config.seed, "projections"))
        self.rate = 0.0  # of the optimizer step just done
        self.grad_norm = torch.zeros(())  # before clipping
        self.terms: list[Terms] = []  # of the micro-batches since the last optimizer step
        self.weighting: Weighting | None = None  # of the optimizer step just done

    def on_fit_start(self) -> None:
        # transformers loads in evaluation mode and Lightning keeps it; without dropout both views would be one.
        for part in (self.student, self.head, self.mlm):
            if part is not None:
                part.train()

    def project(self, pooled: Tensor) -> Tensor:
        """The vector the losses see, (B, d): through the head, where there is one."""
        projected: Tensor = pooled if self.head is None else self.head(pooled)
        return projected

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Each batch has random streams of its own, so neither evaluation nor a resume can shift them.
        seed, own = self.config.seed, (rank(),) if rank() else ()
        torch.manual_seed(derived_seed(seed, "dropout", batch_idx, *own))
        shuffle = torch.Generator().manual_seed(derived_seed(seed, "group_p", batch_idx))
        mask = torch.Generator().manual_seed(derived_seed(seed, "mlm", batch_idx, *own))
        config, twice = self.config.objective, batch.student.twice()
        embeddings = self.student(twice)
        view1, view2 = (gathered(view) for view in self.project(embeddings).chunk(2))
        only = self._drawn(batch_idx)
        teachers, weights = self.taught(batch, only)
        self.weighting = weighting(
            config, self.trainer.global_step, self.config.trainer.max_steps,
            first=self.teacher.first_installed, latest=self.teacher.installed,
        )  # fmt: skip
        terms = objective(
            config,
            Student(view1, view2, gathered(embeddings.chunk(2)[0])),
            [gathered(member) for member in teachers],
            weights,
            self.weighting,
            shuffle,
            projections=None if self.projections is None else partial(self.projections, only=only),
            repeats=self._repeats(batch) if config.mask_repeats else None,
            mlm=None if self.mlm is None else self.mlm(twice, mask),
        )
        self.terms.append(terms)
        return terms.total

    def _repeats(self, batch: Batch) -> Tensor:
        """Which sentences of the whole batch, over all processes, are one to the student."""
        room = (0, self.config.data.max_length - batch.student.input_ids.shape[1])
        ids, mask = (gathered(pad(part, room)) for part in (batch.student.input_ids, batch.student.attention_mask))
        return repeated(Tokens(ids, mask))

    @property
    def _taught(self) -> bool:
        return self.teacher.filled and self.config.distils

    def _drawn(self, batch_idx: int) -> int | None:
        """The place of the one member that teaches on a batch; None where all do."""
        if not (self._taught and self.config.schedule.aggregate == "sample"):
            return None
        return self.teacher.draw(derived_seed(self.config.seed, "member", batch_idx))

    def taught(self, batch: Batch, only: int | None = None) -> tuple[list[Tensor], list[float]]:
        """What teaches on a batch: the members' embeddings and their shares; nothing while the slot is empty."""
        if not self._taught:
            return [], []
        shares = self.teacher.weights if only is None else [1.0]
        return self.teacher(batch.student, batch.teachers, only=only), shares

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
        """Means over the micro-batches of the optimizer step just done; asking starts the next step's.

        Raises:
            UserError: one is not finite: the run has diverged.
        """
        terms, self.terms = self.terms, []
        metrics = {
            "lr": self.rate,
            "grad_norm": float(self.grad_norm),
            "loss": _mean([term.total for term in terms]),
            "info_nce": _mean([term.contrastive for term in terms]),
        }
        optional = {
            "consistency": [term.consistency for term in terms if term.consistency is not None],
            "kd": [term.distillation for term in terms if term.distillation is not None],
            "mlm": [term.mlm for term in terms if term.mlm is not None],
        }
        metrics |= {name: _mean(values) for name, values in optional.items() if values}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{name} is {value} at step {self.trainer.global_step}, the run has diverged: "
                    "lower optimizer.lr or raise the objective's temperatures"
                )
        if "kd" in metrics and self.weighting is not None:
            metrics |= {name: getattr(self.weighting, name) for name in moving(self.config.objective)}
        return metrics

    def configure_optimizers(self) -> Optimizer:
        return AdamW(
            # The teacher is frozen; a weight that the MLM head shares with the student counts once.
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=self.config.optimizer.lr,
            weight_decay=self.config.optimizer.weight_decay,
            fused=True,
        )


def diagnose(module: Distillation, batch: Batch) -> dict[str, float | None]:
    """How student and teacher compare on a batch, as the distillation sees them but for dropout."""
    config = module.weighting or module.config.objective
    parts = torch.nn.ModuleList(part for part in (module.student, module.head) if part is not None)
    with evaluating(parts):
        student = gathered(module.project(module.student(batch.student)))
        members = [gathered(member) for member in module.teacher(batch.student, batch.teachers)]
        return compare(
            student, members, module.teacher.weights,
            temperature_student=config.temperature_student, temperature_teacher=config.temperature_teacher,
        )  # fmt: skip


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack([value.detach() for value in values]).mean())
