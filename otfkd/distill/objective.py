"""The training objective: what the losses are made of and how they add up."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from otfkd.config import ObjectiveConfig
from otfkd.distill.losses import cosine, info_nce, off_diagonal, similarity_distillation
from otfkd.distill.shuffling import group_p


@dataclass(frozen=True)
class Terms:
    """One batch's losses: `total` is what is minimised, the others are its parts before weighting."""

    total: Tensor
    contrastive: Tensor
    distillation: Tensor | None


def objective(
    config: ObjectiveConfig,
    views: tuple[Tensor, Tensor],
    teachers: Sequence[Tensor],
    weights: Sequence[float],
    generator: torch.Generator,
) -> Terms:
    """InfoNCE between the student's views, plus the weighted distillation of the teacher's similarities into view 1.

    Args:
        config: weights and temperatures.
        views: the student's two views with its head, (B, d) each.
        teachers: the members' embeddings of the same sentences, (B, d') each, of any width; none while its slot is
            empty.
        weights: the members' shares in the target, adding up to 1 (Xu et al. 2023, DistillCSE, eq. 7).
        generator: for Group-P.
    """
    view1, view2 = views
    contrastive = info_nce(view1, view2, config.temperature)
    if not teachers:
        return Terms(contrastive, contrastive, None)
    cosines = [share * cosine(member, member) for share, member in zip(weights, teachers, strict=True)]
    target = off_diagonal(torch.stack(cosines).sum(0))
    if config.group_p is not None:
        target = group_p(target, config.group_p, generator)
    distillation = similarity_distillation(
        off_diagonal(cosine(view1, view1)),
        target,
        temperature_student=config.temperature_student,
        temperature_teacher=config.temperature_teacher,
        divergence=config.kd,
    )
    return Terms(contrastive + config.kd_weight * distillation, contrastive, distillation)
