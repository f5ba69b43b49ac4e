"""What a run could not save in the end is found before its first step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    Gemma3TextConfig,
    LongformerConfig,
    ModernBertConfig,
    Qwen2Config,
    Qwen3Config,
)

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.evaluation.encode import encode
from otfkd.models import export
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from otfkd.training import untrained
from otfkd.training.train import train
from tests.support.models import make_tokenizer

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64, "pad_token_id": 0,
    "initializer_range": 0.2,
}  # fmt: skip
HEADS: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 16}
SPECIAL: dict[str, Any] = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
KINDS = [
    (ModernBertConfig, SPECIAL), (Qwen2Config, {"num_key_value_heads": 2}), (Qwen3Config, HEADS),
    (Gemma3TextConfig, HEADS), (LongformerConfig, {"attention_window": [4, 8, 4, 8]}),
]  # fmt: skip
SENTENCES = ["the cat sat", "a dog ran over the old red road and then slept", "moon"]


def make(folder: Path, kind: Any, more: dict[str, Any]) -> Path:
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = kind(vocab_size=len(tokenizer) + 8, **SHAPE, **more)
    AutoModel.from_config(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "more"), KINDS, ids=lambda value: getattr(value, "model_type", ""))
def test_lists_with_an_entry_for_each_layer_are_cut_with_the_layers(
    tmp_path: Path, kind: Any, more: dict[str, Any]
) -> None:
    folder = make(tmp_path / "model", kind, more)
    cut = load_encoder(folder, "mean", 2)
    whole = AutoModel.from_pretrained(folder).config.to_dict()
    lists = [key for key, value in whole.items() if isinstance(value, list) and len(value) == 4]
    assert lists
    assert all(getattr(cut.backbone.config, key) == whole[key][:2] for key in lists)
    save_encoder(cut, tmp_path / "saved", 64)
    ours, again = (
        encode(one, SENTENCES, batch_size=3, max_length=64) for one in (cut, load_encoder(tmp_path / "saved"))
    )
    assert torch.equal(ours, again)


def test_a_list_that_has_as_many_entries_by_chance_is_left_alone(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", Qwen3Config, {**HEADS, "eos_token_id": [2, 3, 4, 5]})
    assert load_encoder(folder, "mean", 2).backbone.config.eos_token_id == [2, 3, 4, 5]


def test_a_student_with_fewer_layers_is_trained_and_saved(tmp_path: Path, configure: Callable[..., Config]) -> None:
    folder = make(tmp_path / "model", ModernBertConfig, SPECIAL)
    config = configure(f"model={folder}", "model.layers=2", "model.pooler=mean", "trainer.max_steps=2",
                       "evaluation.every=null", "model.dropout=0.1")  # fmt: skip
    assert train(config).status == "finished"


def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.Trainer.fit", lambda *_, **__: pytest.fail("training began"))


def test_what_cannot_be_saved_is_said_before_the_first_step(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no such thing\nand more")

    no_step(monkeypatch)
    monkeypatch.setattr(export, "_json", refuse)
    with pytest.raises(UserError, match=r"^the student cannot be saved .*\(no such thing\): take another .*$"):
        train(configure())


def test_what_comes_back_as_another_model_is_said_before_the_first_step(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(encoder: Any, folder: Path, max_length: int) -> None:
        save_encoder(encoder, folder, max_length)
        weights = load_file(folder / "model.safetensors")
        weights["embeddings.word_embeddings.weight"] *= 1.01
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    no_step(monkeypatch)
    monkeypatch.setattr(untrained, "save_encoder", lossy)
    with pytest.raises(UserError, match=r"^the student embeds otherwise once .*: take another "):
        train(configure())


def test_it_is_written_once_and_leaves_nothing(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def save(encoder: Any, folder: Path, max_length: int) -> None:
        written.append(folder)
        save_encoder(encoder, folder, max_length)

    monkeypatch.setattr(untrained, "save_encoder", save)
    result = train(configure("trainer.max_steps=2", "evaluation.every=null"))
    assert train(configure("trainer.max_steps=2", "evaluation.every=null")).status == "skipped"
    train(configure("trainer.max_steps=2", "dry_run=true", "seed=7"))
    assert len(written) == 1
    assert not [path for path in result.folder.iterdir() if path.name.startswith(".untrained")]
