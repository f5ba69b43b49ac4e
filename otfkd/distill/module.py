"""The LightningModule of distillation: what a student learns from a batch of sentences, and from its teacher."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import pad

from otfkd.base.hashing import derived_seed
from otfkd.base.processes import all_gather, rank
from otfkd.config.schema import Config
from otfkd.data.collate import Batch, Tokens
from otfkd.distill.diagnostics import compare
from otfkd.distill.embeddings import Projections
from otfkd.distill.gradcache import in_chunks, taught_in_chunks
from otfkd.distill.mlm import MaskedLanguage
from otfkd.distill.objective import Student, Terms, objective, repeated
from otfkd.distill.own_loss import ListLoss
from otfkd.distill.own_objective import WholeLoss
from otfkd.distill.schedule import Plan
from otfkd.distill.teacher import Precomputed, TeacherSlot
from otfkd.distill.training import TrainingModule, mean
from otfkd.distill.weighting import Weighting, moving, weighting
from otfkd.models.encoder import Encoder, Head, evaluating
from otfkd.runs.rotations import Comparison


class Distillation(TrainingModule):
    """Trains a student by InfoNCE and, while the slot is filled, by distillation from the teacher.

    Args:
        student: backbone and pooler.
        head: SimCSE's head, used in training only; None for the pooler that has it built in.
        teacher: the slot.
        config: the run's config.
        plan: between which rotations the learning rate decays, where it restarts.
        mlm: the head of the auxiliary loss, where the objective has one.
        own_objective: the whole loss, where it is the user's own.
        own_losses: of two lists of similarities, those of the user's own that the objective names, by import path.
    """

    def __init__(
        self,
        student: Encoder,
        head: Head | None,
        teacher: TeacherSlot,
        config: Config,
        plan: Plan,
        mlm: MaskedLanguage | None = None,
        own_losses: Mapping[str, ListLoss] = MappingProxyType({}),
        own_objective: WholeLoss | None = None,
    ):
        super().__init__(student, head, config, plan)
        self.teacher = teacher
        self.mlm = mlm
        self.own_losses = own_losses
        self.own_objective = own_objective
        self.projections: Projections | None = None
        if config.objective.compares_embeddings:
            widths = [member.width for member in teacher.members if isinstance(member, Encoder | Precomputed)]
            self.projections = Projections(student.width, widths, derived_seed(config.seed, "projections"))
        self.terms: list[Terms] = []  # of the micro-batches since the last optimizer step
        self.weightings: dict[str, Weighting] = {}  # of the optimizer step just done, by the terms' names

    @property
    def installed(self) -> int:
        """The optimizer step after which the latest teacher came."""
        return self.teacher.installed

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.mlm is not None:
            self.mlm.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed, own = self.config.seed, (rank(),) if rank() else ()
        self.draw_from("dropout", batch_idx, *own)
        shuffle = torch.Generator().manual_seed(derived_seed(seed, "group_p", batch_idx))
        mask = torch.Generator().manual_seed(derived_seed(seed, "mlm", batch_idx, *own))
        config, twice = self.config.objective, batch.student.twice()
        embeddings = in_chunks(self.student, twice, self.config.trainer.chunk)
        sizes = [self._cut(embeddings, size) for size in config.dims or [self.student.width]]
        only = self._drawn(batch_idx)
        teachers, weights = self.taught(batch, only)
        self.weightings = {
            term.name: weighting(
                term, self.trainer.global_step, self.config.trainer.max_steps,
                first=self.teacher.first_installed, latest=self.teacher.installed,
            )
            for term in (*config.all_terms, config.compared_term)
        }  # fmt: skip
        members = [all_gather(member) for member in teachers]
        if self.own_objective is not None:
            whole = self.own_objective(sizes[0], members, weights)
            terms = Terms(whole, whole, {})
        else:
            terms = objective(
                config,
                sizes,
                members,
                weights,
                self.weightings,
                shuffle,
                projections=None if self.projections is None else partial(self.projections, only=only),
                repeats=self._repeats(batch) if config.mask_repeats else None,
                mlm=None if self.mlm is None else self.mlm(twice, mask),
                own=self.own_losses,
            )
        self.terms.append(terms)
        return terms.total

    def _cut(self, embeddings: Tensor, size: int) -> Student:
        """What the losses see of a batch's embeddings, (2B, d), at a size; over all processes."""
        cut = embeddings[:, :size]
        view1, view2 = (all_gather(view) for view in self.project(cut).chunk(2))
        return Student(view1, view2, all_gather(cut.chunk(2)[0]))

    def _repeats(self, batch: Batch) -> Tensor:
        """Which sentences of the whole batch, over all processes, are one to the student."""
        room = (0, self.config.data.max_length - batch.student.input_ids.shape[1])
        ids, mask = (all_gather(pad(part, room)) for part in (batch.student.input_ids, batch.student.attention_mask))
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
        return taught_in_chunks(self.teacher, batch, self.config.trainer.chunk, only), shares

    def step_losses(self) -> dict[str, float]:
        terms, self.terms = self.terms, []
        metrics = {"loss": mean([term.total for term in terms])}
        if self.own_objective is None:
            metrics["info_nce"] = mean([term.contrastive for term in terms])
        added = [term for term in self.config.objective.all_terms if any(term.name in one.added for one in terms)]
        metrics |= {
            term.name: mean([one.added[term.name] for one in terms if term.name in one.added]) for term in added
        }
        for term in added:
            now = self.weightings[term.name]
            metrics |= {name: getattr(now, value) for value, name in moving(term).items()}
        return metrics


def diagnose(module: Distillation, batch: Batch) -> Comparison:
    """How student and teacher compare on a batch, as the distillation sees them but for dropout."""
    rounded = module.config.precision.compute == "bfloat16"
    term, size = module.config.objective.compared_term, module.config.trainer.chunk
    now = module.weightings.get(term.name, term)
    parts = torch.nn.ModuleList(part for part in (module.student, module.head) if part is not None)
    with evaluating(parts), torch.autocast(module.device.type, torch.bfloat16, rounded):
        student = all_gather(module.project(in_chunks(module.student, batch.student, size)))
        members = [all_gather(member) for member in taught_in_chunks(module.teacher, batch, size)]
    return compare(
        student, members, module.teacher.weights,
        temperature_student=now.temperature_student, temperature_teacher=now.temperature_teacher,
    )  # fmt: skip
