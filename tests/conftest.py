"""Shared fixtures."""

import copy
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import otfkd.__main__
import otfkd.training.run
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from tests.support.callbacks import joined_by
from tests.support.commands import Command, Outcome
from tests.support.models import make_model
from tests.support.recording import Before, Recorder
from tests.support.texts import make_corpus, make_suite

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _imports_left_out_of_collections() -> None:
    """Every run ends with a collection, which looks through a million imported objects for a third of a second."""
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT."""
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def _loaded(tiny_model: Path) -> Encoder:
    return load_encoder(tiny_model, "cls")


@pytest.fixture
def tiny_encoder(_loaded: Encoder) -> Encoder:
    """A tiny encoder with the cls pooler, fresh for each test."""
    return copy.deepcopy(_loaded)


@pytest.fixture
def still(tmp_path: Path) -> Path:
    """A tiny BERT without dropout; only with `model.dropout=0` does it train from sentences alone."""
    folder = make_model(tmp_path / "still")
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of 60 distinct sentences."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


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


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Records the weights of the runs a test makes, step by step."""
    recorder = Recorder()
    with joined_by(recorder, first=[Before(recorder)]):
        yield recorder


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
