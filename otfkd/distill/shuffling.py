"""Shuffling the teacher's ranking within groups, so that the student cannot fit its exact order."""

import math

import torch
from torch import Tensor

from otfkd.distill.losses import MASKED


def group_p(
    similarities: Tensor, p: float, generator: torch.Generator | None = None, kept: Tensor | None = None
) -> Tensor:
    """Shuffle within groups of equal probability mass (Xu et al. 2023, DistillCSE, Group-P).

    A row is sorted, the softmax of its un-tempered cosines is accumulated, and each stretch of mass `p` is a group
    whose members swap places at random. Cosines are used without temperature: with it nearly all would share a group.

    Args:
        similarities: (B, N) cosines without the diagonal.
        p: probability mass of a group, of which there are ceil(1/p); about p * N entries, as cosines are narrow.
        generator: where the randomness comes from.
        kept: (B, N) bool, which entries take part; the others stay where they are. None is all.

    Returns:
        (B, N), each row a permutation of its input.
    """
    values, order = _ranked(similarities, kept)
    return _shuffle(similarities, values, order, _groups(values, p), generator, kept)


def group_size(
    similarities: Tensor, size: int, generator: torch.Generator | None = None, kept: Tensor | None = None
) -> Tensor:
    """Shuffle within groups of `size` neighbours in the ranking; the last group has what is left over.

    Args:
        similarities: (B, N) cosines without the diagonal.
        size: entries of a group.
        generator: where the randomness comes from.
        kept: (B, N) bool, which entries take part; the others stay where they are. None is all.

    Returns:
        (B, N), each row a permutation of its input.
    """
    values, order = _ranked(similarities, kept)
    ranks = torch.arange(values.shape[-1], device=values.device, dtype=torch.double)
    return _shuffle(similarities, values, order, (ranks // size).expand_as(values), generator, kept)


def _ranked(similarities: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each row sorted, with what takes no part behind the rest and without mass."""
    taking_part = similarities if kept is None else similarities.masked_fill(~kept, MASKED)
    return taking_part.sort(dim=-1, descending=True)


def _shuffle(
    similarities: Tensor,
    values: Tensor,
    order: Tensor,
    groups: Tensor,
    generator: torch.Generator | None,
    kept: Tensor | None,
) -> Tensor:
    noise = torch.rand(values.shape, generator=generator, device=generator.device if generator else values.device)
    if kept is not None:  # behind every group, so that nothing lands among those who stay
        groups = groups.masked_fill(~kept.gather(-1, order), values.shape[-1])
    shuffled = values.gather(-1, (groups + noise.to(values.device)).argsort(dim=-1))
    result = torch.empty_like(similarities).scatter_(-1, order, shuffled)
    return result if kept is None else result.where(kept, similarities)


def _groups(descending: Tensor, p: float) -> Tensor:
    """The group of each rank, (B, N), from 0; rounding in the sum cannot open a group beyond the last."""
    mass = descending.softmax(dim=-1).cumsum(dim=-1)
    # 1/p may come out just above the whole number it stands for, which must not open a group either.
    return (mass / p).floor().clamp(max=math.ceil(1 / p - 1e-9) - 1)
