"""Dropout as it is chosen: in every architecture, where it belongs, and in training alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import dropout
from transformers import AutoModel, MambaConfig

from otfkd.base.errors import UserError
from otfkd.models.dropout_rates import told_rates
from otfkd.models.encoder import Encoder, training
from otfkd.models.export import save_encoder
from otfkd.models.probe import sample
from otfkd.models.registry import load_encoder
from tests.support.models import make_tokenizer
from tests.support.zoo import ZOO, make_zoo_model

# What transformers trains with where nobody says otherwise.
WITHOUT_DROPOUT = ["albert", "modernbert", "nomic_bert", "qwen3", "llama", "mistral", "gemma3_text"]


def views(encoder: Encoder) -> tuple[Tensor, Tensor]:
    tokens = sample(encoder)
    torch.manual_seed(0)
    with training(encoder), torch.no_grad():
        return encoder(tokens), encoder(tokens)


def differ(encoder: Encoder) -> bool:
    return not torch.equal(*views(encoder))


@pytest.mark.parametrize("kind", ZOO)
def test_a_rate_reaches_every_architecture_in_training_alone(tmp_path: Path, kind: str) -> None:
    folder, pooler = make_zoo_model(tmp_path / kind, kind), ZOO[kind].pooler
    usual, dropped = (load_encoder(folder, pooler, rates=(rate, None)) for rate in (None, 0.2))
    assert differ(usual) == (kind not in WITHOUT_DROPOUT)
    one, other = views(dropped)
    assert torch.cosine_similarity(one, other).mean() < 0.95
    assert "0.2" in told_rates(dropped.backbone)
    assert list(dropped.state_dict()) == list(usual.state_dict())
    with torch.no_grad():
        assert torch.equal(dropped(sample(dropped)), usual(sample(usual)))
        assert torch.equal(dropped(sample(dropped)), copy.deepcopy(dropped)(sample(dropped)))


@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind != "t5"])
def test_attention_has_a_rate_of_its_own(tmp_path: Path, kind: str) -> None:
    folder = make_zoo_model(tmp_path / kind, kind)
    of_attention, none = (load_encoder(folder, ZOO[kind].pooler, rates=(0, rate)) for rate in (0.2, 0))
    assert differ(of_attention)
    assert not differ(none)


# Where the norms stand that are left out here or taken in decides whether a layer's branch is dropped after them.
NORMED_AFTER = {"llama": False, "gemma3_text": True}


@pytest.mark.parametrize("kind", NORMED_AFTER)
def test_a_decoder_without_dropout_gets_it_on_embeddings_and_residuals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # torch's own masks, which the reference below draws too
    monkeypatch.setattr("otfkd.models.dropout.dropout", dropout)
    encoder = load_encoder(make_zoo_model(tmp_path / kind, kind), "last", rates=(0.25, None))
    model: Any = copy.deepcopy(encoder.backbone)
    tokens = sample(encoder)
    ids = tokens.input_ids[3:]
    assert tokens.attention_mask[3].all()
    torch.manual_seed(7)
    with training(encoder.backbone), torch.no_grad():
        found = encoder.backbone(input_ids=ids).last_hidden_state

    # By hand, on a copy that is not in training, so that only what is written here is dropped.
    places = torch.arange(ids.shape[1])[None]
    causal = torch.full((ids.shape[1], ids.shape[1]), -1e9).triu(1)
    near = causal + torch.full_like(causal, -1e9).tril(-model.config.sliding_window) if NORMED_AFTER[kind] else causal
    torch.manual_seed(7)
    with torch.no_grad():
        hidden = dropout(model.embed_tokens(ids), 0.25)
        for number, layer in enumerate(model.layers):
            kinds = (model.config.layer_types[number],) if NORMED_AFTER[kind] else ()
            angles = model.rotary_emb(hidden, places, *kinds)
            mask = near if kinds == ("sliding_attention",) else causal
            added, _ = layer.self_attn(layer.input_layernorm(hidden), angles, mask[None, None])
            if NORMED_AFTER[kind]:
                hidden = hidden + dropout(layer.post_attention_layernorm(added), 0.25)
                added = layer.mlp(layer.pre_feedforward_layernorm(hidden))
                hidden = hidden + dropout(layer.post_feedforward_layernorm(added), 0.25)
            else:
                hidden = hidden + dropout(added, 0.25)
                hidden = hidden + dropout(layer.mlp(layer.post_attention_layernorm(hidden)), 0.25)
        expected = model.norm(hidden)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_copy_is_in_its_own_mode(tmp_path: Path) -> None:
    student = load_encoder(make_zoo_model(tmp_path / "model", "qwen3"), "last", rates=(0.3, None))
    teacher = copy.deepcopy(student.train()).eval()
    tokens = sample(student)
    with torch.no_grad():
        assert torch.equal(teacher(tokens), teacher(tokens))
        assert not torch.equal(student(tokens), student(tokens))
        student.eval()
        assert torch.equal(student(tokens), teacher(tokens))


@pytest.mark.parametrize(("kind", "kept"), [("bert", True), ("modernbert", True), ("qwen3", False)])
def test_a_rate_is_saved_where_the_config_has_one(tmp_path: Path, kind: str, kept: bool) -> None:
    encoder = load_encoder(make_zoo_model(tmp_path / kind, kind), ZOO[kind].pooler, rates=(0.2, 0.3))
    save_encoder(encoder, tmp_path / "saved", 32)
    again = load_encoder(tmp_path / "saved")
    assert (told_rates(again.backbone) == told_rates(encoder.backbone)) == kept
    assert "attention" in told_rates(again.backbone) and "0.3" in told_rates(again.backbone)


def test_no_dropout_of_attention_alone_is_said(tmp_path: Path) -> None:
    folder = make_zoo_model(tmp_path / "t5", "t5")
    with pytest.raises(UserError, match=r"model\.attention_dropout=0\.2 has no place in a t5 model, .*: leave it out"):
        load_encoder(folder, "mean", rates=(None, 0.2))


def test_layers_without_attention_and_an_mlp_are_said(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, state_size=8)
    AutoModel.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"model\.dropout=0\.1 has no place in a mamba model, .*: leave it out"):
        load_encoder(tmp_path, "last", rates=(0.1, None))
    assert not differ(load_encoder(tmp_path, "last", rates=(0, None)))
