"""What is read of a run at one look, whatever state its files are in."""

import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from otfkd.config.schema import Config
from otfkd.runs.folder import RunFolder
from otfkd.runs.origin import Provenance
from otfkd.runs.summary import find_run, read_summary


def lines(rows: list[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def begin(config: Config, digest: str = "0123456789") -> RunFolder:
    run = RunFolder(Path(config.paths.runs) / config.name / digest / f"s{config.seed}")
    run.path.mkdir(parents=True)
    run.describe(config, "the plan", Provenance(config_hash=digest, seed=config.seed))
    return run


@pytest.fixture
def run(configure: Callable[..., Config]) -> RunFolder:
    """A run of 12 steps after its eighth, begun twice."""
    run = begin(configure("seed=7", "objective.temperature=0.1"))
    run.metrics_file.write_text(
        lines([{"step": 4, "dev": 81.0}, {"step": 6, "dev": 80.5}, {"step": 7, "loss": 1.0}, {"step": 8, "loss": 0.5}])
    )
    run.timings_file.write_text(
        lines([
            {"event": "start", "seconds": 1.0, "at": 1e9}, {"event": "alive", "seconds": 90.0, "at": 1e9 + 89},
            {"event": "start", "seconds": 1.0, "at": 2e9}, {"event": "alive", "seconds": 60.0, "at": 2e9 + 59},
        ])
    )  # fmt: skip
    return run


def test_a_run_in_training_is_read_without_a_trace(run: RunFolder) -> None:
    with run.held():
        for file in (run.metrics_file, run.timings_file):
            with file.open("a") as growing:
                growing.write('{"step": 9, "dev": 99')  # the writer is at it
        files = [*run.path.rglob("*"), run.path, *run.path.parent.iterdir()]
        before = {file: file.stat() for file in files}
        read = read_summary(run)
        after = {file: file.stat() for file in [*run.path.rglob("*"), run.path, *run.path.parent.iterdir()]}
    assert {file: (one.st_mtime_ns, one.st_size) for file, one in before.items()} == {
        file: (one.st_mtime_ns, one.st_size) for file, one in after.items()
    }
    assert (read.state, read.reason, read.method, read.seed) == ("training", None, "simcse", 7)
    assert (read.step, read.steps, read.dev, read.best, read.test) == (8, 12, 80.5, 81.0, None)
    assert (read.minutes, read.date) == (2.5, datetime.fromtimestamp(1e9))
    assert isinstance(read.differs, dict)
    assert read.differs["objective.temperature"] == 0.1
    assert "seed" not in read.differs and read.settings["seed"] == 7


def test_the_test_average_is_the_selected_models(run: RunFolder) -> None:
    rows = [("dev", "selected", 84.0), ("test", "last", 70.0), ("test", "selected", 81.25)]
    run.results_file.write_text(
        lines([{"split": split, "checkpoint": which, "average": score} for split, which, score in rows])
    )
    assert (read_summary(run).state, read_summary(run).test) == ("finished", 81.25)
    run.results_file.write_text(lines([{"split": "test", "checkpoint": "selected", "average": None}]))
    assert read_summary(run).test is None  # it is undefined


def test_a_failed_run_has_its_reason(run: RunFolder) -> None:
    run.failure_file.write_text(json.dumps({"kind": "users", "reason": "the disk is full"}))
    assert (read_summary(run).state, read_summary(run).reason) == ("failed", "the disk is full")
    run.failure_file.write_text("{")
    assert read_summary(run).reason == "unknown"


def test_what_cannot_be_read_is_unknown_by_field(run: RunFolder) -> None:
    known = read_summary(run)
    for file in (run.config_file, run.timings_file, run.results_file):
        file.write_text("]:\n")
    read = read_summary(run)
    assert {read.method, read.seed, read.differs, read.steps, read.minutes, read.date, read.test} == {"unknown"}
    assert (read.step, read.dev, read.best) == (known.step, known.dev, known.best)
    run.metrics_file.write_text("[]\n")
    assert {read_summary(run).step, read_summary(run).dev} == {"unknown"}


def test_a_run_that_has_not_begun_has_nothing_yet(configure: Callable[..., Config]) -> None:
    read = read_summary(begin(configure()))
    assert (read.state, read.step, read.dev, read.best, read.minutes, read.date) == ("new", 0, None, None, None, None)


def test_a_configs_run_is_the_newest_that_says_the_same(configure: Callable[..., Config]) -> None:
    config = configure("precision=auto")
    assert find_run(config) is None
    begin(configure("seed=1"), "aaaa")
    begin(configure("optimizer.lr=1e-2"), "bbbb")
    assert find_run(config) is None
    newer, older = begin(configure(), "cccc"), begin(configure(), "dddd")  # the text had changed in between
    os.utime(older.provenance_file, (1e9, 1e9))
    assert find_run(config) == newer
    assert find_run(configure("seed=1")) == RunFolder(newer.path.parents[1] / "aaaa" / "s1")
