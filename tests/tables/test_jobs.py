"""Tables' jobs planned and run end to end on the tiny BERT."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import otfkd.evaluation.scoring
import otfkd.tables.jobs
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.composition import load_config
from otfkd.config.groups import conf_dir
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.models.registry import fingerprint_model
from otfkd.runs.rows import Row
from otfkd.tables.jobs import Job, Outcome, run_jobs, table_jobs
from otfkd.tables.published import tabulated
from tests.support.published import ROWS, make_spec
from tests.support.rows import make_row

OTFKD = {**ROWS[2], "overrides": ["schedule.every=2"]}


@pytest.fixture
def few(overrides: list[str], tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of runs of 4 steps, and the tiny suite for an untrained encoder too."""
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    return [*overrides, "trainer.max_steps=4", "evaluation.every=null"]


Make = Callable[..., Outcome]


@pytest.fixture
def make(few: list[str]) -> Make:
    """Plan and run a table `tiny` of an encoder, SimCSE and a student of it, with changes."""

    def run(**changes: Any) -> Outcome:
        spec = make_spec(**{"rows": [*ROWS[:2], OTFKD], **changes})
        return run_jobs(table_jobs({"tiny": spec}, "mini", few))

    return run


def by_row(outcome: Outcome) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for one in outcome.published:
        found.setdefault(one.row, []).append(one.result)
    return found


def times(runs: Path) -> dict[str, int]:
    """Every file of the runs with the time it was last written."""
    found = (path for path in runs.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in found}


def test_a_table_is_made_and_then_made_again_from_what_is_there(make: Make, tmp_path: Path) -> None:
    outcome = make()
    assert outcome.failures == []
    assert {name: len(rows) for name, rows in by_row(outcome).items()} == {"encoder": 1, "simcse": 2, "otfkd": 2}
    # Selected test rows only.
    rows = [one.result for one in outcome.published]
    assert {(row.split, row.checkpoint) for row in rows} == {("test", "selected"), ("test", "given")}
    # The teacher is the other row's model of the same seed.
    taught = {row.seed: row.teacher_sha256 for row in by_row(outcome)["otfkd"]}
    models = {int(run.name[1:]): fingerprint_model(run / "model") for run in (tmp_path / "runs/simcse").glob("*/s?")}
    assert taught == models
    assert len({*taught.values()}) == 2
    # A row says how it was made and where.
    last = outcome.published[-1]
    assert Path(last.folder).is_dir()
    assert Path(last.folder).parts[-3:] == ("otfkd", last.result.config_hash, "s1")
    assert {"experiment=otfkd", "profile=mini", "seed=1", "schedule.every=2"} <= {*last.arguments}
    assert not any(str(tmp_path / "runs") in argument for argument in last.arguments)
    before = times(tmp_path / "runs")
    assert before
    assert make().published == outcome.published
    assert times(tmp_path / "runs") == before


def test_a_failure_stops_only_what_depends_on_it(make: Make) -> None:
    bad = {**ROWS[1], "overrides": ["teacher=minilm", "schedule=at", "schedule.at=[5]"]}
    good = {"name": "good", "label": "Good", "experiment": "simcse"}
    rows = [ROWS[0], bad, OTFKD, good]
    outcome = make(profiles={"mini": {"seeds": [0]}}, rows=rows)
    assert [(job.row.name, job.seed) for job, _ in outcome.failures] == [("simcse", 0), ("otfkd", 0)]
    assert outcome.failures[1][1].reason == "row otfkd has no teacher: row simcse of seed 0 failed or is still to come"
    assert by_row(outcome).keys() == {"encoder", "good"}
    spec = make_spec(profiles={"mini": {"seeds": [0]}}, rows=rows)
    made = tabulated("tiny", spec, "mini", outcome.published).markdown()
    assert "| SimCSE | 0 of 1 ‡ | — | — |\n| On the fly | 0 of 1 ‡ | — | — |\n| Good | 1 |" in made


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make the first seed's SimCSE end with an error."""
    from otfkd.training.train import train

    def faulty(config: Config) -> Any:
        if config.seed == 0 and config.name == "simcse":
            raise error
        return train(config)

    monkeypatch.setattr(otfkd.tables.jobs, "train", faulty)


def test_a_fault_in_one_job_stops_no_other_and_it_is_tried_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        failing(patched, ZeroDivisionError("oops"))
        outcome = make()
    assert outcome.failures[0][1].reason == "ZeroDivisionError: oops"
    assert {name: [row.seed for row in rows] for name, rows in by_row(outcome).items()} == {
        "encoder": [None], "simcse": [1], "otfkd": [1],
    }  # fmt: skip
    again = make()
    assert again.failures == []
    assert {name: [row.seed for row in rows] for name, rows in by_row(again).items()} == {
        "encoder": [None], "simcse": [0, 1], "otfkd": [0, 1],
    }  # fmt: skip


def test_an_interruption_stops_them_all(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, Interrupted("stopped"))
    with pytest.raises(Interrupted):
        make()


def plan(few: list[str], **changes: Any) -> list[Job]:
    return table_jobs({"tiny": make_spec(**changes)}, "mini", few)


def test_jobs_go_seed_by_seed_with_teachers_first(few: list[str]) -> None:
    assert [(job.row.name, job.seed) for job in plan(few)] == [
        ("encoder", None), ("simcse", 0), ("otfkd", 0), ("simcse", 1), ("otfkd", 1),
    ]  # fmt: skip


