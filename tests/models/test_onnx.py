"""The graph computes what the encoder does, at any size, by every pooler."""

import importlib.util
import random
from pathlib import Path
from typing import get_args

import pytest
import torch

from otfkd.base.errors import UserError
from otfkd.config.sections import Pooler
from otfkd.data.collate import Tokens, pad
from otfkd.data.tokens import tokenize
from otfkd.models import onnx as module
from otfkd.models.encoder import Encoder, Head
from otfkd.models.onnx import check_onnx, write_onnx
from otfkd.models.registry import load_encoder
from tests.support.models import make_model
from tests.support.texts import sentence

SIZES = ((1, 3), (1, 40), (5, 2), (2, 5), (7, 12))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers, so that no two layered poolers read the same ones."""
    return make_model(tmp_path_factory.mktemp("base"), layers=3)


def needs_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


def run(path: Path, tokens: Tokens) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["input_ids", "attention_mask"]
    fed = {"input_ids": tokens.input_ids.numpy(), "attention_mask": tokens.attention_mask.numpy()}
    return torch.from_numpy(session.run(["sentence_embedding"], fed)[0])


def check(encoder: Encoder, path: Path) -> None:
    rng = random.Random(0)
    for rows, words in SIZES:
        sentences = [sentence(rng) + " cat" * rng.randint(0, words) for _ in range(rows)]
        tokens = pad(tokenize(encoder.tokenizer, sentences, 64, encoder.prompt), encoder.pad_id)
        with torch.no_grad():
            torch.testing.assert_close(run(path, tokens), encoder(tokens), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("pooler", get_args(Pooler))
def test_the_graph_gives_the_encoders_embeddings(base: Path, tmp_path: Path, pooler: Pooler) -> None:
    needs_onnx()
    encoder = load_encoder(base, pooler, train=True)
    if isinstance(encoder.head, Head):
        torch.nn.init.normal_(encoder.head.dense.weight)
    before = [part.training for part in encoder.modules()]
    write_onnx(encoder, tmp_path / "model.onnx")
    assert [part.training for part in encoder.modules()] == before
    check(encoder.eval(), tmp_path / "model.onnx")


@pytest.mark.slow
def test_the_graph_leaves_out_the_prompt_and_has_unit_length_where_the_encoder_does(
    tiny_model: Path, tmp_path: Path
) -> None:
    needs_onnx()
    plain = load_encoder(tiny_model, "mean")
    encoder = Encoder(
        plain.backbone, plain.tokenizer, "mean", prompt="old moon: ", pool_prompt=False, normalize=True
    ).eval()
    write_onnx(encoder, tmp_path / "model.onnx")
    check(encoder, tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_not_kept(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_onnx()
    monkeypatch.setattr(module._Graph, "forward", lambda self, ids, mask: self.encoder(Tokens(ids, mask)) + 1e-3)
    with pytest.raises(RuntimeError, match=r"the ONNX graph of model.onnx is 1.0e-03 away from the model"):
        write_onnx(load_encoder(base, "cls"), tmp_path / "model.onnx")


@pytest.mark.parametrize("gone", [("onnxruntime",), ("onnx", "onnxscript")])
def test_what_is_missing_is_named_with_its_extra(gone: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else object())
    with pytest.raises(UserError, match=rf"^ONNX needs {' and '.join(gone)}: install .* pip install 'otfkd\[onnx\]'$"):
        check_onnx()
