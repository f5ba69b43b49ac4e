"""What other tools call a setting: each answer names what there is, in refusals and on the page alike."""

import re
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.foreign import Setting, tools
from otfkd.config.groups import groups, options
from otfkd.config.messages import all_keys, unknown_flag
from otfkd.config.schema import Config

SETTINGS = [setting for settings in tools().values() for setting in settings]
PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"


def tables() -> str:
    """The tables of the page, as foreign.toml gives them."""
    parts = []
    for tool, settings in tools().items():
        rows = (f"| `{one.name}` | {f'`{one.take}`' if one.take else '-'} | {one.why} |\n" for one in settings)
        parts.append(f"## {tool}\n\n| there | here | |\n|---|---|---|\n{''.join(rows)}")
    return "\n".join(parts)


def test_the_page_has_the_tables_of_the_file() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(tables())
    lightning, *others = tools().values()
    assert len(lightning) >= 25 and sum(map(len, others)) >= 15


@pytest.mark.parametrize("setting", SETTINGS, ids=[setting.name for setting in SETTINGS])
def test_an_answer_names_keys_and_choices_that_there_are(setting: Setting) -> None:
    assert setting.take or setting.why
    keys = all_keys(Config)
    for key, value in re.findall(r"([a-z_.]+)=(\S+?)(?=[, ]|$)", setting.take):
        assert key in keys or key in groups(), key
        if key in groups() and value.islower():
            assert value in options(key), value
    for key in re.findall(
        r"\b(?:trainer|optimizer|objective|model|data|evaluation|schedule|paths|logger)\.[a-z_]+", setting.why
    ):
        assert key in keys, key


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("trainer.gradient_clip_val=1", "unknown key 'trainer.gradient_clip_val': take optimizer.clip_norm=X"),
        ("gradient_clip_val=1", "unknown key 'gradient_clip_val': take optimizer.clip_norm=X"),
        ("+objective.temp=0.1", "unknown key 'objective.temp': take objective.temperature=X"),
        ("trainer.precision=bf16-mixed", "unknown key 'trainer.precision': take precision=bfloat16"),
        ("trainer.strategy=ddp", "unknown key 'trainer.strategy': take trainer=ddp trainer.devices=N"),
        ("trainer.profiler=simple", "unknown key 'trainer.profiler': leave it out (timings.jsonl has the time of each "
                                    "step)"),
        ("early_stopping_patience=3", "unknown key 'early_stopping_patience': take trainer.patience=N (in dev scores)"),
        ("callbacks=[]", "unknown key 'callbacks': the nearest valid key is 'trainer.callbacks'"),
        ("trainer.devices=auto", "trainer.devices=auto is not valid: take trainer.devices=N (the number of processes "
                                 "is part of what a run repeats)"),
        ("precision=16-mixed", "precision=16-mixed is not a choice: take precision=bfloat16 or auto (float16 needs a "
                               "scaled loss)"),
    ],
)  # fmt: skip
def test_a_foreign_name_is_refused_by_ours(given: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config([given])
    assert str(caught.value) == sentence


def test_max_epochs_are_steps() -> None:
    with pytest.raises(UserError, match=r"^unknown key 'trainer\.max_epochs': take trainer\.max_steps=N \("):
        load_config(["trainer.max_epochs=3"])


def test_a_name_that_is_ours_too_is_answered_by_the_nearest_key() -> None:
    with pytest.raises(UserError, match=r"nearest valid key is 'trainer\.max_steps'"):
        load_config(["teacher.max_steps=3"])


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--temp", "--temp is no flag: take objective.temperature=X"),
        ("--max_seq_length=32", "--max_seq_length=32 is no flag: take data.max_length=N"),
        ("--max-steps", "--max-steps is no flag: take trainer.max_steps=N"),
        (
            "--kd_weight",
            "--kd_weight is no flag: write KEY=VALUE without dashes; the nearest valid key is 'objective.kd_weight'",
        ),
    ],
)
def test_a_flag_of_another_tool_is_refused_by_our_key(flag: str, sentence: str) -> None:
    assert str(unknown_flag(flag, all_keys(Config), "otfkd-train")) == sentence
