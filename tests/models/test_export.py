"""What is saved is what was trained, to otfkd and to sentence-transformers."""

import json
import logging
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, BertConfig, DistilBertConfig, MPNetConfig, RobertaConfig

from otfkd.config.sections import Pooler
from otfkd.evaluation.encode import encode
from otfkd.models import export
from otfkd.models.encoder import Encoder
from otfkd.models.export import save_encoder
from otfkd.models.registry import fingerprint_model, load_encoder, saved_pooler
from tests.support.models import WORDS, make_model, make_tokenizer

POOLERS: tuple[Pooler, ...] = get_args(Pooler)
LENGTHS = (1, 30, 2, 9, 4)
SENTENCES = [" ".join((WORDS * 2)[length : 2 * length]) for length in LENGTHS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers, so that no two layered poolers read the same ones."""
    return make_model(tmp_path_factory.mktemp("base"), layers=4)


@pytest.fixture
def encoder(base: Path, pooler: Pooler) -> Encoder:
    torch.manual_seed(1)
    encoder = load_encoder(base, pooler, train=True)
    if encoder.head is not None:
        torch.nn.init.normal_(encoder.head.dense.weight)
        torch.nn.init.normal_(encoder.head.dense.bias)
    return encoder


def embed(encoder: Encoder, max_length: int = 64) -> torch.Tensor:
    return encode(encoder, SENTENCES, batch_size=8, max_length=max_length)


@pytest.mark.parametrize("pooler", POOLERS)
def test_a_saved_encoder_comes_back_bit_for_bit(encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(encoder, tmp_path / "model", 64)
    again = load_encoder(tmp_path / "model")
    assert again.pooler == encoder.pooler
    assert torch.equal(embed(again), embed(encoder))


@pytest.mark.parametrize("pooler", POOLERS)
def test_sentence_transformers_reads_the_same_embeddings(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    save_encoder(encoder, tmp_path / "model", 64)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(SENTENCES, batch_size=len(SENTENCES))
    np.testing.assert_allclose(theirs, embed(encoder).numpy(), atol=1e-5, rtol=0)


KINDS = {
    "bert": (BertConfig, True), "roberta": (RobertaConfig, True), "mpnet": (MPNetConfig, True),
    "distilbert": (DistilBertConfig, False),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_sentence_transformers_misses_no_weight(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even those of a pooler that nothing reads; a kind that has none is told nothing of it."""
    from sentence_transformers import SentenceTransformer

    settings, has_pooler = KINDS[kind]
    base = make_tokenizer()
    config = settings(
        vocab_size=len(base), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=80, pad_token_id=base.pad_token_id, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(tmp_path / "base")  # type: ignore[no-untyped-call]
    base.save_pretrained(tmp_path / "base")
    encoder = load_encoder(tmp_path / "base", "mean")
    save_encoder(encoder, tmp_path / "model", 64)

    loud = logging.getLogger("transformers")
    monkeypatch.setattr(loud, "propagate", True)
    with caplog.at_level(logging.WARNING):
        theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert "MISSING" not in caplog.text and "newly initialized" not in caplog.text
    np.testing.assert_allclose(theirs.encode(SENTENCES), embed(encoder).numpy(), atol=1e-5, rtol=0)
    assert getattr(theirs[0].auto_model, "pooler", None) is None
    saved = json.loads((tmp_path / "model/sentence_bert_config.json").read_text())
    assert ("model_args" in saved) == has_pooler
    with safe_open(tmp_path / "model/model.safetensors", "pt") as weights:
        assert not any("pooler" in name for name in weights.keys())  # noqa: SIM118  it is no dict

    (tmp_path / "model/sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    with caplog.at_level(logging.WARNING):
        SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert ("MISSING" in caplog.text) == has_pooler  # what the test above would have seen


@pytest.mark.parametrize("pooler", ["mean"])
def test_sentence_transformers_cuts_at_the_saved_length(encoder: Encoder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    save_encoder(encoder, tmp_path / "model", 7)
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(theirs, embed(encoder, 7).numpy(), atol=1e-5, rtol=0)
    assert not torch.equal(embed(encoder, 7), embed(encoder))


@pytest.mark.parametrize("pooler", POOLERS)
def test_a_model_cut_to_fewer_layers_is_saved_so(base: Path, tmp_path: Path, pooler: Pooler) -> None:
    cut = load_encoder(base, pooler, layers=2, train=True)
    save_encoder(cut, tmp_path / "model", 64)
    assert torch.equal(embed(load_encoder(tmp_path / "model")), embed(cut))


@pytest.mark.parametrize("pooler", POOLERS)
def test_weights_are_safetensors_alone(encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(encoder, tmp_path / "model", 64)
    names = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert names == {".json", ".safetensors"}


def test_the_fingerprint_tells_poolers_of_the_same_weights_apart(base: Path, tmp_path: Path) -> None:
    poolers: tuple[Pooler, ...] = ("mean", "first_last_mean", "top2_mean", "cls", "last")
    for pooler in poolers:
        save_encoder(load_encoder(base, pooler), tmp_path / pooler, 64)
    assert len({fingerprint_model(tmp_path / pooler) for pooler in poolers}) == len(poolers)


@pytest.mark.parametrize("pooler", ["cls"])
def test_an_earlier_folder_is_replaced_whole(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "2_Dense").mkdir(parents=True)
    (folder / "pytorch_model.bin").write_text("old")
    save_encoder(encoder, folder, 64)
    assert not (folder / "2_Dense").exists()
    assert not (folder / "pytorch_model.bin").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("pooler", ["cls"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_save_leaves_the_earlier_folder_and_no_litter(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    save_encoder(encoder, tmp_path / "model", 64)
    before = fingerprint_model(tmp_path / "model")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(export, "_json", fail)
    with pytest.raises(error):
        save_encoder(encoder, tmp_path / "model", 64)
    assert fingerprint_model(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("pooler", ["mean"])
def test_the_folder_names_its_pooler_and_length(encoder: Encoder, tmp_path: Path) -> None:
    save_encoder(encoder, tmp_path / "model", 17)
    facts = json.loads((tmp_path / "model/otfkd.json").read_text())
    assert facts == {"format": 1, "pooler": "mean", "max_length": 17}
    assert saved_pooler(tmp_path / "model") == "mean"


@pytest.mark.parametrize("pooler", ["mean"])
def test_saving_does_not_change_the_encoder(encoder: Encoder, tmp_path: Path) -> None:
    before = embed(encoder)
    save_encoder(encoder, tmp_path / "model", 64)
    assert torch.equal(embed(encoder), before)
