"""What a search may vary, out of the sweeps of a command line."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from otfkd.base.errors import UserError
from otfkd.config.composition import loaded, prepare_overrides
from otfkd.config.groups import search_files
from otfkd.config.schema import Config
from otfkd.search.space import make_space, preset, search_hash


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("schedule.every=interval(20,200)", "schedule.every", IntDistribution(20, 200)),
        ("schedule.every=tag(log,interval(20,200))", "schedule.every", IntDistribution(20, 200, log=True)),
        ("schedule.every=range(20,101,20)", "schedule.every", IntDistribution(20, 100, step=20)),
        ("objective.kd_weight=interval(1,2)", "objective.kd_weight", FloatDistribution(1.0, 2.0)),
        ("optimizer.lr=tag(log,interval(1e-5,1e-4))", "optimizer.lr", FloatDistribution(1e-5, 1e-4, log=True)),
        ("schedule.at='[3,6],[4]'", None, None),
        ("schedule.at=[3,6],[4]", "schedule.at", CategoricalDistribution(["[3,6]", "[4]"])),
        ("objective.kd=choice(ce,mse)", "objective.kd", CategoricalDistribution(["ce", "mse"])),
    ],
)
def test_hydras_grammar_says_what_is_tried(override: str, key: str | None, expected: object) -> None:
    if key is None:
        with pytest.raises(UserError, match="nothing is left open"):
            make_space(["seed=1", override])
    else:
        space = make_space(["experiment=otfkd", override])
        assert space.free == {key: expected} and space.fixed == ("experiment=otfkd",)


def test_a_later_override_of_a_key_wins() -> None:
    space = make_space(["schedule.every=interval(2,6)", "objective.kd_weight=1,2", "schedule.every=4"])
    assert list(space.free) == ["objective.kd_weight"] and space.fixed == ("schedule.every=4",)


def test_numbers_that_are_tried_can_be_typed() -> None:
    space = make_space(["optimizer.lr=interval(0,1)", "schedule.every=interval(1000,200000)"])
    assert space.overrides({"schedule.every": 123456, "optimizer.lr": 0.012345678}) == [
        "optimizer.lr=0.01235", "schedule.every=123456",
    ]  # fmt: skip


@pytest.mark.parametrize("override", ["optimizer.lr=interval(2,1)", "optimizer.lr=tag(log,interval(0,1))"])
def test_an_interval_that_is_none_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=r"optimizer\.lr=.* is no interval: give the lower end first"):
        make_space([override])


def test_another_command_is_another_search() -> None:
    def named(*overrides: str, seeds: tuple[int, ...] = (0, 1)) -> str:
        return search_hash(make_space(overrides), seeds)

    first = named("schedule.every=interval(2,6)", "experiment=otfkd")
    assert first == named("experiment=otfkd", "schedule.every=interval(2,6)")
    others = {
        named("schedule.every=interval(2,7)", "experiment=otfkd"),
        named("schedule.every=interval(2,6)", "experiment=simcse"),
        named("schedule.every=interval(2,6)", "experiment=otfkd", seeds=(0,)),
    }
    assert len(others | {first}) == 4


@pytest.mark.parametrize("name", sorted(search_files()))
def test_what_a_preset_tries_composes(name: str) -> None:
    space = make_space(prepare_overrides([*preset(name), "experiment=otfkd"], Config))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(3):
        _, refusals = loaded([*space.fixed, *space.overrides(study.ask(dict(space.free)).params)], Config)
        assert not refusals


def test_a_preset_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"there is no search nothing: take one of .*rotation"):
        preset("nothing")
