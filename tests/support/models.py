"""A tiny BERT made on the spot, so that the fast suite needs no files, no network and little time."""

import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = [
    "the", "cat", "dog", "bird", "child", "sat", "ran", "flew", "slept", "on", "over", "under", "mat", "road", "tree",
    "house", "red", "blue", "big", "small", "old", "new", "and", "then", "slowly", "quickly", "home", "river", "stone",
    "moon", "garden", "bread", "letter", "song", "window",
]  # fmt: skip


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer of some words and all letters, so that no English text is unknown to it."""
    pieces = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    vocabulary = dict.fromkeys([*SPECIAL, *words, *pieces, *(f"##{piece}" for piece in pieces)])
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]


def make_model(folder: Path, *, width: int = 32, layers: int = 2, words: list[str] = WORDS, seed: int = 0) -> Path:
    """Write a BERT of random weights, two layers of width 32 unless told, with its tokenizer."""
    tokenizer = make_tokenizer(words)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
