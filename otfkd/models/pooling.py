"""Poolers: from (B, L, d) token vectors and a (B, L) mask to (B, d) sentence vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from otfkd.config.sections import Pooler

# What needs the hidden states of every layer, not only of the last.
LAYERED: tuple[Pooler, ...] = ("first_last_mean", "top2_mean")
# What takes the first token's vector alone.
FIRST: tuple[Pooler, ...] = ("cls", "cls_head")


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The last real token, whichever side is padded."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), (positions * mask).argmax(1)]


def pool(pooler: Pooler, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Apply a pooler.

    Args:
        pooler: `cls` and `cls_head` take the first token; `first_last_mean` averages the outputs of the first and the
            last layer (not the static word embeddings), `top2_mean` of the last two, and then tokens.
        layers: hidden states, the word embeddings first; only the last is read by poolers that are not LAYERED.
        mask: (B, L), 1 on real tokens.

    Returns:
        (B, d) sentence vectors.
    """
    match pooler:
        case "cls" | "cls_head":
            return layers[-1][:, 0]
        case "mean":
            return mean(layers[-1], mask)
        case "last":
            return last(layers[-1], mask)
        case "first_last_mean":
            return mean((layers[1] + layers[-1]) / 2, mask)
        case "top2_mean":
            return mean((layers[-2] + layers[-1]) / 2, mask)