def test_a_job_is_what_its_command_composes(few: list[str], tmp_path: Path) -> None:
    job = plan(few, rows=[ROWS[1], OTFKD])[3]
    folder = tmp_path / "teacher's run"
    config = otfkd.tables.jobs.filled(job, {("tiny", None, "simcse", 1): folder})
    assert config == load_config([*job.arguments, f'teacher="{folder}"'])
    assert (config.seed, config.name, config.schedule.every, config.teacher.path) == (1, "otfkd", 2, str(folder))


def test_each_backbone_has_its_own_jobs_and_keys(tmp_path: Path) -> None:
    models = {"bert_base": [], "roberta_base": ["optimizer.lr=1e-5"]}
    jobs = plan([], rows=ROWS[1:], profiles={"mini": {"seeds": [3], "models": models}})
    assert [(job.model, job.config.model.path, job.config.optimizer.lr) for job in jobs] == [
        ("bert_base", "google-bert/bert-base-uncased", 3e-5), ("bert_base", "google-bert/bert-base-uncased", 3e-5),
        ("roberta_base", "FacebookAI/roberta-base", 1e-5), ("roberta_base", "FacebookAI/roberta-base", 1e-5),
    ]  # fmt: skip
    # A teacher is of the same backbone.
    folders: dict[tuple[str, str | None, str, int | None], Path] = {
        ("tiny", model, "simcse", 3): tmp_path / model for model in models
    }
    assert otfkd.tables.jobs.filled(jobs[3], folders).teacher.path == str(tmp_path / "roberta_base")


def test_a_row_may_go_on_from_another_rows_model(few: list[str], tmp_path: Path) -> None:
    tuned = {"name": "tuned", "label": "Tuned", "experiment": "simcse", "student": "simcse"}
    bare = [one for one in few if not one.startswith("model")]
    job = plan(bare, rows=[ROWS[1], tuned])[1]
    config = otfkd.tables.jobs.filled(job, {("tiny", None, "simcse", 0): tmp_path})
    assert (config.model.path, config.model.pooler) == (str(tmp_path), None)


@pytest.mark.parametrize("given", ["seed=3", "experiment=simcse", "profile=small", "dry_run=true", "fresh=true"])
def test_what_a_table_decides_is_not_given_by_hand(given: str) -> None:
    with pytest.raises(UserError, match=f"{given.partition('=')[0]} is not given by hand.*: leave {given} out"):
        plan([given])


def test_a_table_needs_a_test(few: list[str]) -> None:
    own = [*few, "evaluation=pairs", "evaluation.dev=a.csv"]
    with pytest.raises(
        UserError, match=r"row encoder has no test, whose scores a table shows: add evaluation\.test=FILE"
    ):
        plan(own)
    assert plan([*own, "evaluation.test=b.csv"])


def test_a_launcher_is_for_sweeps() -> None:
    with pytest.raises(UserError, match="hydra/launcher=joblib starts no job of a table"):
        plan(["hydra/launcher=joblib"])


def test_a_plan_is_frozen(few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What jobs compute, and how transfer tasks are scored, was composed when they were planned."""
    conf = tmp_path / "conf"
    shutil.copytree(conf_dir(), conf)
    for module in ("groups", "composition"):
        monkeypatch.setattr(f"otfkd.config.{module}.conf_dir", lambda: conf)
    spec = make_spec(kind="transfer", rows=ROWS[1:2], profiles={"mini": {"seeds": [0]}})
    (job,) = table_jobs({"tiny": spec}, "mini", few)
    for file, key in (("objective/base.yaml", "temperature: 0.05"), ("evaluation/transfer.yaml", "protocol: full")):
        path = conf / file
        assert key in path.read_text()
        path.write_text(path.read_text().replace(key, f"{key.partition(':')[0]}: {'0.9' if '0' in key else 'fast'}"))
    (edited,) = table_jobs({"tiny": spec}, "mini", few)
    assert job.transfer is not None and edited.transfer is not None
    assert (edited.config.objective.temperature, edited.transfer.protocol) == (0.9, "fast")  # the edit tells
    scored: list[Any] = []

    def score(config: Any) -> list[Row]:
        scored.append(config)
        return [make_row()]

    monkeypatch.setattr(otfkd.tables.jobs, "score_model", score)
    outcome = run_jobs([job])
    assert outcome.failures == []
    folder = Path(outcome.published[0].folder)
    assert OmegaConf.load(folder / "config.yaml").objective.temperature == 0.05
    assert [(one.evaluation.protocol, one.model.path) for one in scored] == [("full", str(folder))]


def test_transfer_scores_are_kept_beside_the_run_and_say_whose_they_are(
    few: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def score(config: Any) -> list[Row]:
        asked.append(config.model.path)
        task = {"accuracy": 80.0, "n": 100.0}
        return [make_row(scores={"MR": task, "CR": task}, average=80.0, name="folder", seed=None, suite="transfer")]

    spec = make_spec(kind="transfer", rows=ROWS[1:2])
    jobs = table_jobs({"tiny": spec}, "mini", few)
    monkeypatch.setattr(otfkd.tables.jobs, "score_model", score)
    first, again = run_jobs(jobs), run_jobs(jobs)
    assert first.failures == []
    assert first.published == again.published
    assert asked == [one.folder for one in first.published]
    results = [one.result for one in first.published]
    assert [(row.name, row.seed, row.checkpoint, row.suite) for row in results] == [
        ("simcse", 0, "selected", "transfer"), ("simcse", 1, "selected", "transfer"),
    ]  # fmt: skip
    assert all(row.cost is not None and row.config_hash is not None for row in results)
