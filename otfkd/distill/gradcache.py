"""Batches beyond memory: a large batch is embedded in chunks, of which one at a time is held for the backward pass.

GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", sec. 3) embeds
every chunk without a graph, takes the loss of the whole batch and its gradient by the embeddings, and then embeds
each chunk again, under the same dropout, to go back through it. That is torch's checkpointing with a chunk as the
unit, which also sees to the random state, autocast and DDP. Negatives are those of the whole batch; the price is a
second forward.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from otfkd.data.collate import Batch, Tokens
from otfkd.distill.teacher import TeacherSlot

Embed = Callable[[Tokens], Tensor]


def in_chunks(embed: Embed, tokens: Tokens, size: int | None) -> Tensor:
    """Embed sentences so many at a time.

    Dropout is drawn chunk by chunk, so with it another size gives other masks; without it every size gives the same
    gradients up to rounding.

    Args:
        embed: (b, L) tokens to (b, d).
        tokens: (B, L).
        size: at most so many sentences at once; None: all, and none of them twice.

    Returns:
        (B, d), whose backward pass embeds each chunk once more.
    """
    if size is None or size >= len(tokens.input_ids):
        return embed(tokens)
    return torch.cat([_again(embed, part) for part in tokens.split(size)])


def _again(embed: Embed, tokens: Tokens) -> Tensor:
    # Chunks that shared a weight cast to bfloat16 would add up its gradients in bfloat16.
    torch.clear_autocast_cache()
    # It keeps the random state of the devices of the tensors it is given, and would not see those inside of Tokens.
    embedded: Tensor = checkpoint(
        lambda ids, mask: embed(Tokens(ids, mask)), tokens.input_ids, tokens.attention_mask, use_reentrant=False
    )
    return embedded


def taught_in_chunks(teacher: TeacherSlot, batch: Batch, size: int | None, only: int | None = None) -> list[Tensor]:
    """What a slot gives for a whole batch, (B, d_m) of each member asked, embedded so many sentences at a time."""
    if size is None:
        whole: list[Tensor] = teacher(batch.student, batch.teachers, only=only)
        return whole
    read = [part.split(size) for part in (batch.student, *batch.teachers)]
    parts = [teacher(student, own, only=only) for student, *own in zip(*read, strict=True)]
    return [torch.cat(member) for member in zip(*parts, strict=True)]
