"""Tables made of published rows and of what must be trained besides, on the tiny BERT."""

import json
import logging
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import otfkd.evaluation.scoring
import otfkd.tables.jobs
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.runs.folder import RunFolder
from otfkd.tables.built import differing, unfinished
from otfkd.tables.definition import TableSpec
from otfkd.tables.jobs import Outcome, table_jobs
from otfkd.tables.make import make_tables, with_seeds
from otfkd.tables.published import Published, read_published
from otfkd.training.train import train
from tests.support.published import ROWS, make_spec

OTFKD = {**ROWS[2], "overrides": ["schedule.every=2"]}
SPEC = make_spec(rows=[ROWS[1], OTFKD])
Trained = list[tuple[str, int]]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Which runs are trained, rather than found finished."""
    seen: Trained = []

    def watched(config: Config) -> Any:
        result = train(config)
        if result.status == "finished":
            seen.append((config.name, config.seed))
        return result

    monkeypatch.setattr(otfkd.tables.jobs, "train", watched)
    return seen


Make = Callable[..., Outcome]


@pytest.fixture
def make(overrides: list[str], tiny_suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make the table `tiny` at two seeds, or at others, with further keys."""
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    monkeypatch.setattr("otfkd.tables.built.load_table", lambda name, profile: SPEC)
    few = [*overrides, "trainer.max_steps=4", "evaluation.every=null"]

    def run(*more: str, seeds: tuple[int, ...] | None = None, spec: TableSpec = SPEC, **how: bool) -> Outcome:
        specs = {"tiny": spec}
        jobs = table_jobs(specs if seeds is None else with_seeds(specs, "mini", seeds), "mini", [*few, *more])
        return make_tables(specs, jobs, "mini", tmp_path / "experiments", **how)[0]

    return run


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "experiments/results/mini.jsonl"


