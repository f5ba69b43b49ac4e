"""Decoders and their last token: whichever side is padded, with a token that ends a text and without, cut or not."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from otfkd.evaluation.encode import encode
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from tests.support.models import WORDS
from tests.support.zoo import DECODERS, make_zoo_model

LENGTH = 24
SENTENCES = ["the cat sat on the mat", "a dog", "red", " ".join(WORDS)]
FAST = ("qwen3", "gemma3_text")
KINDS = [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in DECODERS]


def edit_tokenizer(folder: Path, **changes: object) -> None:
    file = folder / "tokenizer_config.json"
    settings = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def last_tokens(folder: Path) -> np.ndarray:
    """What transformers alone gives for the last token of each sentence, without any padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        read = [tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt") for text in SENTENCES]
        return np.stack([model(**one).last_hidden_state[0, -1].numpy() for one in read])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", ["$A", "$A [SEP]", "[CLS] $A"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_is_the_embedding_in_any_batch_here_and_elsewhere(
    tmp_path: Path, kind: str, ends: str, side: Literal["left", "right"]
) -> None:
    folder = make_zoo_model(tmp_path / kind, kind, ends=ends)
    edit_tokenizer(folder, padding_side=side)
    expected = last_tokens(folder)
    encoder = load_encoder(folder, "last")
    save_encoder(encoder, tmp_path / "saved", LENGTH)
    found = [encode(encoder, SENTENCES, batch_size=size, max_length=LENGTH).numpy() for size in (1, 4)]
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    found += [np.asarray(saved.encode(SENTENCES, batch_size=size)) for size in (1, 4)]
    edit_tokenizer(tmp_path / "saved", padding_side="left")  # as others may read it
    found.append(np.asarray(SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(SENTENCES)))
    for embeddings in found:
        np.testing.assert_allclose(embeddings, expected, atol=1e-5, rtol=0)
    assert np.abs(expected - expected[0]).max(1)[1:].min() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_token_for_padding_the_end_of_a_text_pads(tmp_path: Path, kind: str) -> None:
    folder = make_zoo_model(tmp_path / kind, kind)
    edit_tokenizer(folder, pad_token=None, eos_token="[SEP]")
    assert AutoTokenizer.from_pretrained(folder).pad_token is None
    expected = last_tokens(folder)
    encoder = load_encoder(folder, "last")
    save_encoder(encoder, tmp_path / "saved", LENGTH)
    saved = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(SENTENCES)
    found = encode(encoder, SENTENCES, batch_size=4, max_length=LENGTH).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(saved, expected, atol=1e-5, rtol=0)
