"""A search: its trials are the same whether or not it was killed, and it stops what others were better than."""

import shlex
from pathlib import Path
from typing import Any

import pytest

import otfkd.search.study
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.search.space import make_space
from otfkd.search.study import Search, dev_scores, generations, tried
from otfkd.training.train import train
from tests.support.commands import Command

FREE = ("schedule.every=interval(2,5)", "objective.kd_weight=interval(0.5,2)")


def searched(
    overrides: list[str], folder: Path, seeds: tuple[int, ...] = (0, 1), free: tuple[str, ...] = FREE
) -> Search:
    return Search(make_space([*overrides, "experiment=otfkd", *free]), seeds, folder)


def told(search: Search) -> list[tuple[Any, ...]]:
    return [(trial.value, tried(trial), dev_scores(trial), generations(trial)) for trial in search.trials()]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configs that a search trains, in order."""
    seen: list[Config] = []

    def noted(config: Config, **more: Any) -> Any:
        seen.append(config)
        return train(config, **more)

    monkeypatch.setattr(otfkd.search.study, "train", noted)
    return seen


def test_a_trial_counts_by_the_mean_of_its_seeds_selected_dev_scores(
    overrides: list[str], tmp_path: Path, trained: list[Config]
) -> None:
    search = searched(overrides, tmp_path / "runs")
    assert search.run(2) == []
    assert [config.seed for config in trained] == [0, 1, 0, 1]
    for number, (value, overrides_tried, scores, selected) in enumerate(told(search)):
        configs = trained[2 * number : 2 * number + 2]
        rows = [
            next(row for row in train(config).rows if row.split == "dev" and row.checkpoint == "selected")
            for config in configs
        ]
        assert scores == [row.average for row in rows] and value == pytest.approx(sum(scores) / 2)
        assert selected == [row.generation for row in rows]
        assert overrides_tried == [
            f"schedule.every={configs[0].schedule.every}", f"objective.kd_weight={configs[0].objective.kd_weight:.4g}",
        ]  # fmt: skip
    assert told(search)[0][1] != told(search)[1][1]


def test_a_search_that_was_killed_and_goes_on_is_the_one_that_was_not(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searched(overrides, tmp_path / "whole", seeds=(0,))
    whole.run(4)
    broken = searched(overrides, tmp_path / "broken", seeds=(0,))
    calls = 0

    def killed(config: Config, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interrupted("stopped")
        return train(config, **more)

    with monkeypatch.context() as patch:
        patch.setattr(otfkd.search.study, "train", killed)
        with pytest.raises(Interrupted):
            broken.run(4)
    with (broken.folder / "study.journal").open("a") as journal:
        journal.write('{"op_code": 4, "wor')  # what a kill leaves of a line
    broken.run(4)
    assert told(broken) == told(whole) and len(told(whole)) == 4


def test_what_has_ended_is_not_tried_again_and_more_trials_add_to_it(
    overrides: list[str], tmp_path: Path, trained: list[Config]
) -> None:
    search = searched(overrides, tmp_path / "runs", seeds=(0,))
    search.run(1)
    search.run(1)
    assert len(trained) == 1
    search.run(2)
    assert len(trained) == 2


def test_a_failed_trial_is_no_end_of_the_others_and_is_tried_again(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searched(overrides, tmp_path / "runs", seeds=(0,))
    calls = 0

    def failing(config: Config, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise UserError("no room")
        return train(config, **more)

    monkeypatch.setattr(otfkd.search.study, "train", failing)
    ((which, failure),) = search.run(2)
    assert (failure.kind, failure.reason) == ("users", "no room") and len(search.trials()) == 1
    assert search.run(2) == []
    assert which in [" ".join(tried(trial)) for trial in search.trials()] and len(search.trials()) == 2


def test_a_trial_is_given_up_where_others_were_better_by_then(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sixth trial's first dev score is below the median of five; the median of none prunes nothing."""
    scores = iter([*([50.0] * 5 * 4), 10.0, 60.0])
    monkeypatch.setattr("otfkd.training.train.dev_score", lambda *_: next(scores))
    search = searched(overrides, tmp_path / "runs", seeds=(0,))
    assert search.run(6) == []
    states = [(trial.state.name, trial.intermediate_values) for trial in search.trials()]
    assert [name for name, _ in states] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert states[-1][1] == {3: 10.0}
    assert next(scores) == 60.0  # it was not evaluated again


def test_two_processes_are_not_at_one_search(overrides: list[str], tmp_path: Path) -> None:
    search = searched(overrides, tmp_path / "runs", seeds=(0,))
    with search._held(), pytest.raises(UserError, match="another process is at the search in"):
        searched(overrides, tmp_path / "runs", seeds=(0,)).run(1)


def test_the_command_ends_with_what_trains_the_best(otfkd_command: Command, overrides: list[str]) -> None:
    outcome = otfkd_command("search", *overrides, "experiment=otfkd", FREE[0], "--trials", 2, "--seeds", 0)
    assert outcome.code == 0, outcome.err
    *_, first, second, best = outcome.out.splitlines()
    assert float(first.split("\t")[1]) <= float(second.split("\t")[1])
    arguments = shlex.split(best.removeprefix("best: otfkd-train "))
    assert arguments[-2:] == [second.split("\t")[-1], "seed=0"] and "experiment=otfkd" in arguments
    assert otfkd_command("train", *arguments).out.splitlines()[-1].startswith("skipped: ")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["seed=1", FREE[0]], "seed=1 is not a trial's to have: leave it out, and give seeds with --seeds 0,1,2"),
        (["schedule.every=4"], "nothing is left open to search"),
        (["--space", "nothing"], "there is no search nothing"),
        (["schedule.evry=interval(2,4)"], "schedule.every"),
    ],
)
def test_what_cannot_be_searched_is_refused(otfkd_command: Command, given: list[str], sentence: str) -> None:
    outcome = otfkd_command("search", "experiment=otfkd", *given)
    assert outcome.code == 2 and sentence in outcome.err and outcome.err.count("\n") == 1
