"""Group-P: shuffle the teacher's similarities within groups of equal probability mass (Xu et al. 2023, DistillCSE)."""

import torch
from torch import Tensor


def group_p(similarities: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Exchange neighbours in each row's ranking, so that the student cannot fit the teacher's exact order.

    A row is sorted, the softmax of its un-tempered cosines is accumulated, and each stretch of mass `p` is a group
    whose members swap places at random. Cosines are used without temperature: with it nearly all would share a group.

    Args:
        similarities: (B, N) cosines without the diagonal.
        p: probability mass of a group; about p * N entries, as cosines are narrow.
        generator: where the randomness comes from.

    Returns:
        (B, N), each row a permutation of its input.
    """
    values, order = similarities.sort(dim=-1, descending=True)
    groups = _groups(values, p)
    noise = torch.rand(values.shape, generator=generator, device=generator.device if generator else values.device)
    shuffled = values.gather(-1, (groups + noise.to(values.device)).argsort(dim=-1))
    return torch.empty_like(similarities).scatter_(-1, order, shuffled)


def _groups(descending: Tensor, p: float) -> Tensor:
    """The group of each rank, (B, N), from 0; rounding in the sum cannot open a group beyond the last."""
    mass = descending.softmax(dim=-1).cumsum(dim=-1)
    return (mass / p).floor().clamp(max=round(1 / p) - 1)
