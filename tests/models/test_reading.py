"""How a model reads text travels with it: its folder says what otfkd does, and others do the same with the folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

import otfkd
from otfkd.base.errors import UserError
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.reporting.export import export
from tests.support.models import WORDS, make_tokenizer

LONG = " ".join(WORDS * 12)
SENTENCES = ["the cat sat on the mat", LONG, "a dog", " ".join(WORDS[::-1])]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with positions for 300 tokens."""
    import torch

    folder, tokenizer = tmp_path_factory.mktemp("long"), make_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=300, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "base"))


def edit(path: Path, **changes: Any) -> None:
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **changes}))


def theirs(folder: Path, batch_size: int = 4) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    return np.asarray(model.encode(SENTENCES, batch_size=batch_size))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [24, 64, 256])
def test_as_many_tokens_are_read_as_were_saved_with_the_model(base: Path, tmp_path: Path, length: int) -> None:
    save_encoder(load_encoder(base, "mean"), tmp_path / "model", length)
    model = otfkd.load(str(tmp_path / "model"))
    assert_close(model.encode(SENTENCES), theirs(tmp_path / "model"))
    assert_close(model.encode(SENTENCES, max_length=12), model.encode([" ".join(s.split()[:10]) for s in SENTENCES]))


@pytest.mark.parametrize("length", [24, 64, 256])
def test_as_many_tokens_are_read_as_the_tokenizer_says_where_nothing_else_does(folder: Path, length: int) -> None:
    edit(folder / "tokenizer_config.json", model_max_length=length)
    assert_close(otfkd.load(str(folder), pooler="mean").encode(SENTENCES), theirs(folder))


def test_no_more_tokens_are_read_or_saved_than_there_are_positions_for(folder: Path, tmp_path: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=512)
    found = otfkd.load(str(folder), pooler="mean").encode(SENTENCES)
    save_encoder(load_encoder(folder, "mean"), tmp_path / "again", 512)
    assert_close(theirs(tmp_path / "again"), found)
    export(str(folder), tmp_path / "exported", pooler="mean")
    assert_close(theirs(tmp_path / "exported"), found)


@pytest.mark.parametrize(
    "setting",
    [
        {"padding_side": "left"}, {"truncation_side": "left"}, {"model_max_length": 9}, {"pad_to_multiple_of": 8},
        {"split_special_tokens": True}, {"model_input_names": ["input_ids"]}, {"padding_side": "left", "max_length": 5},
    ],
    ids=lambda setting: "+".join(setting),
)  # fmt: skip
def test_a_tokenizers_settings_are_exported_as_they_were_used(
    folder: Path, tmp_path: Path, setting: dict[str, Any]
) -> None:
    edit(folder / "tokenizer_config.json", **setting)
    edit(folder / "sentence_bert_config.json", max_seq_length=24)
    model = otfkd.load(str(folder), pooler="mean")
    save_encoder(model.encoder, tmp_path / "model", 24)
    found = model.encode(SENTENCES)
    for batch_size in (1, 4):
        assert_close(model.encode(SENTENCES, batch_size=batch_size), found)
        assert_close(theirs(tmp_path / "model", batch_size), found)
    assert_close(otfkd.load(str(tmp_path / "model")).encode(SENTENCES), found)


@pytest.mark.parametrize("direction", ["Left", "Right"])
def test_padding_and_truncation_inside_the_tokenizers_own_file_are_no_exception(
    folder: Path, tmp_path: Path, direction: str
) -> None:
    truncation = {"direction": direction, "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 30}, "direction": direction, "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "[PAD]",
    }  # fmt: skip
    edit(folder / "tokenizer.json", truncation=truncation, padding=padding)
    edit(folder / "sentence_bert_config.json", max_seq_length=24)
    model = otfkd.load(str(folder), pooler="mean")
    save_encoder(model.encoder, tmp_path / "model", 24)
    for batch_size in (1, 4):
        assert_close(theirs(tmp_path / "model", batch_size), model.encode(SENTENCES))


def test_a_long_text_is_cut_on_the_side_that_the_model_says(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", model_max_length=24)
    right = otfkd.load(str(folder), pooler="mean")
    edit(folder / "tokenizer_config.json", truncation_side="left")
    left = otfkd.load(str(folder), pooler="mean")
    assert_close(left.encode(SENTENCES), theirs(folder))
    assert np.abs(left.encode(LONG) - right.encode(LONG)).max() > 1e-2
    assert left.encoder.input_hash != right.encoder.input_hash


def test_token_types_that_are_not_zero_are_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for part in tokenizer["post_processor"]["single"]:
        next(iter(part.values()))["type_id"] = 1
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    load_encoder(folder, "mean")
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    with pytest.raises(UserError, match=r"^the tokenizer in .* gives token types other than 0, .*: "):
        load_encoder(folder, "mean")
