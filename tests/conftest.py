"""Shared fixtures: a tiny BERT made on the spot, so that the fast suite needs no files, no network and little time."""

import gc
import logging
import os
import random
import string
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import otfkd.__main__
import otfkd.training.run
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.data.sts import DevTask, Subset, Suite, TestTask
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from tests.cli.commands import Command, Outcome

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)

WORDS = [
    "the", "cat", "dog", "bird", "child", "sat", "ran", "flew", "slept", "on", "over", "under", "mat", "road", "tree",
    "house", "red", "blue", "big", "small", "old", "new", "and", "then", "slowly", "quickly", "home", "river", "stone",
    "moon", "garden", "bread", "letter", "song", "window",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer of some words and all letters, so that no English text is unknown to it."""
    pieces = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    vocabulary = dict.fromkeys([*SPECIAL, *words, *pieces, *(f"##{piece}" for piece in pieces)])
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]


def make_model(folder: Path, *, width: int = 32, layers: int = 2, words: list[str] = WORDS, seed: int = 0) -> Path:
    """Write a BERT of random weights, two layers of width 32 unless told, with its tokenizer."""
    tokenizer = make_tokenizer(words)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=2 * width, max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence(rng: random.Random) -> str:
    """Four to ten words of the tiny vocabulary."""
    return " ".join(rng.choices(WORDS, k=rng.randint(4, 10)))


def make_corpus(path: Path, sentences: int = 60, seed: int = 0) -> Path:
    """Write distinct random sentences of the tiny vocabulary, one a line."""
    rng = random.Random(seed)
    lines: dict[str, None] = {}
    while len(lines) < sentences:
        lines[sentence(rng)] = None
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="session", autouse=True)
def _imports_left_out_of_collections() -> None:
    """Every run ends with a collection, which looks through a million imported objects for a third of a second."""
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_encoder(tiny_model: Path) -> Encoder:
    """A tiny encoder with the cls pooler, fresh for each test."""
    return load_encoder(tiny_model, "cls")


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 60 distinct sentences."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


def make_suite() -> Suite:
    """Twelve dev and twelve test pairs in the tiny vocabulary."""
    rng = random.Random(7)

    def pairs() -> tuple[tuple[str, str, float], ...]:
        return tuple((sentence(rng), sentence(rng), float(grade)) for grade in (0, 1, 2, 3, 4, 5) * 2)

    return Suite(
        "tiny", DevTask("tiny dev", (Subset("dev", pairs()),)), (TestTask("tiny", (Subset("test", pairs()),)),)
    )


@pytest.fixture
def tiny_suite(monkeypatch: pytest.MonkeyPatch) -> Suite:
    """The tiny suite instead of the embedded one's 1,200 pairs."""
    suite = make_suite()
    monkeypatch.setattr(otfkd.training.run, "load_suite", lambda *_: suite)
    return suite


@pytest.fixture
def overrides(tmp_path: Path, tiny_model: Path, corpus_file: Path, tiny_suite: Suite) -> list[str]:
    """Command-line overrides of a run small enough for a test: 12 steps of 4 sentences on the tiny BERT."""
    return [
        f"model={tiny_model}", "model.pooler=cls", "data=text", f"data.path={corpus_file}", "data.batch_size=4",
        "data.max_length=16", "trainer.max_steps=12", "trainer.accelerator=cpu", "evaluation.every=3",
        "optimizer.lr=1e-3",
        f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}",
    ]  # fmt: skip


@pytest.fixture
def configure(overrides: list[str]) -> Callable[..., Config]:
    """Make a validated config from the small run's overrides and some more."""
    return lambda *more: load_config([*overrides, *more])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that ask for it skip where there is none."""
    root = os.environ.get("OTFKD_DATA")
    if not root:
        pytest.skip("OTFKD_DATA is not set")
    return Path(root)


@pytest.fixture
def otfkd_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `otfkd ARGUMENTS` in this process."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    log = logging.getLogger("otfkd")
    level, propagate = log.level, log.propagate

    def run(*arguments: object) -> Outcome:
        before, log.handlers = log.handlers, []  # the terminal's handler belongs to one command
        monkeypatch.setattr(sys, "argv", ["otfkd", *map(str, arguments)])
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as stopped:
                otfkd.__main__.main()
        finally:
            log.handlers, log.propagate = before, propagate
            log.setLevel(level)
        return Outcome(stopped.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def real(tiny_model: Path, corpus_file: Path, tmp_path: Path) -> list[str]:
    """Overrides of a run of two steps on the embedded suite, for a process of its own, started in tmp_path."""
    (tmp_path / "corpus.txt").write_text(corpus_file.read_text())
    return [
        f"model={tiny_model}", "model.pooler=cls", "data=text", "data.path=corpus.txt", "data.batch_size=4",
        "data.max_length=16", "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.threads=1",
        "evaluation.every=null", "optimizer.lr=1e-3", "paths.runs=runs",
    ]  # fmt: skip
