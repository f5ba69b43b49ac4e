"""What is said of every key: its meaning, its values, what it is by default."""

import runpy
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.groups import groups
from otfkd.config.keys import Key, choices, explained, keys
from otfkd.config.messages import all_keys
from otfkd.config.schema import Config, EvaluateConfig, Root
from tests.support.commands import Command, assert_refused

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("schema", [Config, EvaluateConfig])
def test_every_key_has_a_meaning_and_values(schema: type[Root]) -> None:
    found = keys(schema)
    named = all_keys(schema)
    assert [key.name for key in found] == [
        name for name in named if not any(other.startswith(f"{name}.") for other in named)
    ]
    assert [key.name for key in found if not (key.meaning and key.takes and key.default != "")] == []


def test_every_choice_has_a_meaning() -> None:
    told = [
        one for group in groups() if group not in ("hydra", "paths", "precision", "trainer") for one in choices(group)
    ]
    assert [one.name for one in told if not one.meaning] == ["logger=none"]


@pytest.mark.parametrize(
    "key",
    [
        Key("schedule.every", "every: optimizer steps between rotations", "whole number above 0 | null", "null",
            "schedule=every"),
        Key("optimizer.decay", "linear | cosine (both to 0) | constant", "linear | cosine | constant", "linear"),
        Key("teacher.path", "of a model, or a list of several that teach together", "text | list of text | null",
            "null", "teacher=FOLDER_OR_HUB_ID; objective=distill"),
        Key("precision.tf32", "on GPUs that have it", "true | false", "false"),
        Key("paths.cache", "what is made or fetched once: text, tokens, embeddings", "text",
            "${oc.env:OTFKD_CACHE,'~/.cache/otfkd'}"),
    ],
    ids=lambda key: key.name,
)  # fmt: skip
def test_a_key_is_explained(key: Key) -> None:
    assert explained(Config, key.name) == ([], [key])


def test_a_section_is_explained_by_its_choices_and_keys() -> None:
    choices, found = explained(Config, "schedule")
    assert Key("schedule=every", "Rotate after every N optimizer steps.") in choices
    assert [key.name for key in found] == [key.name for key in keys(Config) if key.name.startswith("schedule.")]
    assert [key.name for key in explained(Config, "schedule.ema")[1]] == ["schedule.ema.decay", "schedule.ema.shape"]
    presets, none = explained(Config, "experiment")
    assert "experiment=otfkd" in [one.name for one in presets] and none == []


def test_what_is_not_there_cannot_be_explained() -> None:
    with pytest.raises(UserError, match=r"^unknown key 'shedule': the nearest valid key is 'schedule'$"):
        explained(Config, "shedule")


def test_a_command_explains_its_own_keys(otfkd_command: Command) -> None:
    told = otfkd_command("train", "--explain", "schedule.every")
    assert (told.code, told.err) == (0, "")
    head, line = told.out.splitlines()
    assert head.split() == ["key", "meaning", "may", "be", "default", "read,", "for", "instance,", "with"]
    assert " ".join(line.split()) == (
        "schedule.every every: optimizer steps between rotations whole number above 0 | null null schedule=every"
    )
    everything = otfkd_command("eval", "--explain").out
    assert "evaluation.protocol" in everything and "trainer.max_steps" not in everything
    assert_refused(otfkd_command("eval", "--explain", "trainer"), "unknown key 'trainer'")


def test_the_page_says_what_the_command_says() -> None:
    assert (DOCS / "keys.md").read_text(encoding="utf-8") == runpy.run_path(str(DOCS / "keys.py"))["page"]()
