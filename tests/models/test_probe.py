"""What is computed otherwise than by transformers, or depends on the rest of a batch, is found at load."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    BloomConfig,
    CanineConfig,
    ConvBertConfig,
    FNetConfig,
    IBertConfig,
    MambaConfig,
    MT5Config,
    NystromformerConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    SqueezeBertConfig,
    T5Config,
    UMT5Config,
    ViTConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from otfkd.base.errors import UserError
from otfkd.evaluation.encode import encode
from otfkd.models import packing
from otfkd.models.export import save_encoder
from otfkd.models.packing import packs
from otfkd.models.registry import load_encoder
from tests.support.models import make_tokenizer

SENTENCES = ["the cat sat", "a", "the dog ran over the big old house and then slept", "red [PAD] blue [UNK] é moon"]
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 70, "initializer_range": 0.2,
}  # fmt: skip


def make(folder: Path, kind: type[PreTrainedConfig], **settings: Any) -> Path:
    """A model of random weights of any architecture, none of its embeddings zero, with the tests' tokenizer."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    shape = SHAPE if kind.__name__ not in _OWN_SHAPES else {}
    model = AutoModel.from_config(kind(**({"vocab_size": len(tokenizer)} | shape | settings)))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" in name and parameter.ndim == 2:
                parameter.normal_(std=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_OWN_SHAPES = ("T5Config", "MT5Config", "UMT5Config", "BartConfig", "BloomConfig", "XLNetConfig", "MambaConfig")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_read_as_sentence_transformers_does(folder: Path, tmp_path: Path) -> np.ndarray:
    encoder = load_encoder(folder, "mean")
    found = encode(encoder, SENTENCES, batch_size=4, max_length=64).numpy()
    np.testing.assert_allclose(encode(encoder, SENTENCES, batch_size=1, max_length=64), found, atol=1e-5, rtol=0)
    save_encoder(encoder, tmp_path / "saved", 64)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(found, theirs, atol=1e-5, rtol=0)
    return found


@pytest.mark.parametrize("kind", [RobertaConfig, XLMRobertaConfig])
@pytest.mark.parametrize("pad_token_id", [0, 1, 10], ids=["the tokenizer's", "an unknown word's", "a letter's"])
def test_positions_are_counted_as_transformers_does_whatever_the_paddings_id(
    tmp_path: Path, kind: type[PreTrainedConfig], pad_token_id: int
) -> None:
    folder = make(tmp_path / "model", kind, pad_token_id=pad_token_id, max_position_embeddings=100)
    assert packs(load_encoder(folder, "mean").backbone)
    assert_read_as_sentence_transformers_does(folder, tmp_path)


@pytest.mark.parametrize("pooler", ["mean", "cls"])
def test_what_packing_would_compute_otherwise_is_read_with_its_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pooler: Any
) -> None:
    folder = make(tmp_path / "model", BertConfig)
    expected = encode(load_encoder(folder, pooler), SENTENCES, batch_size=4, max_length=64)
    assert not caplog.records
    monkeypatch.setattr(packing, "_positions", lambda *_: torch.zeros(1, 1, dtype=torch.long))
    with caplog.at_level(logging.INFO, "otfkd"):
        encoder = load_encoder(folder, pooler)
    assert "are read with their padding" in caplog.text
    assert not packs(encoder.backbone)
    torch.testing.assert_close(encode(encoder, SENTENCES, batch_size=4, max_length=64), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "switch",
    [
        {"is_decoder": True}, {"chunk_size_feed_forward": 4}, {"return_dict": False}, {"output_attentions": True},
        {"output_hidden_states": True}, {"use_cache": False}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.5},
        {"add_cross_attention": True, "is_decoder": True}, {"tie_word_embeddings": False}, {"type_vocab_size": 2},
        {"attn_implementation": "eager"}, {"torchscript": True}, {"is_encoder_decoder": True},
    ],
    ids=lambda switch: next(iter(switch)),
)  # fmt: skip
@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig])
def test_every_switch_of_a_config_does_what_it_does_in_transformers(
    tmp_path: Path, kind: type[PreTrainedConfig], switch: dict[str, Any]
) -> None:
    crossed = {"add_cross_attention", "is_decoder"} <= switch.keys()
    folder = make(tmp_path / "model", kind, **(switch if crossed else {}))
    edit(folder, **switch)
    found = assert_read_as_sentence_transformers_does(folder, tmp_path)
    model = AutoModel.from_pretrained(folder, return_dict=True, attn_implementation="eager").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if "chunk_size_feed_forward" not in switch:  # which transformers takes only for lengths that it divides
        with torch.no_grad():
            for sentence, row in zip(SENTENCES, found, strict=True):
                alone = model(**tokenizer(sentence, return_tensors="pt"), return_dict=True).last_hidden_state[0]
                np.testing.assert_allclose(alone.mean(0), row, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_positions_that_transformers_has_given_up_are_refused(tmp_path: Path, kind: str) -> None:
    folder = make(tmp_path / "model", BertConfig)
    edit(folder, position_embedding_type=kind)
    with pytest.raises(UserError, match=rf"config\.json asks for {kind} positions, which transformers no longer .*: "):
        load_encoder(folder, "mean")


T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
TAKEN: list[tuple[Any, dict[str, Any]]] = [
    (BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    (MambaConfig, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    (XLNetConfig, {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}),
    (IBertConfig, {"pad_token_id": 0}),
    (SqueezeBertConfig, {"embedding_size": 32, **{f"{part}_groups": 1 for part in (
        "q", "k", "v", "post_attention", "intermediate", "output")}}),
    (T5Config, T5), (MT5Config, T5), (UMT5Config, T5),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), TAKEN, ids=lambda value: getattr(value, "model_type", ""))
def test_architectures_beside_bert_are_read_as_they_should_be(
    tmp_path: Path, kind: type[PreTrainedConfig], shape: dict[str, Any]
) -> None:
    folder = make(tmp_path / "model", kind, **shape)
    found = assert_read_as_sentence_transformers_does(folder, tmp_path)
    encoder = load_encoder(folder, "mean")
    assert encoder.reading_length(None) >= 64
    assert np.abs(found[0] - found[1]).max() > 1e-2


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (BartConfig, {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
                  "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "pad_token_id": 0,
                  "max_position_embeddings": 64}, "is a bart model, an encoder with"),
    (ConvBertConfig, {"embedding_size": 32}, "is a convbert model, which lets padding into"),
    (NystromformerConfig, {"segment_means_seq_len": 32, "num_landmarks": 4}, "nystromformer model"),
    (NystromformerConfig, {"segment_means_seq_len": 16, "num_landmarks": 16}, "nystromformer model"),
    (FNetConfig, {}, "is a fnet model, which lets padding into"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "shape", "said"), REFUSED, ids=lambda value: getattr(value, "model_type", ""))
def test_what_cannot_be_read_well_is_refused_with_what_to_take_instead(
    tmp_path: Path, kind: type[PreTrainedConfig], shape: dict[str, Any], said: str
) -> None:
    folder = make(tmp_path / "model", kind, **shape)
    with pytest.raises(UserError, match=rf"{said}[^\n]*: take an encoder such as BERT"):
        load_encoder(folder, "mean")


OTHERS: list[tuple[Any, dict[str, Any]]] = [
    (ViTConfig, {"image_size": 16, "patch_size": 8}),
    (CanineConfig, {}),
]


@pytest.mark.parametrize(("kind", "shape"), OTHERS, ids=lambda value: getattr(value, "model_type", ""))
def test_no_architecture_ends_in_anything_but_a_sentence(
    tmp_path: Path, kind: type[PreTrainedConfig], shape: dict[str, Any]
) -> None:
    folder = make(tmp_path / "model", kind, **shape)
    for layers in (None, 1):
        with pytest.raises(UserError, match=rf"{kind.model_type} model, [^\n]*: take an encoder such as BERT"):
            load_encoder(folder, "mean", layers)
