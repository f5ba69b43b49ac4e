"""Tables made end to end on the tiny BERT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import otfkd.reproduce
import otfkd.scoring
from otfkd.data.sts import Suite
from otfkd.errors import UserError
from otfkd.models.registry import fingerprint_model
from otfkd.reproduce import Outcome, jobs, load_table, reproduce

TINY: dict[str, Any] = {
    "title": "Tiny",
    "seeds": [0, 1],
    "profiles": {"mini": "It is not evidence."},
    "rows": [
        {"name": "encoder", "label": "Encoder", "experiment": None},
        {"name": "simcse", "label": "SimCSE", "experiment": "simcse"},
        {
            "name": "otfkd",
            "label": "OTF",
            "experiment": "otfkd",
            "teacher": "simcse",
            "overrides": ["schedule.every=2"],
        },
    ],
}


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_suite: Suite) -> Callable[..., None]:
    """Write the table `tiny`, with changes, where reproduce looks for tables."""
    monkeypatch.setattr(otfkd.reproduce, "tables_dir", lambda: tmp_path / "tables")
    monkeypatch.setattr(otfkd.scoring, "load_suite", lambda *_: tiny_suite)

    def write(**changes: Any) -> None:
        (tmp_path / "tables").mkdir(exist_ok=True)
        (tmp_path / "tables" / "tiny.yaml").write_text(json.dumps({**TINY, **changes}))

    write()
    return write


@pytest.fixture
def make(define: Callable[..., None], overrides: list[str], tmp_path: Path) -> Callable[[], Outcome]:
    """Make the table `tiny` into tmp_path/built, each run of 4 steps."""
    few = [*overrides, "trainer.max_steps=4", "evaluation.every=null"]
    return lambda: reproduce("tiny", "mini", few, tmp_path / "built")[1]


def times(runs: Path) -> dict[str, int]:
    """Every file of the runs with the time it was last written."""
    found = (path for path in runs.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in found}


def test_a_table_is_made_and_then_made_again_from_what_is_there(make: Callable[[], Outcome], tmp_path: Path) -> None:
    outcome = make()
    assert outcome.failures == []
    assert {name: len(rows) for name, rows in outcome.rows.items()} == {"encoder": 1, "simcse": 2, "otfkd": 2}
    built = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    assert built.keys() == {"tiny.md", "tiny.csv"}
    before = times(tmp_path / "runs")
    assert before
    assert make().rows == outcome.rows
    assert times(tmp_path / "runs") == before
    assert {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()} == built


def test_the_teacher_is_the_other_rows_model_of_the_same_seed(make: Callable[[], Outcome], tmp_path: Path) -> None:
    outcome = make()
    taught = {row.seed: row.teacher_sha256 for row in outcome.rows["otfkd"]}
    models = {int(run.name[1:]): fingerprint_model(run / "model") for run in (tmp_path / "runs/simcse").glob("*/s?")}
    assert taught == models
    assert len({*taught.values()}) == 2


def test_a_table_shows_selected_test_rows_only(make: Callable[[], Outcome]) -> None:
    outcome = make()
    rows = [row for found in outcome.rows.values() for row in found]
    assert {(row.split, row.checkpoint) for row in rows} == {("test", "selected"), ("test", "given")}


def test_a_failure_stops_only_what_depends_on_it(
    define: Callable[..., None], make: Callable[[], Outcome], tmp_path: Path
) -> None:
    encoder, simcse, student = TINY["rows"]
    good = {"name": "good", "label": "Good", "experiment": "simcse"}
    define(seeds=[0], rows=[encoder, {**simcse, "overrides": ["objective.temperature=-1"]}, student, good])
    outcome = make()
    assert [(job.row.name, job.seed) for job, _ in outcome.failures] == [("simcse", 0), ("otfkd", 0)]
    assert "objective.temperature=-1" in outcome.failures[0][1]
    assert outcome.failures[1][1] == "row otfkd has no teacher: row simcse of seed 0 failed"
    assert outcome.rows.keys() == {"encoder", "good"}
    assert "| SimCSE | — | — |\n| OTF | — | — |\n| Good | 1 |" in (tmp_path / "built" / "tiny.md").read_text()


def test_a_fault_in_one_job_stops_no_other(make: Callable[[], Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    from otfkd.runs import train

    def faulty(config: Any) -> Any:
        if config.seed == 0 and config.name == "simcse":
            raise ZeroDivisionError("oops")
        return train(config)

    monkeypatch.setattr(otfkd.reproduce, "train", faulty)
    outcome = make()
    assert outcome.failures[0][1] == "ZeroDivisionError: oops"
    assert {name: [row.seed for row in rows] for name, rows in outcome.rows.items()} == {
        "encoder": [None], "simcse": [1], "otfkd": [1],
    }  # fmt: skip


def test_jobs_go_seed_by_seed_with_teachers_first(define: Callable[..., None]) -> None:
    assert [(job.row.name, job.seed) for job in jobs(load_table("tiny"))] == [
        ("encoder", None), ("simcse", 0), ("otfkd", 0), ("simcse", 1), ("otfkd", 1),
    ]  # fmt: skip


def test_an_unknown_table_lists_those_there_are(define: Callable[..., None]) -> None:
    with pytest.raises(UserError, match="there is no table nonesuch: take one of tiny"):
        load_table("nonesuch")


@pytest.mark.parametrize("profile", ["nonesuch", "full"])
def test_an_unknown_profile_lists_the_tables(define: Callable[..., None], tmp_path: Path, profile: str) -> None:
    define(profiles={"mini": "", "full": ""})
    with pytest.raises(UserError, match=f"not made at profile {profile}: take one of mini"):
        reproduce("tiny", profile, [], tmp_path)


def test_a_teacher_below_its_row_is_refused(define: Callable[..., None]) -> None:
    define(rows=TINY["rows"][::-1])
    with pytest.raises(UserError, match="teacher of row otfkd must be a trained row above it, not simcse"):
        load_table("tiny")


@pytest.mark.parametrize("changes", [{"sedes": [1]}, {"seeds": ["one"]}, {"rows": [{"name": "x"}]}])
def test_a_mistake_in_a_table_is_named(define: Callable[..., None], changes: dict[str, Any]) -> None:
    define(**changes)
    with pytest.raises(UserError, match=rf"tiny\.yaml is not valid: {next(iter(changes))}"):
        load_table("tiny")


def test_an_untrained_row_cannot_teach(define: Callable[..., None]) -> None:
    rows = TINY["rows"]
    define(rows=[rows[0], {**rows[2], "teacher": "encoder"}])
    with pytest.raises(UserError, match="encoder"):
        load_table("tiny")


def test_the_main_table_is_valid() -> None:
    spec = load_table("main")
    assert len(jobs(spec)) == 1 + 5 * len(spec.seeds)
    assert "not evidence" in spec.profiles["mini"]
