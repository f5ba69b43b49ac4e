"""Which published rows answer which jobs, on the tiny BERT."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import otfkd.evaluation.scoring
from otfkd.config.composition import load_config
from otfkd.data.sts import DevTask, Subset, Suite, TestTask
from otfkd.tables.answers import Answers, find_answers
from otfkd.tables.jobs import Job, filled, run_jobs, table_jobs
from otfkd.tables.published import Key, Published
from otfkd.training.run import identify, prepare
from otfkd.training.train import train
from tests.support.published import ROWS, make_spec

OTFKD = {**ROWS[2], "overrides": ["schedule.every=2"]}
SIMCSE: Key = ("tiny", None, "simcse", 0)
TAUGHT: Key = ("tiny", None, "otfkd", 0)


@pytest.fixture
def few(overrides: list[str], tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    return [*overrides, "trainer.max_steps=4", "evaluation.every=null"]


def plan(few: list[str], **changes: Any) -> list[Job]:
    spec = make_spec(**{"rows": [*ROWS[:2], OTFKD], "profiles": {"mini": {"seeds": [0]}}, **changes})
    return table_jobs({"tiny": spec}, "mini", few)


@pytest.fixture
def made(few: list[str], tmp_path: Path) -> list[Published]:
    """The rows of an encoder, of SimCSE and of a student of it, whose folders are gone."""
    outcome = run_jobs(plan(few))
    assert outcome.failures == []
    shutil.rmtree(tmp_path / "runs")
    return outcome.published


def left(answers: Answers) -> list[tuple[str, int | None]]:
    return [(job.row.name, job.seed) for job in answers.to_run]


def test_rows_answer_without_the_runs_they_are_of(few: list[str], made: list[Published]) -> None:
    answers = find_answers(plan(few), made)
    assert left(answers) == []
    assert answers.found.keys() == {one.key for one in made}
    assert answers.stale == []
    assert left(find_answers(plan(few), made, fresh=True)) == [("encoder", None), ("simcse", 0), ("otfkd", 0)]


def test_a_run_is_known_by_the_same_hash_whether_its_teacher_is_here_or_not(few: list[str]) -> None:
    simcse, taught = plan(few)[1:]
    folder = train(filled(simcse, {})).folder
    run = prepare(filled(taught, {SIMCSE: folder}))
    own = identify(simcse.config, {})
    assert own.hash == folder.parent.name
    assert identify(taught.config, {"teacher": own.hash}).hash == run.hash
    assert identify(taught.config, {"teacher": "0123456789"}).hash != run.hash


def test_a_teacher_is_trained_only_where_a_row_that_must_be_trained_needs_it(
    few: list[str], made: list[Published]
) -> None:
    encoder, simcse, taught = made
    assert left(find_answers(plan(few), [encoder, simcse])) == [("simcse", 0), ("otfkd", 0)]
    assert left(find_answers(plan(few), [encoder, taught])) == [("simcse", 0)]
    # And the teacher of its teacher.
    second = {**OTFKD, "name": "second", "label": "Second", "teacher": "otfkd"}
    chain = plan(few, rows=[*ROWS[:2], OTFKD, second])
    assert left(find_answers(chain, made)) == [("simcse", 0), ("otfkd", 0), ("second", 0)]
    two = plan(few, profiles={"mini": {"seeds": [0, 1]}})
    assert left(find_answers(two, made)) == [("simcse", 1), ("otfkd", 1)]


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "another"}, {"suite_sha256": "another"}, {"corpus_sha256": "another"}, {"config_hash": "another"},
        {"checkpoint": "last"}, {"split": "dev"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_a_row_of_another_config_data_or_protocol_answers_nothing(
    few: list[str], made: list[Published], changes: dict[str, str]
) -> None:
    encoder, simcse, taught = made
    other = taught.model_copy(update={"result": taught.result.model_copy(update=changes)})
    answers = find_answers(plan(few), [encoder, simcse, other])
    assert left(answers) == [("simcse", 0), ("otfkd", 0)]
    assert answers.stale == [other]


def test_a_config_that_is_asked_for_otherwise_is_not_answered(few: list[str], made: list[Published]) -> None:
    for more in ("optimizer.lr=2e-3", "trainer.max_steps=6"):
        assert left(find_answers(plan([*few, more]), made)) == [("encoder", None), ("simcse", 0), ("otfkd", 0)]
    # What concerns the machine alone changes nothing.
    assert left(find_answers(plan([*few, "trainer.threads=1"]), made)) == []


def test_a_row_may_have_the_hash_of_an_earlier_version(few: list[str], made: list[Published]) -> None:
    """Renamed by hand, it answers, and so does what it taught."""
    encoder, simcse, taught = made
    old = simcse.result.model_copy(update={"config_hash": "earlier"})
    assert left(find_answers(plan(few), [encoder, simcse.model_copy(update={"result": old}), taught])) == [
        ("simcse", 0)
    ]
    known = simcse.model_copy(update={"result": old, "known_as": simcse.result.config_hash})
    assert left(find_answers(plan(few), [encoder, known, taught])) == []


def test_a_row_of_another_table_answers_and_is_copied(few: list[str], made: list[Published]) -> None:
    elsewhere = [one.model_copy(update={"table": "other", "row": f"their_{one.row}"}) for one in made]
    answers = find_answers(plan(few), elsewhere)
    assert left(answers) == []
    assert answers.found[TAUGHT] == answers.found[TAUGHT].model_copy(update={"table": "tiny", "row": "otfkd"})
    assert answers.stale == []
    # Its own row comes first.
    wrong = elsewhere[1].result.model_copy(update={"average": 1.0})
    answers = find_answers(plan(few), [elsewhere[1].model_copy(update={"result": wrong}), *made])
    assert answers.found[SIMCSE].result.average == made[1].result.average


def test_a_row_that_answers_says_how_many_of_its_test_pairs_are_dev_pairs(
    few: list[str], made: list[Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = DevTask("dev", (Subset("dev", (("A cat.", "The dog", 1.0), ("a", "b", 2.0))),))
    test = TestTask("test", (Subset("test", (("the dog!", "a  cat", 3.0), ("a", "c", 2.0), ("a", "a", 1.0))),))
    assert Suite("s", dev, (test,)).dev_in_test() == {"test": 1}
    assert {one.dev_in_test is None for one in made} == {True}
    monkeypatch.setattr(Suite, "dev_in_test", lambda _: {"tiny": 7})
    assert find_answers(plan(few), made).found[SIMCSE].dev_in_test == {"tiny": 7}


def test_what_cannot_be_found_is_left_to_the_job_to_say(few: list[str], made: list[Published], tmp_path: Path) -> None:
    """Rows are neither taken nor thrown away where the text they were trained on is not here."""
    gone = plan([*few, f"data.path={tmp_path / 'gone.txt'}"])
    answers = find_answers(gone, made)
    assert left(answers) == [("encoder", None), ("simcse", 0), ("otfkd", 0)]
    assert (answers.found, answers.stale) == ({}, [])


def test_rows_that_the_definition_no_longer_has_are_stale(few: list[str], made: list[Published]) -> None:
    assert [one.row for one in find_answers(plan(few, rows=ROWS[:2]), made).stale] == ["otfkd"]


def test_a_job_composes_what_it_is_asked_for(few: list[str]) -> None:
    (job,) = plan(few, rows=ROWS[1:2])
    assert load_config(list(job.arguments)) == job.config
