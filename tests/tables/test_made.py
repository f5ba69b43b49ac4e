"""What a report says of its making: commands that can be pasted, texts, days and folders."""

import shlex
from pathlib import Path

import pytest

from otfkd.config.groups import also_in
from otfkd.tables.made import commands, corpora, days, encoders, row_command, run_folders
from otfkd.tables.published import Published
from tests.support.published import ROWS, make_spec, published, rows_of
from tests.support.rows import make_row

SPEC = make_spec()


def made(*further: str, seeds: tuple[float, ...] = (50.0, 51.0), table: str = "tiny") -> list[Published]:
    """Rows of SimCSE and its student that were made with further keys."""
    rows = rows_of(*seeds, corpus_sha256="c" * 64)
    return [
        one
        for name in ("simcse", "otfkd")
        for one in published(name, rows, table=table, arguments=[f"experiment={name}", *further])
    ]


def test_the_command_names_profile_and_tables() -> None:
    specs = {"tiny": SPEC, "other": SPEC}
    assert commands(specs, "mini", [*made(), *made(table="other")]) == [
        "otfkd-reproduce --profile mini --tables tiny,other"
    ]


def test_further_keys_are_in_the_command_once_and_quoted_for_a_shell() -> None:
    given = ["model=bert_base", "optimizer.lr=1e-5", "data.path='my text.txt'"]
    (command,) = commands({"tiny": SPEC}, "mini", made(*given))
    assert shlex.split(command) == ["otfkd-reproduce", "--profile", "mini", "--tables", "tiny", *given]
    assert command.endswith("""model=bert_base optimizer.lr=1e-5 'data.path='"'"'my text.txt'"'"''""")


def test_a_key_that_only_some_rows_read_is_in_the_command_too() -> None:
    rows = [*made()[:2], *made("schedule.every=5")[2:]]
    assert commands({"tiny": SPEC}, "mini", rows) == ["otfkd-reproduce --profile mini --tables tiny schedule.every=5"]


def test_what_the_definition_gives_is_no_further_key() -> None:
    rows = [{**ROWS[1], "overrides": ["trainer.max_steps=5"]}]
    at = {"mini": {"seeds": [0], "models": {"bert_base": ["optimizer.lr=1e-5"]}}}
    one = published(
        "simcse", rows_of(50.0), model="bert_base",
        arguments=["experiment=simcse", "model=bert_base", "optimizer.lr=1e-5", "trainer.max_steps=5"],
    )  # fmt: skip
    assert commands({"tiny": make_spec(rows=rows, profiles=at)}, "mini", one) == [
        "otfkd-reproduce --profile mini --tables tiny"
    ]


def test_tables_of_other_seeds_have_a_command_of_their_own() -> None:
    rows = [*made(), *made(seeds=(50.0, 51.0, 52.0), table="more")]
    assert commands({"tiny": SPEC, "more": SPEC}, "mini", rows) == [
        "otfkd-reproduce --profile mini --tables tiny", "otfkd-reproduce --profile mini --tables more --seeds 0,1,2",
    ]  # fmt: skip


def test_a_users_own_configs_are_named(tmp_path: Path) -> None:
    with also_in([tmp_path]):
        (command,) = commands({"tiny": SPEC}, "mini", made())
    assert command == f"otfkd-reproduce --config-dir={tmp_path} --profile mini --tables tiny"


def test_a_row_is_made_with_one_command_for_all_its_seeds() -> None:
    rows = made("optimizer.lr=1e-5", "data.path='a b.txt'")
    simcse, otfkd = SPEC.at("mini")[1:]
    assert shlex.split(row_command(SPEC, simcse, rows[:2], rows)) == [
        "otfkd-train", "-m", "experiment=simcse", "optimizer.lr=1e-5", "data.path='a b.txt'", "profile=mini",
        "seed=0,1",
    ]  # fmt: skip
    loop = row_command(SPEC, otfkd, rows[2:], rows)
    assert loop.startswith("for seed in 0 1; do otfkd-train experiment=otfkd optimizer.lr=1e-5 ")
    assert loop.endswith(" profile=mini teacher=runs/simcse/0123456789/s$seed seed=$seed; done")


def test_a_teacher_lies_where_its_config_is_known_today() -> None:
    rows = [one.model_copy(update={"known_as": "9876543210"}) if one.row == "simcse" else one for one in made()]
    assert "teacher=runs/simcse/9876543210/s$seed" in row_command(SPEC, SPEC.at("mini")[2], rows[2:], rows)


@pytest.mark.parametrize(("kind", "evaluation"), [("sts", "tiny"), ("transfer", "transfer")])
def test_an_encoder_as_it_comes_is_scored_on_the_tables_tasks(kind: str, evaluation: str) -> None:
    rows = published("encoder", [make_row(seed=None, name="minilm")])
    spec = make_spec(kind=kind)
    assert row_command(spec, spec.at("mini")[0], rows, rows) == (
        f"otfkd-eval model=minilm model.pooler=cls evaluation={evaluation}"
    )


def test_encoder_and_text_are_those_that_were_given_or_the_profiles() -> None:
    assert encoders("mini", made()) == ["minilm, pooler cls"]
    assert encoders("mini", [*made(), *made("model=bert_base")]) == ["bert_base, pooler cls", "minilm, pooler cls"]
    assert corpora("mini", made()) == [("mini", "c" * 64)]
    assert corpora("small", made()) == [("text, ${paths.data_root}/corpus/general.txt", "c" * 64)]
    assert corpora("small", made("data.path=mine.txt")) == [("text, mine.txt", "c" * 64)]
    assert corpora("small", made("data=stsb_train", "data.path=null")) == [("stsb_train", "c" * 64)]


def test_the_days_are_those_of_the_rows() -> None:
    first, second, third, fourth = made()
    on = [one.model_copy(update={"made": day}) for one, day in ((first, "2026-03-02"), (second, "2026-02-27"))]
    assert days(on) == "2026-02-27 to 2026-03-02"
    assert days(on[:1]) == "2026-03-02"
    assert days([*on, third, fourth]) == "2026-02-27 to 2026-03-02; not recorded for 2 of the 4 rows"


def test_only_runs_of_the_same_project_are_linked() -> None:
    (one, *_) = made()
    assert run_folders([one]) == ("simcse/0123456789", [("s0", "../../../runs/simcse/0123456789/s0")])
    for folder in ("../../../elsewhere/runs/simcse/0123456789/s0", "/tmp/runs/simcse/0123456789/s0"):
        away = one.model_copy(update={"folder": folder})
        assert run_folders([away]) == ("simcse/0123456789", [("s0", None)])
