"""A batch without its padding gives what the padded one gives: embeddings, gradients, and what is saved."""

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)  # fmt: skip

from otfkd.config.sections import Pooler
from otfkd.data.collate import Tokens, pad
from otfkd.models.encoder import Encoder
from otfkd.models.packing import Packing, enable_packing, only_padded, packs
from otfkd.models.registry import load_encoder
from tests.support.models import make_tokenizer

SHAPE = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 40, "initializer_range": 0.2,
}  # fmt: skip
ARCHITECTURES = [(BertConfig, BertModel), (RobertaConfig, RobertaModel), (XLMRobertaConfig, XLMRobertaModel)]


def make_backbone(config: type, model: type, **more: object) -> PreTrainedModel:
    torch.manual_seed(0)
    backbone: PreTrainedModel = model(config(**(SHAPE | more), pad_token_id=1), add_pooling_layer=False).eval()
    # RoBERTa's and BERT's padding rows start at zero: a wrong position or a padding that leaks must not go unseen.
    with torch.no_grad():
        for table in ("position_embeddings", "word_embeddings"):
            backbone.get_parameter(f"embeddings.{table}.weight").normal_(std=0.5)
    return backbone


def make_tokens(rows: int = 9, seed: int = 0, longest: int = 17) -> Tokens:
    rng = random.Random(seed)
    return pad([[rng.randrange(2, 100) for _ in range(rng.randint(1, longest))] for _ in range(rows)], 1)


def encoders(backbone: PreTrainedModel, pooler: Pooler) -> tuple[Encoder, Encoder]:
    """One that reads packed batches, and its twin that reads padded ones."""
    packed = copy.deepcopy(backbone)
    enable_packing(packed)
    assert packs(packed)
    assert not packs(backbone)
    return Encoder(packed, make_tokenizer(), pooler), Encoder(backbone, make_tokenizer(), pooler)


@pytest.mark.parametrize("pooler", ["cls", "mean", "last", "first_last_mean", "top2_mean"])
@pytest.mark.parametrize(("config", "model"), ARCHITECTURES, ids=lambda value: value.__name__)
def test_embeddings_and_gradients_are_those_of_the_padded_batch(config: type, model: type, pooler: Pooler) -> None:
    found, expected = encoders(make_backbone(config, model), pooler)
    tokens = make_tokens()
    ours, theirs = found(tokens), expected(tokens)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    weights = torch.randn(ours.shape)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    assert_same_gradients(found, expected)


def assert_same_gradients(found: Encoder, expected: Encoder) -> None:
    theirs = dict(expected.named_parameters())
    for name, parameter in found.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-4, msg=name)


@pytest.mark.parametrize(("config", "model"), ARCHITECTURES, ids=lambda value: value.__name__)
def test_a_copy_has_a_last_layer_of_its_own(config: type, model: type) -> None:
    packed, _ = encoders(make_backbone(config, model), "cls")
    tokens, twin = make_tokens(), copy.deepcopy(packed)
    before = packed(tokens)
    with torch.no_grad():
        packed.get_parameter("backbone.encoder.layer.2.output.dense.weight").zero_()
    assert not torch.allclose(packed(tokens), before)
    assert torch.equal(twin(tokens), before)


def test_only_first_tokens_go_through_the_last_layer_where_no_other_is_pooled() -> None:
    seen: list[int] = []
    for pooler in ("cls", "mean"):
        packed, _ = encoders(make_backbone(BertConfig, BertModel), pooler)
        for layer in packed.get_submodule("backbone.encoder.layer").children():
            layer.get_submodule("intermediate").register_forward_pre_hook(
                lambda _, given: seen.append(given[0].shape[1])
            )
        packed(make_tokens())
    whole = int(make_tokens().attention_mask.sum())
    assert seen == [whole, whole, 9, whole, whole, whole]


