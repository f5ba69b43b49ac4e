"""Backbone, pooler and tokenizer together; modes that come back; what counts as the same shape."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from otfkd.config.sections import Pooler
from otfkd.data.collate import pad
from otfkd.models.encoder import Encoder, Head, evaluating
from otfkd.models.registry import load_encoder
from tests.support.models import WORDS, make_model
from tests.support.zoo import make_zoo_model


@pytest.mark.parametrize(("pooler", "head"), [("cls", True), ("mean", True), ("cls_head", False)])
def test_a_head_belongs_to_its_pooler_alone(tiny_encoder: Encoder, pooler: Pooler, head: bool) -> None:
    with pytest.raises(ValueError, match="a head belongs to the pooler cls_head"):
        Encoder(tiny_encoder.backbone, tiny_encoder.tokenizer, pooler, Head(32) if head else None)


def test_the_head_is_part_of_the_embedding(tiny_encoder: Encoder) -> None:
    head = Head(32)
    with_head = Encoder(tiny_encoder.backbone, tiny_encoder.tokenizer, "cls_head", head)
    tokens = pad([[2, 7, 3], [2, 3]], 0)
    expected = torch.tanh(tiny_encoder(tokens) @ head.dense.weight.T + head.dense.bias)
    torch.testing.assert_close(with_head(tokens), expected)


def test_the_head_starts_as_berts_layers_do() -> None:
    torch.manual_seed(0)
    head = Head(256)
    assert abs(float(head.dense.weight.detach().std()) - 0.02) < 0.001
    assert not head.dense.bias.any()


def test_width_and_padding_are_the_models_own(tiny_encoder: Encoder) -> None:
    assert (tiny_encoder.width, tiny_encoder.pad_id) == (32, tiny_encoder.tokenizer.convert_tokens_to_ids("[PAD]"))


def modes(module: nn.Module) -> list[bool]:
    return [part.training for part in module.modules()]


@pytest.mark.parametrize("outer", [True, False])
def test_modes_come_back_even_mixed_ones(tiny_encoder: Encoder, outer: bool) -> None:
    tiny_encoder.train(outer)
    tiny_encoder.get_submodule("backbone.encoder.layer.1").train(not outer)
    before = modes(tiny_encoder)
    assert len(set(before)) == 2
    with evaluating(tiny_encoder):
        assert not any(modes(tiny_encoder))
    assert modes(tiny_encoder) == before


def test_modes_come_back_after_an_error(tiny_encoder: Encoder) -> None:
    before = modes(tiny_encoder.train())

    def fail() -> None:
        with evaluating(tiny_encoder):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert modes(tiny_encoder) == before
    assert torch.is_grad_enabled()


def test_evaluation_has_no_gradients(tiny_encoder: Encoder) -> None:
    with evaluating(tiny_encoder):
        assert not tiny_encoder(pad([[2, 3]], 0)).requires_grad
    assert tiny_encoder(pad([[2, 3]], 0)).requires_grad


def test_a_copy_with_other_weights_has_the_same_shape(tmp_path: Path, tiny_encoder: Encoder) -> None:
    other = load_encoder(make_model(tmp_path, seed=1), "cls")
    assert tiny_encoder.same_shape(other)
    assert other.same_shape(tiny_encoder)


@pytest.mark.parametrize(
    "change",
    [{"width": 64}, {"layers": 1}, {"words": WORDS[::-1]}, {"words": WORDS[:-1]}],
    ids=["width", "layers", "order of the vocabulary", "size of the vocabulary"],
)
def test_another_model_has_another_shape(tmp_path: Path, tiny_encoder: Encoder, change: dict[str, object]) -> None:
    other = load_encoder(make_model(tmp_path, **change), "cls")  # type: ignore[arg-type]
    assert not tiny_encoder.same_shape(other)
    assert not other.same_shape(tiny_encoder)


@pytest.mark.parametrize("pooler", ["mean", "cls_head"])
def test_another_pooler_is_another_shape(tiny_model: Path, tiny_encoder: Encoder, pooler: Pooler) -> None:
    other = load_encoder(tiny_model, pooler, train=True)
    assert not tiny_encoder.same_shape(other)
    assert not other.same_shape(tiny_encoder)


@pytest.mark.parametrize("change", [{"prompt": "a "}, {"pool_prompt": False}, {"normalize": True}], ids=str)
def test_another_reading_is_another_shape(tiny_encoder: Encoder, change: dict[str, Any]) -> None:
    other = Encoder(tiny_encoder.backbone, tiny_encoder.tokenizer, "cls", **change)
    assert not tiny_encoder.same_shape(other)
    assert (other.input_hash == tiny_encoder.input_hash) == ("prompt" not in change)


@pytest.mark.parametrize("pooler", ["cls", "mean", "last", "first_last_mean", "top2_mean"])
def test_a_prompt_that_is_not_pooled_is_still_read(tiny_encoder: Encoder, pooler: Pooler) -> None:
    backbone, tokenizer = tiny_encoder.backbone, tiny_encoder.tokenizer
    prompted = Encoder(backbone, tokenizer, pooler, prompt="the cat", pool_prompt=False)
    tokens = pad([tokenizer(f"the cat {rest}")["input_ids"] for rest in ("ran home", "sat")], 0)
    found = backbone(**vars(tokens), output_hidden_states=True).hidden_states
    layers = {"first_last_mean": [found[1], found[2]], "top2_mean": [found[1], found[2]]}.get(pooler, [found[2]])
    for row, end in ((0, 6), (1, 5)):  # [CLS] the cat ran home [SEP]
        own = sum(layer[row, 3:end] for layer in layers) / len(layers)
        expected = own[0] if pooler == "cls" else own[-1] if pooler == "last" else own.mean(0)
        torch.testing.assert_close(prompted(tokens)[row], expected)


def test_a_weight_of_two_names_is_kept_once_and_given_to_both(tmp_path: Path) -> None:
    folder = make_zoo_model(tmp_path / "t5", "t5")
    encoder, other = load_encoder(folder, "mean"), load_encoder(folder, "mean")
    state = {name: weight.clone() + 1 for name, weight in encoder.state_dict().items()}
    assert len(state) == len(list(encoder.parameters())) < len(list(encoder.named_parameters(remove_duplicate=False)))
    holder = torch.nn.ModuleList([copy.deepcopy(other)])  # as a checkpoint names them
    holder.load_state_dict({f"0.{name}": weight for name, weight in state.items()}, strict=True)
    for name, weight in holder[0].named_parameters(remove_duplicate=False):
        torch.testing.assert_close(weight, other.get_parameter(name) + 1, atol=0, rtol=0)
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(state, strict=True)
