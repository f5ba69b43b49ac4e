"""What a user is told of an override that nothing reads, and what is left alone."""

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config, load_evaluate_config


def refusal(*given: str, scoring: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        (load_evaluate_config if scoring else load_config)(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["data=mini", "data.path=/no/file"],
         "data.path=/no/file is not read with data=mini: leave it out, or take data=text or labelled"),
        (["teacher.path=/no/folder"],
         "teacher.path=/no/folder is not read with teacher=none: leave it out, or take teacher=FOLDER_OR_HUB_ID"),
        (["teacher=/no/folder"],
         "teacher=/no/folder is not read with objective.kd_weight=0.0: leave it out, or take objective=distill"),
        (["teacher.warmup_steps=5"],
         "teacher.warmup_steps=5 is not read with teacher=none: leave it out, or take teacher=self"),
        (["evaluation.path=/no/folder"],
         "evaluation.path=/no/folder is not read with evaluation=mini: leave it out, or take evaluation=sts"),
        (["++schedule.every=7"],
         "schedule.every=7 is not read with schedule=never: leave it out, or take schedule=every"),
        (["experiment=otfkd", "objective.kd=mse", "objective.temperature_teacher=0.1"],
         "objective.temperature_teacher=0.1 is not read with objective.kd=mse: leave it out, or "
          "take objective.kd=ce, kl or js"),
        (["schedule.ema={decay:0.5}", "experiment=otfkd"],
         "schedule.ema={decay:0.5} is not read with schedule.source=current: leave it out, or take "
          "schedule.source=ema"),
        (["logger.project=mine"],
         "logger.project=mine is not read with logger=none: leave it out, or take logger=wandb or mlflow"),
        (["evaluation.protocol=fast"], "evaluation.protocol=fast is read by otfkd-eval alone: leave it out"),
    ],
)  # fmt: skip
def test_what_nothing_reads_is_refused_by_what_would_read_it(given: list[str], sentence: str) -> None:
    assert refusal(*given) == sentence


@pytest.mark.parametrize("key", ["evaluation.every=3", "model.head=false", "evaluation.dev_compute=bfloat16"])
def test_scoring_refuses_what_is_of_training(key: str) -> None:
    assert refusal(key, scoring=True) == f"{key} is read by otfkd-train alone: leave it out"


@pytest.mark.parametrize(
    "given",
    [
        ["data.path=null"],  # the value that it has anyway
        ["profile=mini", "schedule.every=20"],  # a profile's
        ["schedule.gate=null", "objective.kd_weight=0.0"],
        ["profile=mini"],  # sets schedule.every for whoever rotates
        ["experiment=otfkd", "objective.kd_weight=0.0"],  # the preset's teacher.after_warmup is not the user's
        ["paths.data_root=/data", "trainer.threads=3", "logger.every=5", "seed=4"],  # settings of the machine
        ["experiment=[simcse,otfkd]"],
        ["data=mini", "data.path=/no/file", "data.path=null"],  # the last one counts
    ],
)
def test_what_does_no_harm_is_accepted(given: list[str]) -> None:
    assert load_config(given)


def test_a_key_that_another_one_takes_its_value_from_is_read() -> None:
    """`teacher.warmup_steps` is `schedule.every` unless it is given too."""
    config = load_config(["experiment=otfkd", "schedule=geometric", "schedule.every=21"])
    assert config.teacher.warmup_steps == 21
    given = ["experiment=otfkd", "schedule=geometric", "schedule.every=21", "teacher.warmup_steps=9"]
    assert refusal(*given).startswith("schedule.every=21 is not read with schedule=geometric")


@pytest.mark.parametrize("group", ["schedule=[every,never]", "data=[mini,text]"])
def test_one_choice_of_several_is_not_taken_in_silence(group: str) -> None:
    assert refusal(group).startswith(f"{group} names 2 choices, and {group.partition('=')[0]} has one: take one of ")
