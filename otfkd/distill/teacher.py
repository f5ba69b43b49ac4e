"""The teacher slot: what the student learns from, frozen, always in evaluation mode, and exchangeable in place."""

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Shaped(Protocol):
    """A module that knows whether another's weights mean the same in it."""

    def same_shape(self, other: nn.Module) -> bool: ...


class Precomputed(nn.Identity):
    """A member that has embedded the corpus already, and gives what a batch brings of that: (B, d) to (B, d).

    Args:
        width: d.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width


class TeacherSlot(nn.Module):
    """Holds the frozen members that teach together; none while it is empty.

    It stays out of state dicts: a checkpoint names its members by their snapshots and does not grow with them.

    Attributes:
        members: in order.
        weights: their shares in the target, adding up to 1.
        reads: for each member the position of its own tokens or embeddings in a batch; None where it reads as the
            student does.
        first_installed: the optimizer step after which the slot was first filled, 0 for an initial teacher; None until
            it is.
        installed: the optimizer step after which it last changed.

    Example::

        >>> import otfkd, torch
        >>> slot, student = otfkd.TeacherSlot(), torch.nn.Linear(4, 2)
        >>> slot.install([student])
        >>> frozen = student.weight.clone()
        >>> torch.nn.init.zeros_(student.weight).sum().item()
        0.0
        >>> torch.equal(slot.members[0].weight, frozen), slot.weights, slot.state_dict()
        (True, [1.0], {})
        >>> [taught.shape for taught in slot(torch.ones(3, 4))]
        [torch.Size([3, 2])]
    """

    def __init__(self) -> None:
        super().__init__()
        self.members = nn.ModuleList()
        self.weights: list[float] = []
        self.reads: list[int | None] = []
        self.first_installed: int | None = None
        self.installed = 0
        self.eval()
        self.register_load_state_dict_pre_hook(_keep_own)  # type: ignore[no-untyped-call]

    @property
    def filled(self) -> bool:
        return len(self.members) > 0

    def date(self, step: int) -> None:
        """Note that the slot changed after an optimizer step."""
        self.installed = step
        if self.first_installed is None:
            self.first_installed = step

    def install(
        self,
        members: Sequence[nn.Module],
        weights: Sequence[float] | None = None,
        reads: Sequence[int | None] | None = None,
    ) -> None:
        """Fill the slot with frozen copies: the initial teacher, there since step 0.

        Args:
            members: left untouched and never aliased.
            weights: shares, scaled to add up to 1; equal unless given.
            reads: as the attribute; all as the student unless given.
        """
        self.members = nn.ModuleList(_frozen(member) for member in members).eval()
        shares = weights or [1.0] * len(members)
        self.weights = [share / sum(shares) for share in shares]
        self.reads = list(reads or [None] * len(members))
        self.date(0)

    def put(self, position: int, student: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Make one member a student with these weights, in place where they fit so that addresses stay.

        Args:
            position: of the member; the next free one appends. Shares are the caller's to set.
            student: gives the shape, should the member be of another one.
            weights: a snapshot's.
        """
        if position == len(self.members):
            self.members.append(_frozen(student))
            self.reads.append(None)
        elif not _alike(self.members[position], student):
            self.members[position] = _frozen(student)
        self.renew(position, weights)
        self.reads[position] = None

    def renew(self, position: int, weights: Mapping[str, Tensor]) -> None:
        """Give a member that is a student's likeness already other weights of that student, in place."""
        with torch.no_grad():
            self.members[position].load_state_dict(weights, strict=True)

    def keep(self, count: int) -> None:
        """Drop all members but the first ones."""
        self.members = nn.ModuleList(self.members[:count]).eval()
        self.reads = self.reads[:count]

    def draw(self, seed: int) -> int:
        """The position of one member, drawn by the weights."""
        return random.Random(seed).choices(range(len(self.members)), self.weights)[0]

    def forward(self, inputs: Any, own: Sequence[Any] = (), only: int | None = None) -> list[Tensor]:
        """What the members make of a batch, one tensor each.

        The views of a batch are the same tokens, so one is enough.

        Args:
            inputs: what the student reads.
            own: what members read that do not read as the student does.
            only: the one member to ask; all unless given.
        """
        asked = range(len(self.members)) if only is None else [only]
        with torch.no_grad():
            return [self.members[at](self._input(self.reads[at], inputs, own)) for at in asked]

    @staticmethod
    def _input(reads: int | None, inputs: Any, own: Sequence[Any]) -> Any:
        return inputs if reads is None else own[reads]

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whoever asks for training."""
        return super().train(False)

    def state_dict(  # type: ignore[override]
        self, *_: Any, destination: dict[str, Any] | None = None, **__: Any
    ) -> dict[str, Any]:
        """Nothing: the teacher is no part of what a checkpoint holds."""
        return {} if destination is None else destination


def _frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False).eval()


def _alike(member: nn.Module, student: nn.Module) -> bool:
    """Whether the student's weights mean the same in the member."""
    if isinstance(member, Shaped):
        return member.same_shape(student)
    mine, theirs = member.state_dict(), student.state_dict()
    shapes = {name: tensor.shape for name, tensor in mine.items()}
    return repr(member) == repr(student) and shapes == {name: tensor.shape for name, tensor in theirs.items()}


def _keep_own(slot: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    # Strict loading stays strict for everything else: the slot answers for its own keys with what it holds.
    assert isinstance(slot, TeacherSlot)
    for name, tensor in slot.members.state_dict().items():
        state[f"{prefix}members.{name}"] = tensor
