"""A finished run is reported on further suites, which select nothing; an evaluator's number may select."""

from collections.abc import Callable
from pathlib import Path

import pytest

import otfkd
from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.groups import also_in
from otfkd.config.schema import Config
from otfkd.runs.folder import RunFolder
from otfkd.training.run import prepare
from otfkd.training.train import train
from tests.support.beir import given, random_task, write_beir
from tests.support.commands import Command
from tests.support.graded_files import random_pairs, write_pairs

SHORT = ("trainer.max_steps=4", "evaluation.every=2")


@pytest.fixture
def documents(tmp_path: Path) -> list[str]:
    """The overrides that name a retrieval task."""
    write_beir(tmp_path / "faq", *random_task())
    return [text for text in given(tmp_path / "faq") if text != "evaluation=retrieval"]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return f"evaluation.test={write_pairs(tmp_path / 'b.csv', random_pairs(2))}"


def test_further_suites_say_what_scoring_the_run_on_each_says(
    configure: Callable[..., Config], documents: list[str], pairs: str
) -> None:
    result = train(configure(*SHORT, "evaluation.also=[pairs,retrieval]", pairs, *documents))
    alone = [
        *otfkd.evaluate(str(result.folder), "evaluation=pairs", pairs),
        *otfkd.evaluate(str(result.folder), "evaluation=retrieval", *documents),
    ]
    assert [(row.suite, row.scores, row.suite_sha256) for row in result.also] == [
        (row.suite, row.scores, row.suite_sha256) for row in alone
    ]
    selected = result.rows[0]
    for row in result.also:
        assert (row.split, row.checkpoint, row.seed) == ("test", "selected", 0)
        assert (row.weights_sha256, row.config_hash) == (selected.weights_sha256, selected.config_hash)


def test_they_change_no_run_and_may_be_asked_for_later(
    configure: Callable[..., Config], documents: list[str], pairs: str
) -> None:
    plain = train(configure(*SHORT))
    later = train(configure(*SHORT, "evaluation.also=[retrieval]", *documents))
    assert (later.status, later.folder, later.rows, len(later.also)) == ("skipped", plain.folder, plain.rows, 1)
    both = train(configure(*SHORT, "evaluation.also=[pairs,retrieval]", pairs, *documents))
    assert [row.suite for row in both.also] == ["pairs", "retrieval"] and both.also[1] == later.also[0]


def test_other_settings_of_a_suite_are_other_scores(overrides: list[str], tmp_path: Path, documents: list[str]) -> None:
    own = tmp_path / "mine" / "evaluation" / "faq.yaml"
    own.parent.mkdir(parents=True)
    settings = "".join(f"{text.partition('.')[2].replace('=', ': ')}\n" for text in documents)
    averages = []
    for length in (4, 16):
        own.write_text(f"defaults: [retrieval]\n{settings}max_length: {length}\n")
        with also_in([tmp_path / "mine"]):
            (row,) = train(load_config([*overrides, *SHORT, "evaluation.also=[faq]"])).also
        averages.append(row.average)
        assert f", {length} tokens" in row.protocol
    assert averages[0] != averages[1]


def test_a_suite_that_cannot_be_read_is_refused_before_training(
    configure: Callable[..., Config], documents: list[str]
) -> None:
    for more, sentence in (
        (["evaluation.also=[retrieval]"], r"evaluation\.queries must be given"),
        (["evaluation.also=[nothing]"], "evaluation=nothing is not a choice"),
        (["evaluation.also=[pairs]"], "evaluation=pairs scores files of your own"),
    ):
        with pytest.raises(UserError, match=sentence):
            prepare(configure(*SHORT, *more))
    with pytest.raises(UserError, match=r"evaluation\.also names pairs twice"):
        configure("evaluation.also=[pairs,pairs]")
    with pytest.raises(UserError, match=r"evaluation\.also=\[retrieval\]"):
        configure(documents[0])


def test_the_command_shows_them(otfkd_command: Command, overrides: list[str], documents: list[str]) -> None:
    outcome = otfkd_command("train", *overrides, *SHORT, "evaluation.also=[retrieval]", *documents)
    assert outcome.code == 0, outcome.err
    assert "nDCG@10" in outcome.out
    assert "test       tiny, then evaluation=retrieval" in outcome.out + outcome.err


OWN = """
class Steps:
    def score(self, encoder):
        return {"fixed": next(NUMBERS), "other": 1.0}

NUMBERS = iter([0.0, 3.0, 9.0, 5.0, *[1.0] * 10])
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "chosen_by.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "evaluation.extra=[chosen_by:Steps]"


def test_the_number_of_an_own_evaluator_selects_in_the_place_of_dev(configure: Callable[..., Config], own: str) -> None:
    """It is asked once before training, then once at each evaluation, and once for each final model."""
    result = train(configure("trainer.max_steps=9", "evaluation.every=3", own, "evaluation.select=fixed"))
    selected, _, last, _ = result.rows
    assert (selected.step, last.step) == (6, 9)
    metrics = [values for _, values in RunFolder(result.folder).read_metrics() if "dev" in values]
    assert [(values["dev"], values["extra/fixed"]) for values in metrics] == [(3.0, 3.0), (9.0, 9.0), (5.0, 5.0)]
    other = train(configure("trainer.max_steps=9", "evaluation.every=3", own))
    assert other.folder != result.folder


def test_a_name_that_no_evaluator_gives_is_refused_before_the_first_step(
    configure: Callable[..., Config], own: str
) -> None:
    with pytest.raises(
        UserError, match=r"evaluation\.select=fxed is no number of evaluation\.extra, which gives fixed"
    ):
        train(configure(own, "evaluation.select=fxed"))
    with pytest.raises(UserError, match=r"evaluation\.extra=\[package\.module:Class\]"):
        configure("evaluation.select=fixed")
