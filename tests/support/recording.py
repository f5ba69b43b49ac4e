"""A run's weights, step by step, for tests that say what they must be."""

from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch

from otfkd.distill.module import Distillation
from tests.support.weights import Weights, copy_of


@dataclass(repr=False)  # Lightning formats its arguments, which with all these weights would take longer than the run
class Recorder(L.Callback):
    """Comes last, so it sees each optimizer step as the next one will find it; step 0 is before the first.

    Attributes:
        trained: the student as the optimizer left it, before anything else happened.
        student: the student.
        members: who is in the slot.
        shares: with what weights.
        rates: the learning rate of each optimizer step.
        forgets: whether the optimizer has no state.
        addresses: of the slot's tensors.
        now: the optimizer step just done.
    """

    trained: dict[int, Weights] = field(default_factory=dict)
    student: dict[int, Weights] = field(default_factory=dict)
    members: dict[int, list[Weights]] = field(default_factory=dict)
    shares: dict[int, list[float]] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    forgets: dict[int, bool] = field(default_factory=dict)
    addresses: dict[int, list[int]] = field(default_factory=dict)
    now: int = 0
    modes: list[tuple[bool, bool]] = field(default_factory=list)
    lines: list[tuple[int, ...]] = field(default_factory=list)
    repeats: list[bool] = field(default_factory=list)

    def teacher(self, step: int) -> Weights | None:
        """The only member after a step, if there is one."""
        members = self.members[step]
        assert len(members) < 2
        return members[0] if members else None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.now = trainer.global_step
        self._record(trainer.global_step, module)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Distillation)
        dropouts = [part for part in module.student.modules() if isinstance(part, torch.nn.Dropout)]
        slot = module.teacher
        self.modes.append((all(part.training for part in dropouts), any(part.training for part in slot.modules())))
        if slot.filled:
            once, again = (slot(batch.student, batch.teachers)[0] for _ in range(2))
            self.repeats.append(torch.equal(once, again))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.lines.append(batch.lines)
        step, optimizer = trainer.global_step, trainer.optimizers[0]
        self.rates[step] = optimizer.param_groups[0]["lr"]
        self.forgets[step] = not optimizer.state
        self._record(step, module)

    def _record(self, step: int, module: L.LightningModule) -> None:
        assert isinstance(module, Distillation)
        slot = module.teacher
        self.student[step] = copy_of(module.student)
        self.members[step] = [copy_of(member) for member in slot.members]
        self.shares[step] = list(slot.weights)
        self.addresses[step] = [tensor.data_ptr() for part in slot.members for tensor in part.state_dict().values()]


@dataclass(repr=False)  # Lightning formats its arguments, which with all these weights would take longer than the run
class Before(L.Callback):
    """Comes first, and gives the recorder the student as the optimizer left it."""

    recorder: Recorder
    step: int = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, Distillation)
        if trainer.global_step > self.step:
            self.step = self.recorder.now = trainer.global_step
            self.recorder.trained[self.step] = copy_of(module.student)
