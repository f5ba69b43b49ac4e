"""A whole objective of the user's own, `objective.fn=package.module:function`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from otfkd.base.errors import UserError
from otfkd.config.parts import blaming, resolve
from otfkd.distill.objective import Student
from otfkd.distill.own_loss import is_scalar, objection_to, shown

WholeLoss = Callable[[Student, Sequence[Tensor], Sequence[float]], Tensor]

_SIGNATURE = (
    "give a pure function of (student, teachers, shares): student.view1, student.view2 and student.embedding are "
    "float32 tensors (B, d), teachers a list of such tensors, which may be empty, and shares a list of numbers; its "
    "value is a finite scalar tensor with a gradient to the student alone"
)


def own_objective(path: str) -> WholeLoss:
    """The loss that an import path names, in float32 under every precision.

    Raises:
        UserError: it cannot be imported.
    """
    part = resolve("objective.fn", path)

    def loss(student: Student, teachers: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        views = Student(student.view1.float(), student.view2.float(), student.embedding.float())
        with blaming(part), torch.autocast(views.view1.device.type, enabled=False):
            value = part.value(views, [teacher.detach().float() for teacher in teachers], list(shares))
        if not is_scalar(value):
            raise UserError(f"{part} gave {shown(value)}: {_SIGNATURE}")
        scalar: Tensor = value.float()
        return scalar

    return loss


def check_own_objective(path: str, teacher: str) -> None:
    """Ask a loss twice for its value on small random embeddings, as often as its run has situations.

    Args:
        path: its import path.
        teacher: `teacher.source`: whether the slot is empty at first, and whether it is later filled.

    Raises:
        UserError: it cannot be imported, or is no such function as a run needs.
    """
    part = resolve("objective.fn", path)
    if not callable(part.value):
        raise UserError(f"{part} is no function: {_SIGNATURE}")
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(6, 4, generator=generator).requires_grad_() for _ in range(3)]
    taught = torch.randn(6, 4, generator=generator)
    situations: dict[str, list[list[Tensor]]] = {"none": [[]], "self": [[], [taught]], "model": [[taught]]}
    for teachers in situations[teacher]:
        told = f"three tensors (6, 4) and {len(teachers) or 'no'} teacher"
        objection = objection_to(
            lambda given=teachers: part.value(Student(*views), list(given), [1.0] * len(given)),  # type: ignore[misc]
            views, teachers, "embeddings", told,
        )  # fmt: skip
        if objection:
            raise UserError(f"{part} {objection}: {_SIGNATURE}")
