"""Runs that are selected and tested on a user's own pairs, and what is done with them afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest

import otfkd
import otfkd.training.run
from otfkd.config.schema import Config
from otfkd.data.sts import load_suite
from otfkd.reporting.dev_pairs import read_dev
from otfkd.reporting.export import export
from otfkd.reporting.methods import read_methods
from otfkd.training.train import train
from tests.support.commands import Command, assert_refused
from tests.support.graded_files import random_pairs, write_pairs
from tests.support.rows import defined

SHORT = ("trainer.max_steps=4", "evaluation.every=2")


@pytest.fixture
def own(tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The overrides of a run on files whose test shares two pairs with dev."""
    monkeypatch.setattr(otfkd.training.run, "load_suite", load_suite)
    dev, test = random_pairs(1), random_pairs(2)
    return [
        "evaluation=pairs",
        f"evaluation.dev={write_pairs(tmp_path / 'mine.csv', dev)}",
        f"evaluation.test=[{write_pairs(tmp_path / 'b.jsonl', [*test, *dev[:2]])}]",
    ]


def test_own_pairs_select_and_are_reported_by_every_command(
    configure: Callable[..., Config], own: list[str], overrides: list[str], otfkd_command: Command, tmp_path: Path
) -> None:
    shown = otfkd_command("train", *overrides, *SHORT, *own, "dry_run=true")
    assert "evaluate   mine after " in shown.out
    assert "test       b (2 pairs of b are mine's too)" in shown.out
    first = train(configure(*SHORT, *own))
    dev, test, *_ = first.rows
    assert (dev.split, list(dev.scores), test.split, list(test.scores)) == ("dev", ["mine"], "test", ["b"])
    scored = otfkd.evaluate(str(first.folder), *own)
    assert [row.scores for row in scored] == [dev.scores, test.scores]
    (before, after) = read_dev(read_methods([first.folder]), every_seed=True)
    assert after.spearman == pytest.approx(defined(dev.scores["mine"]["all"]), abs=1e-6) != before.spearman
    other = train(configure(*SHORT, *own, "optimizer.lr=3e-3"))
    compared = otfkd_command("compare", first.folder.parent, other.folder.parent, "--pairs")
    assert compared.code == 0, compared.err
    assert "B  b  " in compared.out and "Test split of suite pairs" in compared.out
    export(str(first.folder), tmp_path / "out", licence=None)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| dev | mine | {dev.scores['mine']['all']:.2f} |" in card
    assert f"| test | b | {test.scores['b']['all']:.2f} |" in card
    assert str(tmp_path / "mine.csv") not in card


def test_a_run_is_known_by_what_its_files_hold(
    configure: Callable[..., Config], own: list[str], tmp_path: Path
) -> None:
    first = train(configure(*SHORT, *own))
    moved = [
        own[0],
        f"evaluation.dev={write_pairs(tmp_path / 'x' / 'mine.parquet', random_pairs(1))}",
        f"evaluation.test={write_pairs(tmp_path / 'x' / 'b.tsv', [*random_pairs(2), *random_pairs(1)[:2]])}",
    ]
    again = train(configure(*SHORT, *moved))
    assert (again.status, again.folder) == ("skipped", first.folder)
    write_pairs(tmp_path / "x" / "b.tsv", random_pairs(2))
    assert train(configure(*SHORT, *moved)).folder != first.folder


def test_a_run_without_test_reports_dev_alone(
    configure: Callable[..., Config], own: list[str], overrides: list[str], otfkd_command: Command
) -> None:
    done = otfkd_command("train", *overrides, *SHORT, *own[:2], "logger=csv")
    assert done.code == 0, done.err
    assert "test       nothing" in done.err and "test: simcse" not in done.out
    (folder,) = (Path(line.partition(": ")[2]) for line in done.out.splitlines() if line.startswith("finished: "))
    assert {row.split for row in train(configure(*SHORT, *own[:2])).rows} == {"dev"}
    assert_refused(otfkd_command("compare", folder.parent, folder.parent), "has no test scores")
    assert_refused(otfkd_command("train", *overrides, own[0], own[2]), "add evaluation.dev=FILE")
