"""Masked language models of random weights, and what they read."""

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from otfkd.data.collate import Tokens, pad
from tests.support.models import SPECIAL, make_tokenizer

TOKENIZER = make_tokenizer()


SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENIZER), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip


KINDS: dict[str, Any] = {"bert": (BertForMaskedLM, BertConfig), "roberta": (RobertaForMaskedLM, RobertaConfig)}


def make_masked_model(folder: Path, kind: str = "bert") -> Path:
    """Write a masked language model of random weights: two layers of width 32, its head included."""
    torch.manual_seed(0)
    model, config = KINDS[kind]
    model(config(**SIZES)).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words(rows: int = 8, length: int = 12, seed: int = 0) -> Tokens:
    """Random words between [CLS] and [SEP], the last row shorter."""
    ids = torch.randint(len(SPECIAL), len(TOKENIZER), (rows, length), generator=seeded(seed))
    ids[:, 0], ids[:, -1] = 2, 3
    return pad([*ids[:-1].tolist(), ids[-1, :5].tolist()], 0)
