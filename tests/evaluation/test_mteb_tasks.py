"""Tasks of mteb by name: mteb's own number, which for STS is ours."""

import sys
from pathlib import Path
from typing import Any

import pytest

import otfkd
from otfkd.base.errors import UserError
from otfkd.models.export import save_encoder
from otfkd.models.registry import load_encoder
from tests.support.graded_files import random_pairs, write_pairs


def test_without_mteb_the_sentence_says_what_to_install(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(UserError, match=r"evaluation\.tasks needs mteb: install the extra with pip install"):
        otfkd.evaluate(str(tiny_model), "model.pooler=cls", "evaluation=mteb", "evaluation.tasks=[STSBenchmark]")


def test_a_task_is_scored_by_mteb_as_the_model_is_read_here(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mteb: Any = pytest.importorskip("mteb")
    from datasets import Dataset, DatasetDict

    rows = random_pairs(3)
    left, right, gold = zip(*rows, strict=True)
    task = mteb.get_task("STSBenchmark")
    task.dataset = DatasetDict(test=Dataset.from_dict({"sentence1": left, "sentence2": right, "score": gold}))
    task.data_loaded = True
    monkeypatch.setattr(mteb, "get_task", lambda name: task)
    save_encoder(load_encoder(tiny_model, "cls"), tmp_path / "model", 8)
    for pooler in ("cls", "mean"):
        given = (str(tmp_path / "model"), f"model.pooler={pooler}", "evaluation.max_length=16")
        (row,) = otfkd.evaluate(*given, "evaluation=mteb", "evaluation.tasks=[STSBenchmark]")
        ours = otfkd.evaluate(*given, "evaluation=pairs", f"evaluation.test={write_pairs(tmp_path / 'own.csv', rows)}")
        assert row.scores["STSBenchmark"]["main"] == pytest.approx(ours[0].scores["own"]["all"], abs=0.01)
        assert row.suite == "mteb" and row.split == "test" and row.protocol.endswith(", 16 tokens")


def test_a_name_that_mteb_does_not_know_is_refused(tiny_model: Path) -> None:
    pytest.importorskip("mteb")
    with pytest.raises(UserError, match=r"^evaluation\.tasks cannot be had .*: name tasks of mteb$"):
        otfkd.evaluate(str(tiny_model), "model.pooler=cls", "evaluation=mteb", "evaluation.tasks=[NoSuchTask]")
