"""Folders of other shapes: sentence-transformers' older one, and adapters without their model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import otfkd
from otfkd.base.errors import UserError
from otfkd.models.registry import find_model, fingerprint_model, load_encoder
from otfkd.reporting.export import export
from tests.support.models import WORDS

SENTENCES = ["the cat sat on the mat", "a dog", " ".join(WORDS)]


@pytest.fixture
def older(tiny_model: Path, tmp_path: Path) -> Path:
    """The transformer in a folder of its own, as sentence-transformers saved models before version 2."""
    folder = tmp_path / "older"
    shutil.copytree(tiny_model, folder / "0_Transformer")
    (folder / "0_Transformer/sentence_bert_config.json").write_text('{"max_seq_length": 12, "do_lower_case": true}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    )
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(("Transformer", "Pooling"))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_the_older_layout_is_read_and_exported_in_the_newer_one(older: Path, tmp_path: Path) -> None:
    expected = SentenceTransformer(str(older), device="cpu").encode(SENTENCES)
    found = otfkd.load(str(older)).encode(SENTENCES)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    export(str(older), tmp_path / "exported")
    assert (tmp_path / "exported/config.json").is_file()
    np.testing.assert_allclose(otfkd.load(str(tmp_path / "exported")).encode(SENTENCES), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "sentence_bert_config.json"])
def test_its_fingerprint_sees_what_decides_an_embedding(older: Path, file: str) -> None:
    before = fingerprint_model(older)
    with (older / "0_Transformer" / file).open("ab") as opened:
        opened.write(b" ")
    assert fingerprint_model(older) != before


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a config"])
def test_an_adapter_is_refused_with_what_to_do(tiny_model: Path, tmp_path: Path, beside: bool) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    if beside:
        shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/model", "peft_type": "LORA"}')
    with pytest.raises(UserError, match=r"adapter holds an adapter of some/model .*: merge it .*merge_and_unload"):
        load_encoder(find_model(str(folder)), "mean")


def test_an_adapter_from_the_hub_is_refused_too(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "adapter"))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds an adapter of another model .*: merge it"):
        load_encoder(folder, "mean")


def test_a_transformer_that_modules_name_and_that_is_not_there_is_said(older: Path) -> None:
    shutil.rmtree(older / "0_Transformer")
    with pytest.raises(UserError, match=r"holds no model \(no config.json\)"):
        find_model(str(older))
