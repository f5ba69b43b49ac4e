"""What of a config is not its experiment's default."""

import pytest

from otfkd.config.composition import load_config
from otfkd.config.differences import UNKNOWN, differences, flat, in_short, method_settings, setting_keys
from otfkd.config.stored import StoredConfig


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["experiment=simcse"], {}),
        (["experiment=otfkd_gated", "seed=3", "trainer.devices=2", "paths.runs=/elsewhere", "logger=wandb"], {}),
        (["experiment=otfkd", "schedule.every=50"], {"schedule.every": 50}),
        (["experiment=otfkd", "schedule.every=50", "teacher.warmup_steps=100"],
         {"schedule.every": 50, "teacher.warmup_steps": 100}),
        (["experiment=mean_teacher", "evaluation.every=50"], {"evaluation.every": 50}),
        (["experiment=simcse", "objective=simcse", "model.layers=5", "optimizer.lr=1e-5"],
         {"model.layers": 5, "optimizer.lr": 1e-5}),
    ],
)  # fmt: skip
def test_what_a_user_changed_differs_and_what_only_follows_does_not(
    overrides: list[str], expected: dict[str, object]
) -> None:
    assert differences(load_config(overrides)) == expected


def test_a_name_that_no_experiment_has_leaves_it_unknown() -> None:
    assert differences(load_config(["experiment=simcse", "name=mine"])) is None
    assert differences(StoredConfig()) is None


def test_a_section_that_cannot_be_read_is_unknown_and_the_others_are_compared() -> None:
    said = load_config(["experiment=otfkd", "schedule.every=50", "evaluation.every=75"]).model_dump(mode="json")
    stored = StoredConfig.model_validate({**said, "schedule": {"trigger": "of an earlier version"}})
    assert differences(stored) == {"schedule": UNKNOWN, "evaluation.every": 75}
    assert "schedule.every" not in method_settings(stored)


def test_settings_are_told_as_overrides_and_paths_by_their_end() -> None:
    settings = {
        "schedule.every": 50, "trainer.max_steps": 80, "teacher.path": "/a/runs/simcse/7c/s0", "model.path": "org/name",
        "schedule.at": [1, 2], "objective.mask_repeats": True, "schedule.gate": None,
    }  # fmt: skip
    assert in_short(settings) == (
        "schedule.every=50 trainer.max_steps=80 teacher.path=simcse/7c/s0 model.path=org/name schedule.at=[1,2] "
        "objective.mask_repeats=true schedule.gate=null"
    )


def test_the_keys_of_a_stored_config_are_its_leaves() -> None:
    assert {"trainer.max_steps", "schedule.ema.decay", "seed"} < set(setting_keys())
    assert not {"schedule", "schedule.ema", "paths.runs"} & set(setting_keys())


def test_flat_keys_are_dotted() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [2, 3]}, "e": None}) == {"a.b.c": 1, "a.d": [2, 3], "e": None}
