"""Any sentence-transformers model embeds here as it does there: prompts, what pooling leaves out, length, letters."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from otfkd.base.errors import UserError
from otfkd.config.sections import Pooler
from otfkd.evaluation.encode import encode
from otfkd.models.export import save_encoder
from otfkd.models.registry import fingerprint_model, load_encoder
from otfkd.models.saved import saved_length, saved_prompts
from tests.support.models import WORDS

SENTENCES = ["the cat sat on the mat", "a dog", "The Old RIVER", " ".join(WORDS), "moon"]
PROMPT = "small song: "


def theirs(tiny_model: Path, folder: Path, pooling: str, *more: nn.Module, **settings: object) -> SentenceTransformer:
    """A model as sentence-transformers makes and saves it."""
    transformer = Transformer(str(tiny_model), max_seq_length=24)
    include = bool(settings.pop("include_prompt", True))
    modules = [transformer, Pooling(32, pooling_mode=pooling, include_prompt=include), *more]
    model = SentenceTransformer(modules=modules, device="cpu", **settings)
    model.save_pretrained(str(folder))
    return model


def ours(folder: Path) -> np.ndarray:
    encoder = load_encoder(folder)
    return encode(encoder, SENTENCES, batch_size=2, max_length=saved_length(folder) or encoder.longest).numpy()


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_a_default_prompt_is_honoured(tiny_model: Path, tmp_path: Path, pooling: str, include_prompt: bool) -> None:
    model = theirs(
        tiny_model, tmp_path / "st", pooling, include_prompt=include_prompt,
        prompts={"query": PROMPT, "other": "x"}, default_prompt_name="query",
    )  # fmt: skip
    assert_close(ours(tmp_path / "st"), model.encode(SENTENCES))
    assert np.abs(model.encode(SENTENCES) - model.encode(SENTENCES, prompt="")).max() > 1e-2


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_prompt_is_saved_again(tiny_model: Path, tmp_path: Path, include_prompt: bool) -> None:
    model = theirs(
        tiny_model, tmp_path / "st", "mean", include_prompt=include_prompt,
        prompts={"query": PROMPT}, default_prompt_name="query",
    )  # fmt: skip
    save_encoder(load_encoder(tmp_path / "st"), tmp_path / "again", 24)
    assert_close(ours(tmp_path / "again"), model.encode(SENTENCES))
    assert_close(SentenceTransformer(str(tmp_path / "again"), device="cpu").encode(SENTENCES), model.encode(SENTENCES))


def test_prompts_that_are_no_default_are_not_put_before_anything(tiny_model: Path, tmp_path: Path) -> None:
    model = theirs(tiny_model, tmp_path / "st", "mean", prompts={"query": PROMPT})
    assert load_encoder(tmp_path / "st").prompt == ""
    assert saved_prompts(tmp_path / "st")["query"] == PROMPT
    assert_close(ours(tmp_path / "st"), model.encode(SENTENCES))


def test_a_default_prompt_that_is_not_there_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {}, "default_prompt_name": "query"}')
    with pytest.raises(
        UserError, match=r"config_sentence_transformers\.json has no prompt called 'query', its default"
    ):
        load_encoder(folder, "cls")


def test_another_prompt_is_another_model(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    prints = [fingerprint_model(folder)]
    for prompts in ({}, {"a": "x "}, {"a": "y "}):
        name = next(iter(prompts), None)
        settings = {"prompts": prompts, "default_prompt_name": name}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
        prints.append(fingerprint_model(folder))
    assert prints[0] == prints[1] == fingerprint_model(tiny_model)
    assert len(set(prints)) == 3


def test_a_prompt_that_leaves_no_room_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    theirs(tiny_model, tmp_path / "st", "mean", prompts={"query": PROMPT}, default_prompt_name="query")
    encoder = load_encoder(tmp_path / "st")
    assert len(encoder.tokenizer(PROMPT)["input_ids"]) == 5
    with pytest.raises(UserError, match=r"the model's prompt 'small song: ' leaves no room .* max_length=5: raise it"):
        encode(encoder, SENTENCES, batch_size=2, max_length=5)
    assert encode(encoder, SENTENCES, batch_size=2, max_length=6).isfinite().all()


def test_embeddings_have_unit_length_where_the_model_says_so(tiny_model: Path, tmp_path: Path) -> None:
    model = theirs(tiny_model, tmp_path / "st", "mean", Normalize())
    assert_close(ours(tmp_path / "st"), model.encode(SENTENCES))
    save_encoder(load_encoder(tmp_path / "st"), tmp_path / "again", 24)
    assert_close(ours(tmp_path / "again"), model.encode(SENTENCES))
    assert_close(SentenceTransformer(str(tmp_path / "again"), device="cpu").encode(SENTENCES), model.encode(SENTENCES))


def test_what_is_trained_or_pooled_otherwise_keeps_its_length(tiny_model: Path, tmp_path: Path) -> None:
    theirs(tiny_model, tmp_path / "st", "mean", Normalize())
    assert not load_encoder(tmp_path / "st", train=True).normalize
    assert not load_encoder(tmp_path / "st", "mean").normalize


def test_letters_are_made_small_where_the_model_says_so(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "st"
    theirs(tiny_model, folder, "mean")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    expected, plain = (ours(folder) for _ in range(2))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24, "do_lower_case": true}')
    expected = SentenceTransformer(str(folder), device="cpu").encode(SENTENCES)
    assert_close(ours(folder), expected)
    assert np.abs(plain - expected).max() > 1e-2
    save_encoder(load_encoder(folder), tmp_path / "again", 24)
    assert_close(ours(tmp_path / "again"), expected)
    assert_close(SentenceTransformer(str(tmp_path / "again"), device="cpu").encode(SENTENCES), expected)


def test_a_square_tanh_after_cls_is_simcses_head(tiny_model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = theirs(tiny_model, tmp_path / "st", "cls", Dense(32, 32), Normalize())
    encoder = load_encoder(tmp_path / "st")
    assert encoder.pooler == "cls_head"
    assert_close(ours(tmp_path / "st"), model.encode(SENTENCES))


@pytest.mark.parametrize(
    ("pooling", "dense", "named"),
    [
        ("mean", {}, "from 32 to 32 dimensions (Tanh)"),
        ("cls", {"out_features": 16}, "from 32 to 16 dimensions (Tanh)"),
        ("cls", {"activation_function": nn.Identity()}, "from 32 to 32 dimensions (Identity)"),
        ("cls", {"bias": False}, "from 32 to 32 dimensions (Tanh)"),
        ("cls", {"use_residual": True}, "from 32 to 32 dimensions (Tanh)"),
    ],
)
def test_any_other_projection_is_refused(
    tiny_model: Path, tmp_path: Path, pooling: str, dense: dict[str, Any], named: str
) -> None:
    theirs(tiny_model, tmp_path / "st", pooling, Dense(**{"in_features": 32, "out_features": 32, **dense}))
    with pytest.raises(UserError, match=re.escape(f"projects what it pools by {pooling} {named}")):
        load_encoder(tmp_path / "st")
    assert load_encoder(tmp_path / "st", "mean").head is None


def test_a_module_of_foreign_code_is_refused_by_its_whole_name(tiny_model: Path, tmp_path: Path) -> None:
    theirs(tiny_model, tmp_path / "st", "mean")
    modules = json.loads((tmp_path / "st/modules.json").read_text())
    modules[0]["type"] = "custom_code.Transformer"
    (tmp_path / "st/modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match=r"is made of custom_code\.Transformer, Pooling, which otfkd does not read"):
        load_encoder(tmp_path / "st")


@pytest.mark.parametrize(("pooling", "pooler"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_their_names_of_poolers_are_read(tiny_model: Path, tmp_path: Path, pooling: str, pooler: Pooler) -> None:
    model = theirs(tiny_model, tmp_path / "st", pooling)
    assert load_encoder(tmp_path / "st").pooler == pooler
    assert_close(ours(tmp_path / "st"), model.encode(SENTENCES))
