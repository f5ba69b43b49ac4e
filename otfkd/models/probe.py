"""A small batch, read in more than one way when a model is loaded: what comes out must not depend on the way."""

import logging
from pathlib import Path

import torch
from torch import Tensor

from otfkd.base.errors import first_line
from otfkd.data.collate import Tokens, pad
from otfkd.data.tokens import tokenize
from otfkd.models.architecture import refused
from otfkd.models.encoder import Encoder, evaluating
from otfkd.models.packing import disable_packing, only_padded, packs

log = logging.getLogger("otfkd")

_TOLERANCE = 1e-4  # of the largest number in an embedding, or of 1
_LONGEST = 24  # tokens beside the prompt's


def probe(encoder: Encoder, folder: Path) -> None:
    """See that a loaded model can be run, and take the padded path where the fast one computes something else.

    Raises:
        UserError: it cannot be run, or what is in a batch with a sentence changes its embedding.
    """
    tokens, config = sample(encoder), encoder.backbone.config
    with evaluating(encoder):
        try:
            with only_padded(encoder.backbone):
                padded, alone = encoder(tokens), torch.cat([encoder(one) for one in _each(tokens)])
        except Exception as error:  # as many kinds as there are architectures
            raise refused(config, folder, f"which cannot be run on token ids ({first_line(error)})") from None
        if not padded.isfinite().all():  # a model that diverged is named where it is used
            return
        if (far := apart(padded, alone)) > _TOLERANCE:
            why = f"which lets padding into its embeddings (a sentence alone and in a batch are {far:.1g} apart)"
            raise refused(config, folder, why)
        if packs(encoder.backbone) and not _packs_alike(encoder, tokens, padded):
            disable_packing(encoder.backbone)
            log.warning("batches of %s are read with their padding: without it the result would be another", folder)


def _each(tokens: Tokens) -> list[Tokens]:
    """Every sentence alone, without padding."""
    lengths = tokens.attention_mask.sum(1).tolist()
    return [
        Tokens(one.input_ids[:, :length], one.attention_mask[:, :length])
        for one, length in zip(tokens.split(1), lengths, strict=True)
    ]


def sample(encoder: Encoder) -> Tokens:
    """Sentences of different lengths, one of them with the text of special tokens."""
    tokenizer = encoder.tokenizer
    names = " red ".join(str(name) for name in dict.fromkeys((tokenizer.pad_token, tokenizer.unk_token)) if name)
    sentences = [
        "a dog",
        f"the {names} river",
        "é",
        "The old house on a hill, 12 miles from the sea; nobody came.",
    ]
    prompt = len(tokenizer(encoder.prompt)["input_ids"]) if encoder.prompt else 0
    length = min(prompt + _LONGEST, encoder.longest)
    ids = [row for row in tokenize(tokenizer, sentences, length, encoder.prompt) if row]
    return pad(ids, encoder.pad_id).to(encoder.device)


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of any two numbers, for embeddings beyond 1 as a share of the largest."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def _packs_alike(encoder: Encoder, tokens: Tokens, padded: Tensor) -> bool:
    try:
        return apart(encoder(tokens), padded) <= _TOLERANCE
    except Exception:  # whatever it is, the padded path has just been seen to work
        return False
