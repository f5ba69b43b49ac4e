"""The public way to use a model."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otfkd
from otfkd.base.errors import UserError
from otfkd.data import mini
from otfkd.evaluation.encode import encode
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder

SENTENCES = ["the cat sat on the mat", "a dog", "the cat sat on the mat"]


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model that knows its pooler."""
    folder = tmp_path_factory.mktemp("api") / "model"
    save_encoder(load_encoder(tiny_model, "mean"), folder, 16)
    return folder


def test_sentences_become_rows_of_float32(folder: Path) -> None:
    vectors = otfkd.load(str(folder)).encode(SENTENCES)
    assert vectors.shape == (3, 32)
    assert vectors.dtype == np.float32


def test_no_sentence_becomes_no_row(folder: Path) -> None:
    assert otfkd.load(str(folder)).encode([]).shape == (0, 32)


def test_any_iterable_of_sentences_will_do(folder: Path, tmp_path: Path) -> None:
    model = otfkd.load(str(folder))
    expected = model.encode(SENTENCES)
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES))
    with (tmp_path / "lines.txt").open() as lines:
        given: list[Iterable[str]] = [
            (sentence for sentence in SENTENCES), map(str.upper, map(str.lower, SENTENCES)), lines, np.array(SENTENCES),
            tuple(SENTENCES), iter(SENTENCES),
        ]  # fmt: skip
        for sentences in given:
            np.testing.assert_array_equal(model.encode(sentences), expected)


@pytest.mark.parametrize(
    ("sentences", "told"),
    [
        (["a cat", None], "sentences[1] is None, not a string"),
        (["a cat", "a dog", float("nan")], "sentences[2] is nan, not a string"),
        ((b for b in [b"a cat"]), "sentences[0] is b'a cat', not a string"),
        ([["a cat"]], "sentences[0] is ['a cat'], not a string"),
        (b"a cat", "sentences[0] is 97, not a string"),
        (None, "sentences is None, not a string or an iterable of strings"),
        (3, "sentences is 3, not a string or an iterable of strings"),
    ],
)
def test_what_is_no_text_is_named_by_its_place(folder: Path, sentences: Any, told: str) -> None:
    with pytest.raises(UserError) as refused:
        otfkd.load(str(folder)).encode(sentences)
    assert str(refused.value) == f"{told}: give text, or leave it out"


def test_rows_are_the_encoders_embeddings(folder: Path) -> None:
    expected = encode(load_encoder(folder), SENTENCES, batch_size=2, max_length=128)
    np.testing.assert_array_equal(otfkd.load(str(folder)).encode(SENTENCES, batch_size=2), expected.numpy())


def test_the_length_is_the_one_asked_for(folder: Path) -> None:
    model = otfkd.load(str(folder))
    short = model.encode(["the cat sat"])
    np.testing.assert_array_equal(model.encode(SENTENCES[:1], max_length=5), short)
    assert not np.array_equal(model.encode(SENTENCES[:1]), short)


def test_normalised_rows_have_length_one_and_the_same_direction(folder: Path) -> None:
    model = otfkd.load(str(folder))
    plain, unit = model.encode(SENTENCES), model.encode(SENTENCES, normalize=True)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert (np.abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(unit * lengths, plain, atol=1e-5)


def test_the_saved_pooler_is_used_unless_another_is_named(folder: Path) -> None:
    assert otfkd.load(str(folder)).encoder.pooler == "mean"
    assert otfkd.load(str(folder), pooler="cls").encoder.pooler == "cls"


def test_a_model_goes_to_the_device_named(folder: Path) -> None:
    assert otfkd.load(str(folder), device="meta").encoder.device.type == "meta"


def test_encoding_can_move_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = otfkd.load(str(folder))
    moved: list[str] = []
    monkeypatch.setattr(model.encoder, "to", moved.append)
    model.encode(SENTENCES)
    assert moved == []
    model.encode(SENTENCES, device="cuda:1")
    assert moved == ["cuda:1"]


def test_one_sentence_becomes_a_vector(folder: Path) -> None:
    model = otfkd.load(str(folder))
    one = model.encode(SENTENCES[1])
    assert one.shape == (32,)
    np.testing.assert_array_equal(one, model.encode([SENTENCES[1]])[0])
    assert np.linalg.norm(model.encode(SENTENCES[1], normalize=True)) == pytest.approx(1)


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_shown_where_it_is_wanted(folder: Path, progress: bool, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = otfkd.load(str(folder)).encode(SENTENCES, progress=progress)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("encoding" in shown.err and "100%" in shown.err) if progress else shown.err == ""
    np.testing.assert_array_equal(vectors, otfkd.load(str(folder)).encode(SENTENCES))


@pytest.mark.slow
def test_two_thousand_sentences_can_be_searched() -> None:
    library = mini.corpus()[:2000]
    model = otfkd.load("minilm")
    vectors = model.encode(library, normalize=True, progress=True)
    scores = vectors @ model.encode("Small horses are loved by kids.", normalize=True)
    best = [library[i] for i in scores.argsort()[::-1][:3]]
    assert best == [
        "Children love small horses.",
        "Few people know that children love small horses.",
        "Ponies are popular with children.",
    ]


def test_a_pooler_that_overrides_the_saved_one_is_said_aloud(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "otfkd"):
        otfkd.load(str(folder))
        assert not caplog.records
        otfkd.load(str(folder), pooler="cls")
    assert "pooler cls instead of mean" in caplog.text


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        otfkd.load(str(tmp_path / "none"))
