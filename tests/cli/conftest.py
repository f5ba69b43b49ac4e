"""Commands run in the test's own process, and runs for processes of their own."""

import logging
import sys
from pathlib import Path

import pytest

import otfkd.__main__
from tests.cli.commands import Command, Outcome


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
