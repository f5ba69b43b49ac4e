"""What a table's file may say, and what the tables that are shipped say."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from otfkd.base.errors import UserError
from otfkd.config.composition import loaded
from otfkd.config.groups import options, tables_dir
from otfkd.config.schema import Config
from otfkd.tables.definition import load_table, profile_note, table_names
from otfkd.tables.jobs import table_jobs
from tests.support.published import ROWS, SWEPT, make_spec

STS = {"STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R", "average"}
TRANSFER = {"MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC", "average"}
SHIPPED = [
    (name, profile) for name in table_names() for profile in OmegaConf.load(tables_dir() / f"{name}.yaml").profiles
]


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write the table `tiny`, with changes, where tables are looked for."""
    monkeypatch.setattr("otfkd.config.groups.tables_dir", lambda: tmp_path / "tables")

    def write(**changes: Any) -> None:
        (tmp_path / "tables").mkdir(exist_ok=True)
        values = {"title": "Tiny", "profiles": {"mini": {"seeds": [0, 1]}}, "rows": ROWS, **changes}
        (tmp_path / "tables" / "tiny.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(values)))

    write()
    return write


def test_a_table_is_read_from_its_file(define: Callable[..., None]) -> None:
    assert load_table("tiny", "mini") == make_spec(title="Tiny")


def test_a_sweep_makes_a_row_of_each_value() -> None:
    spec = make_spec(rows=[*ROWS, SWEPT])
    every = spec.at("mini")[3:]
    assert [(row.name, row.label, row.overrides) for row in every] == [
        ("every_10", "Every 10 steps", ("schedule.every=10",)),
        ("every_20", "Every 20 steps", ("schedule.every=20",)),
    ]
    assert {(row.experiment, row.teacher, row.sweep) for row in every} == {("otfkd", "simcse", None)}


def test_a_sweep_keeps_the_rows_own_overrides() -> None:
    row = {**SWEPT, "overrides": ["schedule.gate=0.0"]}
    (first, _) = make_spec(rows=[*ROWS, row]).at("mini")[3:]
    assert first.overrides == ("schedule.gate=0.0", "schedule.every=10")


def test_a_sweep_over_nothing_is_refused(define: Callable[..., None]) -> None:
    define(rows=[*ROWS, {**SWEPT, "sweep": {"key": "schedule.every", "values": {"thesis": [125]}}}])
    with pytest.raises(UserError, match="row every sweeps over nothing at profile mini"):
        load_table("tiny", "mini")


def test_an_unknown_table_lists_those_there_are(define: Callable[..., None]) -> None:
    with pytest.raises(UserError, match="there is no table nonesuch: take one of tiny"):
        load_table("nonesuch", "mini")


@pytest.mark.parametrize("profile", ["nonesuch", "full"])
def test_an_unknown_profile_lists_the_tables(define: Callable[..., None], profile: str) -> None:
    """`full` is in the file, but no size of that name is configured."""
    define(profiles={"mini": {"seeds": [0]}, "full": {"seeds": [0]}})
    with pytest.raises(UserError, match=f"not made at profile {profile}: take one of mini$"):
        load_table("tiny", profile)


def test_a_teacher_below_its_row_is_refused(define: Callable[..., None]) -> None:
    define(rows=ROWS[::-1])
    with pytest.raises(UserError, match="teacher of row otfkd must be a trained row above it, not simcse"):
        load_table("tiny", "mini")


@pytest.mark.parametrize("group", ["teacher", "student"])
def test_an_untrained_row_is_nothing_to_start_from(define: Callable[..., None], group: str) -> None:
    define(rows=[ROWS[0], {"name": "x", "label": "X", "experiment": "otfkd", group: "encoder"}])
    with pytest.raises(UserError, match="of row x must be a trained row above it, not encoder"):
        load_table("tiny", "mini")


def test_two_rows_of_one_name_are_refused(define: Callable[..., None]) -> None:
    define(rows=[*ROWS, ROWS[2]])
    with pytest.raises(UserError, match="two rows are called otfkd"):
        load_table("tiny", "mini")


def test_a_baseline_is_a_row(define: Callable[..., None]) -> None:
    define(baseline="nonesuch")
    with pytest.raises(UserError, match="the baseline nonesuch is no row: name one of encoder, simcse, otfkd"):
        load_table("tiny", "mini")


@pytest.mark.parametrize("against", ["nonesuch", "otfkd"])
def test_a_row_is_against_another_row(define: Callable[..., None], against: str) -> None:
    define(rows=[*ROWS[:2], {**ROWS[2], "against": against}])
    with pytest.raises(UserError, match=f"row otfkd is against {against}, which is no other row: name another row"):
        load_table("tiny", "mini")


def test_rows_of_a_sweep_are_all_against_the_same_row() -> None:
    spec = make_spec(rows=[*ROWS, {**SWEPT, "against": "otfkd"}], baseline="simcse")
    wanted = {"encoder": "simcse", "otfkd": "simcse", "every_10": "otfkd", "every_20": "otfkd"}
    assert spec.references("mini") == wanted
    assert make_spec(baseline="simcse", kind="cost").references("mini") == {}


@pytest.mark.parametrize(
    "changes",
    [{"sedes": [1]}, {"profiles": {"mini": {"seeds": ["one"]}}}, {"rows": [{"name": "x"}]}, {"kind": "speed"},
     {"figures": ["pie"]}, {"quoted": [{"label": "x", "model": "y", "scores": {}}]}],
)  # fmt: skip
def test_a_mistake_in_a_table_is_named(define: Callable[..., None], changes: dict[str, Any]) -> None:
    define(**changes)
    with pytest.raises(UserError, match=rf"tiny\.yaml is not valid: {next(iter(changes))}"):
        load_table("tiny", "mini")


def test_every_profile_says_what_it_is() -> None:
    assert "not evidence" in profile_note("mini")
    assert all(profile_note(profile).startswith(f"Profile {profile}") for profile in options("profile"))
    with pytest.raises(UserError, match="does not say what profile nonesuch is: add a line for it"):
        profile_note("nonesuch")


@functools.cache
def composed(*overrides: str) -> tuple[Config, dict[str, str]]:
    """Many rows are the same in several tables."""
    return loaded(overrides, Config)


@pytest.mark.parametrize(
    ("name", "profile"),
    [pytest.param(*one, marks=[pytest.mark.slow] if one[1] == "thesis" else []) for one in SHIPPED],
)
def test_a_shipped_table_composes(name: str, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of it, at every size it names, is a config that a run could begin with."""
    monkeypatch.setenv("OTFKD_DATA", "/data")
    monkeypatch.setattr("otfkd.tables.jobs.loaded", lambda overrides, schema: composed(*overrides))
    spec = load_table(name, profile)
    jobs = table_jobs({name: spec}, profile)
    trained = [row for row in spec.at(profile) if row.experiment is not None]
    models = len(spec.profiles[profile].models) or 1
    assert len(jobs) == models * (
        len(spec.at(profile)) - len(trained) + len(trained) * len(spec.profiles[profile].seeds)
    )
    assert {job.config.seed for job in jobs if job.seed is not None} == set(spec.profiles[profile].seeds)
    for quoted in spec.quoted:
        assert quoted.scores.keys() <= (TRANSFER if spec.kind == "transfer" else STS)
        assert quoted.source


def test_the_issues_tables_are_there() -> None:
    assert {"main", "interval", "rotations", "policies", "restarts", "transfer", "cost", "ablation"} <= {*table_names()}
    made = {name for name, profile in SHIPPED if profile == "mini"}
    assert {"main", "interval", "cost"} <= made


def test_the_published_averages_are_the_means_of_their_tasks() -> None:
    """Cells as printed: their mean may be off by the rounding of seven numbers."""
    for name in ("main", "transfer"):
        for quoted in load_table(name, "thesis").quoted:
            tasks = [score for task, score in quoted.scores.items() if task != "average"]
            assert len(tasks) == 7
            assert sum(tasks) / 7 == pytest.approx(quoted.scores["average"], abs=0.011)


def test_real_data_that_is_nowhere_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTFKD_DATA", raising=False)
    spec = make_spec(profiles={"small": {"seeds": [0]}}, rows=ROWS[1:2])
    with pytest.raises(UserError, match=r"no folder of real data: set OTFKD_DATA, or give paths\.data_root=FOLDER"):
        table_jobs({"main": spec}, "small")
    job = table_jobs({"main": spec}, "small", ["paths.data_root=/somewhere"])[0]
    assert job.config.data.path == "/somewhere/corpus/general.txt"
