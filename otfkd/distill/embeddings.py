"""Distillation of the teacher's vectors themselves, across widths by a trained projection."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, mse_loss, normalize


class Projections(nn.Module):
    """Linear maps from the student's width to those of the teachers that have another: training state, not exported.

    Args:
        width: the student's.
        teachers: the widths of the slot's members, in their order.
        seed: of the initial weights.
    """

    def __init__(self, width: int, teachers: Sequence[int], seed: int):
        super().__init__()
        self.width = width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.maps = nn.ModuleList(nn.Linear(width, to) if to != width else nn.Identity() for to in teachers)

    def forward(self, student: Tensor, teachers: Sequence[Tensor], only: int | None = None) -> list[Tensor]:
        """The student's embeddings, (B, d), as each teacher is to see them, (B, d_m): its own map, or none at d_m = d.

        Members of another width come from outside and keep their places; a snapshot of the student never needs a map.
        Where only the first numbers of embeddings are given, they go through their part of the map.

        Args:
            student: its embeddings, or their first numbers.
            teachers: the members'.
            only: the place of the one member there is; all unless given.
        """
        places = range(len(teachers)) if only is None else [only]
        with torch.autocast(student.device.type, enabled=False):
            student = student.float()
            return [
                student if teacher.shape[-1] == self.width else _mapped(self.maps[place], student)
                for place, teacher in zip(places, teachers, strict=True)
            ]


def _mapped(layer: nn.Module, student: Tensor) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return linear(student, layer.weight[:, : student.shape[-1]], layer.bias)


def embedding_distillation(student: Tensor, teacher: Tensor, metric: Literal["mse", "cosine"]) -> Tensor:
    """How far the student's vectors are from the teacher's, sentence by sentence.

    Args:
        student: (B, d) of the teacher's width; gradients flow.
        teacher: (B, d), a constant.
        metric: `mse`, the mean squared error over batch and width, or `cosine`, the mean of 1 - cosine.

    Returns:
        A scalar, float32.
    """
    student, teacher = student.float(), teacher.detach().float()
    if metric == "mse":
        return mse_loss(student, teacher)
    return 1 - (normalize(student, dim=-1) * normalize(teacher, dim=-1)).sum(-1).mean()
