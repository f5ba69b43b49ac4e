"""Any one setting of a model's files changed: its embeddings are transformers' own, or it is refused in a sentence."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel
from transformers.utils import logging as transformers_logging

from otfkd.base.errors import UserError
from otfkd.evaluation.encode import encode
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from tests.support.models import WORDS
from tests.support.zoo import ZOO, make_zoo_model

LENGTH = 32
# A text that is cut, one with the names of special tokens, and one with a letter that some tokenizers change.
SENTENCES = ["the cat sat on the mat", " ".join(WORDS), "a dog", "the [PAD] river [UNK] red [MASK]", "É the"]

# What tokenizers know beside what the tiny one's own file says.
READING = {
    "do_lower_case": True, "padding_side": "right", "truncation_side": "right", "add_prefix_space": False,
    "model_input_names": ["input_ids", "attention_mask"], "strip_accents": None, "add_bos_token": False,
    "add_eos_token": False, "clean_up_tokenization_spaces": True, "split_special_tokens": False, "max_length": 128,
    "pad_to_multiple_of": None, "padding": None, "truncation": None, "stride": 0, "bos_token": None, "eos_token": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    yield
    transformers_logging.set_verbosity(level)


@pytest.fixture
def base(tmp_path: Path, kind: str) -> Path:
    return make_zoo_model(tmp_path / "base", kind, ends="[CLS] $A [SEP]", length=LENGTH)


def others(key: str, value: object) -> list[object]:
    """Values of a setting other than the one it has: near ones, empty ones and wrong ones."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, 0, -1, None]
        case float():
            return [2 * value + 0.1, 0.0, None]
        case str():
            return ["left", "relu", "nonsense", None, ""] if key.endswith(("side", "act")) else ["nonsense", None, ""]
        case list():
            return [[], None, value + value]
        case dict():
            return [{}, None]
        case _:
            return [1, True, "x", [1]]


def changes(base: Path) -> list[tuple[str, str, object]]:
    """File, key and another value, for every key that the files have or the architecture knows."""
    known = AutoConfig.from_pretrained(base).to_dict()
    files = {"config.json": known, "tokenizer_config.json": READING}
    return [
        (file, key, other)
        for file, more in files.items()
        for key, value in {**more, **json.loads((base / file).read_text())}.items()
        for other in others(key, value)
    ]


def theirs(folder: Path) -> np.ndarray:
    """The mean vectors that transformers gives for each sentence alone, whatever its padding would do."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder: Any = T5EncoderModel if AutoConfig.from_pretrained(folder).model_type == "t5" else AutoModel
    model = encoder.from_pretrained(folder, dtype=torch.float32).eval()
    means = []
    for sentence in SENTENCES:
        read = tokenizer(
            sentence, truncation=True, max_length=min(tokenizer.model_max_length, 60), return_tensors="pt",
            return_attention_mask=True,
        )  # fmt: skip
        with torch.no_grad():
            output = model(**read)
        means.append(output[0][0].mean(0).numpy())  # a tuple where return_dict is false
    return np.stack(means)


def ours(folder: Path, again: Path) -> np.ndarray:
    """What otfkd gives, in one batch; the model as otfkd saves it gives the same in sentence-transformers."""
    encoder = load_encoder(folder, "mean")
    length = encoder.reading_length(None)
    found = encode(encoder, SENTENCES, batch_size=8, max_length=length).numpy()
    shutil.rmtree(again, ignore_errors=True)
    save_encoder(encoder, again, length)
    saved = np.asarray(SentenceTransformer(str(again), device="cpu").encode(SENTENCES))
    np.testing.assert_allclose(saved, found, atol=1e-5, rtol=0, err_msg="as saved")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ZOO)
def test_a_changed_setting_is_honoured_or_refused(base: Path, tmp_path: Path, kind: str) -> None:
    folder, cases, wrong, equal = tmp_path / "changed", changes(base), [], 0
    assert len(cases) > 100
    for file, key, value in cases:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, folder)
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**settings, key: value}))
        try:
            expected = theirs(folder)
        except Exception:  # whatever transformers makes of it, a user of otfkd is told in a sentence
            expected = None
        try:
            found = ours(folder, tmp_path / "again")
            if expected is not None:
                np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
                equal += 1
        except UserError as refusal:
            if "\n" in str(refusal):
                wrong.append(f"{file} {key}={value!r}: {refusal}")
        except Exception as fault:
            wrong.append(f"{file} {key}={value!r}: {type(fault).__name__} {fault}")
    assert not wrong, "\n".join(wrong)
    assert equal > len(cases) // 3