@pytest.mark.parametrize(("config", "model"), ARCHITECTURES, ids=lambda value: value.__name__)
def test_in_training_mode_without_dropout_too(config: type, model: type) -> None:
    backbone = make_backbone(config, model, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    found, expected = encoders(backbone, "mean")
    tokens = make_tokens()
    torch.testing.assert_close(found(tokens), expected(tokens), rtol=0, atol=1e-5)


def test_attention_with_its_own_dropout_has_torchs_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    # With the identity in the place of dropout, the path that training takes on a CPU is plain attention.
    monkeypatch.setattr("otfkd.models.packing.dropout", lambda weights, p: weights)
    backbone = make_backbone(BertConfig, BertModel, hidden_dropout_prob=0.0).train()
    found, expected = encoders(backbone, "mean")
    expected.eval()
    tokens = make_tokens()
    torch.testing.assert_close(found(tokens), expected(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [9, 90])
def test_in_bfloat16_too_whatever_the_length(length: int) -> None:
    backbone = make_backbone(BertConfig, BertModel, max_position_embeddings=100)
    found, expected = encoders(backbone, "mean")
    tokens = make_tokens(longest=length)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = found(tokens)
    exact = expected(tokens)
    assert 0 < (coarse - exact).abs().max() < 0.1
    assert torch.cosine_similarity(coarse.float(), exact).min() > 0.999


def test_dropout_reaches_attention_and_all_else(tmp_path: Path) -> None:
    tokens = make_tokens()

    def varies(**rates: float) -> bool:
        backbone = make_backbone(BertConfig, BertModel, **rates).train()
        packed, _ = encoders(backbone, "mean")
        return not torch.equal(packed(tokens), packed(tokens))

    assert not varies(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    assert varies(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.0)
    assert varies(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.1)


def test_a_sentence_sees_no_other() -> None:
    packed, _ = encoders(make_backbone(BertConfig, BertModel), "mean")
    together = packed(make_tokens())
    tokens = make_tokens()
    for row in range(len(together)):
        alone = Tokens(tokens.input_ids[row : row + 1], tokens.attention_mask[row : row + 1])
        torch.testing.assert_close(packed(alone)[0], together[row], rtol=0, atol=1e-5)


def test_packing_and_padding_undo_each_other() -> None:
    tokens = make_tokens()
    packing = Packing.of(tokens.attention_mask)
    padded = torch.randn(*tokens.input_ids.shape, 3)
    packed = packing.pack(padded)
    assert packed.shape == (int(tokens.attention_mask.sum()), 3)
    expected: Tensor = padded * tokens.attention_mask[..., None]
    assert torch.equal(packing.pad(packed), expected)


def test_for_attention_padding_repeats_a_sentences_last_token_and_hands_no_gradient_on() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    packing = Packing.of(mask)
    packed = torch.arange(7.0).view(7, 1).requires_grad_()
    spread = packing.spread(packed)
    assert spread.squeeze(2).tolist() == [[0, 1, 1, 1], [2, 3, 4, 5], [6, 6, 6, 6]]
    weights = torch.randn(3, 4, 1)
    (gradient,) = torch.autograd.grad(spread, packed, weights)
    assert torch.equal(gradient, packing.pack(weights))


def test_other_architectures_read_padded_batches() -> None:
    backbone = DistilBertModel(DistilBertConfig(vocab_size=100, dim=32, n_layers=1, n_heads=2, hidden_dim=64))
    enable_packing(backbone)
    assert not packs(backbone)
    assert Encoder(backbone, make_tokenizer(), "mean")(make_tokens()).shape == (9, 32)


def test_a_graph_is_made_from_the_padded_batch_and_packing_comes_back() -> None:
    packed, padded = encoders(make_backbone(BertConfig, BertModel), "cls")
    tokens = make_tokens()
    with only_padded(packed.backbone):
        assert not packs(packed.backbone)
        assert torch.equal(packed(tokens), padded(tokens))
    assert packs(packed.backbone)


def test_what_is_saved_does_not_say_how_it_was_read(tmp_path: Path, tiny_model: Path) -> None:
    encoder = load_encoder(tiny_model, "cls")
    assert packs(encoder.backbone)
    encoder.backbone.save_pretrained(tmp_path)
    assert "packed" not in (tmp_path / "config.json").read_text()