def rows(results: Path) -> list[tuple[str, int | None]]:
    return [(one.row, one.result.seed) for one in read_published(results)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ALL = [("simcse", 0), ("otfkd", 0), ("simcse", 1), ("otfkd", 1)]


def test_rows_outlive_the_runs_and_nothing_is_trained_again(make: Make, trained: Trained, tmp_path: Path) -> None:
    make()
    assert trained == ALL
    experiments = tmp_path / "experiments"
    before = files(experiments)
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(experiments / "built")
    make()
    assert trained == ALL
    assert files(experiments) == before
    assert not list((tmp_path / "runs").rglob("*.jsonl"))


def test_a_row_says_more_than_its_test_scores(make: Make, results: Path) -> None:
    make(seeds=(0,))
    for one in read_published(results):
        assert one.last is not None and one.dev is not None and one.result.cost is not None
        assert (one.last.checkpoint, one.last.split, one.last.step) == ("last", "test", 4)
        ended = RunFolder(Path(results.parent, one.folder)).read_timings()[-1].at
        assert one.made == f"{datetime.fromtimestamp(ended, UTC):%Y-%m-%d}"
        assert one.dev == pytest.approx(one.result.cost.curve[-1].dev)
        assert one.dev_in_test == {}


def test_a_seed_is_added_to_what_is_published(make: Make, trained: Trained, results: Path, tmp_path: Path) -> None:
    make()
    shutil.rmtree(tmp_path / "runs")
    before = results.read_text()
    trained.clear()
    make(seeds=(5,))
    assert trained == [("simcse", 5), ("otfkd", 5)]
    assert results.read_text().startswith(before)
    assert rows(results) == [*ALL, ("simcse", 5), ("otfkd", 5)]
    assert "| On the fly | 3 |" in (tmp_path / "experiments/built/mini/tiny.md").read_text()
    assert unfinished(tmp_path / "experiments") == []


def test_what_is_stopped_midway_leaves_its_rows_and_a_marked_table(
    make: Make, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(config: Config) -> Any:
        if (config.name, config.seed) == ("otfkd", 1):
            # Rows are there as soon as their runs are finished.
            assert rows(results) == ALL[:3]
            raise Interrupted("stopped")
        return train(config)

    with monkeypatch.context() as patched:
        patched.setattr(otfkd.tables.jobs, "train", stopped)
        with pytest.raises(Interrupted):
            make()
    experiments = tmp_path / "experiments"
    made = (experiments / "built/mini/tiny.md").read_text()
    assert (
        "| SimCSE | 2 |" in made and "| On the fly | 1 of 2 ‡ |" in made and "\n‡ Unfinished: 1 of the 2 rows" in made
    )
    assert differing(experiments) == []
    assert unfinished(experiments) == ["mini/tiny, On the fly: 1 of 2 seeds, lacks 1"]
    # Without its mark the table is not what its rows give.
    (experiments / "built/mini/tiny.md").write_text(made.replace("1 of 2 ‡", "1"))
    assert differing(experiments) == [experiments / "built/mini/tiny.md"]
    make()
    assert rows(results) == ALL
    assert unfinished(experiments) == []


def test_finished_runs_are_published_without_training(
    make: Make, trained: Trained, results: Path, tmp_path: Path
) -> None:
    """Of runs that another process trains, or has: those that are finished, and no other."""
    make(seeds=(0,))
    shutil.rmtree(tmp_path / "experiments")
    (unfinished_run,) = (tmp_path / "runs/otfkd").glob("*/s0")
    (unfinished_run / "results.jsonl").unlink()
    trained.clear()
    assert make(train=False).failures == []
    assert trained == []
    assert rows(results) == [("simcse", 0)]


def test_a_published_teacher_that_is_trained_for_its_students_keeps_its_row(
    make: Make, trained: Trained, results: Path, tmp_path: Path
) -> None:
    make(seeds=(0,))
    lines = results.read_text().splitlines(keepends=True)
    # As if it came of another machine.
    taught = lines[0].replace(json.loads(lines[0])["result"]["weights_sha256"], "f" * 64)
    results.write_text(taught)
    shutil.rmtree(tmp_path / "runs")
    trained.clear()
    make(seeds=(0,))
    assert trained == [("simcse", 0), ("otfkd", 0)]
    assert results.read_text().splitlines(keepends=True)[0] == taught


def test_fresh_trains_everything_again(make: Make, trained: Trained, results: Path, tmp_path: Path) -> None:
    make(seeds=(0,))
    trained.clear()
    make(seeds=(0,), fresh=True)
    assert trained == [("simcse", 0), ("otfkd", 0)]
    assert rows(results) == ALL[:2]
    assert len(list((tmp_path / "runs/simcse").glob("*/s0.kept-1"))) == 1


def test_a_row_that_is_stale_gives_way(
    make: Make, trained: Trained, results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make()
    altered = [one for one in read_published(results) if one.result.seed == 0]
    protocol = altered[1].result.protocol
    results.write_text(results.read_text().replace(protocol, "another"))
    trained.clear()
    caplog.set_level(logging.WARNING, "otfkd")
    make()
    # The runs are here, so that they are scored rows again without training.
    assert trained == []
    assert {one.result.protocol for one in read_published(results)} == {protocol}
    assert (
        "the published row simcse of tiny, seed 0, is of another config, data or protocol and gives way" in caplog.text
    )


def test_seeds_do_not_join_rows_of_another_config(make: Make, trained: Trained, results: Path) -> None:
    make(seeds=(0,))
    before = results.read_text()
    trained.clear()
    with pytest.raises(UserError, match=r"has seed 0 of row simcse of tiny by another config.*: make it again too"):
        make("optimizer.lr=2e-3", seeds=(5,))
    assert trained == []
    assert results.read_text() == before


def test_rows_are_read_as_they_were_written(make: Make, results: Path) -> None:
    make(seeds=(0,))
    lines = results.read_text().splitlines(keepends=True)
    assert [Published.model_validate_json(line).line() for line in lines] == lines
