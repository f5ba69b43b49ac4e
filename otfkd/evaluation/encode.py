"""Sentences to embeddings: each distinct sentence once, in batches of like length, in evaluation mode."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otfkd.base.errors import DivergenceError, UserError
from otfkd.config.sections import Compute
from otfkd.data.collate import pad
from otfkd.data.tokens import tokenize
from otfkd.models.encoder import Encoder, evaluating


def encode(
    encoder: Encoder,
    sentences: Sequence[str],
    *,
    batch_size: int,
    max_length: int,
    compute: Compute = "float32",
    advance: Callable[[int], object] | None = None,
) -> Tensor:
    """Embed sentences, whatever autocast is in force, leaving modes and random streams as they were.

    Args:
        encoder: the encoder; its pooler, tokenizer and prompt are used.
        sentences: n of them, repeats allowed.
        batch_size: sentences a batch.
        max_length: tokens read of a sentence.
        compute: what the encoder computes in; bfloat16 by autocast.
        advance: told after each batch how many distinct sentences were in it.

    Returns:
        (n, d) float32 on the CPU, in the order of `sentences`.

    Raises:
        DivergenceError: an embedding is not finite.
        UserError: a sentence is longer than the model reads.
    """
    distinct = list(dict.fromkeys(sentences))
    ids = tokenize(encoder.tokenizer, distinct, max_length, encoder.prompt) if distinct else []
    longest = max(map(len, ids), default=0)
    if longest > encoder.positions:
        raise UserError(
            f"a sentence has {longest} tokens and the model reads {encoder.positions}: lower max_length to it"
        )
    vectors = encode_tokens(encoder, ids, batch_size=batch_size, compute=compute, advance=advance)
    place = {sentence: i for i, sentence in enumerate(distinct)}
    return vectors[[place[sentence] for sentence in sentences]]


def encode_tokens(
    encoder: Encoder,
    ids: Sequence[Sequence[int] | NDArray[np.int32]],
    *,
    batch_size: int,
    compute: Compute,
    advance: Callable[[int], object] | None = None,
) -> Tensor:
    """As `encode`, for sentences that are token ids already and are taken as they are; (n, d) in their order."""
    by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    vectors = torch.empty(len(ids), encoder.width)
    with evaluating(encoder), torch.autocast(encoder.device.type, torch.bfloat16, compute == "bfloat16"):
        for start in range(0, len(ids), batch_size):
            rows = by_length[start : start + batch_size]
            tokens = pad([ids[i] for i in rows], encoder.pad_id).to(encoder.device)
            vectors[rows] = encoder(tokens).float().cpu()
            if advance is not None:
                advance(len(rows))
    if not vectors.isfinite().all():
        raise DivergenceError("the model's embeddings are not finite")
    return vectors
