"""Habits of who looks for faults: two steps of everything without a trace, and one batch over and over."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otfkd.training.train
from otfkd.base.errors import UserError
from otfkd.config.identity import config_hash
from otfkd.config.schema import Config
from otfkd.data.order import Order
from otfkd.reporting.card.data import data
from otfkd.reporting.card.history import read_history
from otfkd.tables.definition import load_table
from otfkd.tables.jobs import table_jobs
from otfkd.training.train import train
from otfkd.training.trial import _spread
from tests.support.commands import Command
from tests.support.json_lines import json_lines
from tests.support.variants import GIVEN, OTFKD

Configure = Callable[..., Config]
TRY = "trainer.fast_dev_run=true"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where folders that go away are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


LATE = ("evaluation.every=500", "trainer.max_steps=1000", "trainer.checkpoint_every=300")
TRIALS = {
    "never": ((), 0, 1),
    "every": (("experiment=otfkd", "schedule.every=400", "schedule.cache_every=100"), 1, 1),
    "at": (("experiment=otfkd", *GIVEN, "schedule=at", "schedule.at=[700,900]", "schedule.start=600"), 1, 1),
    "geometric, gated": (("experiment=otfkd_gated", *GIVEN, "schedule=geometric", "schedule.gate=0.0"), 1, 2),
    "plateau": (("experiment=otfkd", "schedule=plateau", "teacher.warmup_steps=300", "trainer.patience=1",
                 "evaluation.every=100"), 1, 2),
    "follow": (("experiment=mean_teacher", "teacher.warmup_steps=300"), 1, 1),
    "average": (("experiment=otfkd_average", "schedule.every=400", "trainer.accumulate=2"), 1, 1),
    "precomputed": (("experiment=distill_static", *GIVEN, "teacher.precomputed=true"), 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("trial", TRIALS)
def test_a_trial_does_all_that_the_run_would_and_leaves_nothing(
    trial: str, configure: Configure, tiny_model: Path, temporary: Path, tmp_path: Path
) -> None:
    given, teachers, dev = TRIALS[trial]
    result = train(configure(*LATE, *(word.format(a=tiny_model) for word in given), "logger=[csv,tensorboard]", TRY))
    assert (result.status, result.rows) == ("tried", [])
    assert result.plan.startswith(f"the run works: 2 optimizer steps, {dev} dev score")
    assert f", {teachers} new teacher{'' if teachers == 1 else 's'}, 2 checkpoints, a model exported and" in result.plan
    assert not list(temporary.iterdir())
    assert not (tmp_path / "runs").exists()


def test_a_trial_is_scored_on_a_few_pairs_of_all_grades() -> None:
    pairs = [("a", "b", float(grade % 6)) for grade in range(600)]
    chosen = _spread(pairs)
    assert len(chosen) == 16
    assert {grade for _, _, grade in chosen} == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert len(_spread(pairs[:5])) == 5 and len(_spread(pairs[:1])) == 1 and not _spread([])


def test_a_trial_that_fails_says_why_and_leaves_nothing(
    configure: Configure, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no export")

    monkeypatch.setattr(otfkd.training.train, "save_encoder", fail)
    with pytest.raises(RuntimeError, match="no export"):
        train(configure(TRY))
    assert not list(temporary.iterdir()) and not (tmp_path / "runs").exists()


def test_a_trial_is_the_run_and_does_not_touch_it(
    otfkd_command: Command, overrides: list[str], configure: Configure, temporary: Path, tmp_path: Path
) -> None:
    command = ("train", *overrides, "trainer.max_steps=3")
    otfkd_command(*command)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    tried = otfkd_command(*command, TRY)
    assert tried.code == 0
    assert tried.out.startswith("the run works: 2 optimizer steps, 1 dev score of ") and tried.out.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before
    assert config_hash(configure(), {}) == config_hash(configure(TRY), {})
    planned = otfkd_command(*command, TRY, "dry_run=true")
    assert planned.out.startswith("run        ") and "3 optimizer steps" in planned.out


@pytest.mark.parametrize("override", [TRY, "debug=overfit", "trainer.overfit_batches=1"])
def test_no_table_is_made_of_trials(override: str) -> None:
    with pytest.raises(UserError, match=f"^{override} makes no run that a table shows: leave it out"):
        table_jobs({"main": load_table("main", "mini")}, "mini", [override])


@pytest.mark.parametrize("only", [1, 3])
def test_so_many_batches_come_over_and_over(only: int) -> None:
    whole, part = Order(10, 2, seed=5), Order(10, 2, seed=5, only=only)
    for number in range(12):
        assert np.array_equal(part.batch(number), whole.batch(number % only))


def test_one_batch_over_and_over_is_learnt(configure: Configure) -> None:
    def losses(*given: str) -> list[float]:
        config = configure(*OTFKD, "debug=overfit", "trainer.max_steps=24", "schedule.every=20", *given)
        return [line["loss"] for line in json_lines(train(config).folder / "metrics.jsonl") if "loss" in line]

    assert configure("debug=overfit").trainer.overfit_batches == 1
    one, all_batches = losses("optimizer.lr=3e-3"), losses("optimizer.lr=3e-3", "trainer.overfit_batches=null")
    assert np.mean(one[15:20]) < 0.2 * np.mean(one[:3])
    assert np.mean(one[15:20]) < 0.5 * np.mean(all_batches[15:20])


def test_one_batch_of_examples_is_learnt(configure: Configure, still: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    lines = [f"the cat sat {number},the dog ran {number},{number % 6}\n" for number in range(24)]
    pairs.write_text("sentence1,sentence2,score\n" + "".join(lines))
    given = ("experiment=finetune_stsb", "data=labelled", f"data.path={pairs}", "objective=cosine_regression")
    folder = train(configure(*given, "debug=overfit", f"model={still}", "trainer.max_steps=20")).folder
    found = [line["loss"] for line in json_lines(folder / "metrics.jsonl") if "loss" in line]
    history = read_history(folder / "model")
    assert history is not None and data(history).endswith("The same 4 came over and over.")
    assert np.mean(found[-5:]) < 0.5 * np.mean(found[:3])
    assert "20 optimizer steps of 1 x 4 examples, the same 4 over and over" in (folder / "plan.txt").read_text()
