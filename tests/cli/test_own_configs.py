"""A folder of configs of a user's own: found by every command, beside otfkd's and never in their place."""

from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config, load_evaluate_config
from otfkd.config.groups import OWN, also_in, options, own_dirs
from otfkd.config.identity import config_hash
from otfkd.tables.definition import load_table, profile_note, table_names
from tests.support.commands import Command, assert_refused

METHOD = """# @package _global_
# A method of mine.
defaults:
  - otfkd
  - override /objective: soft
name: my_method
schedule:
  every: 3
"""
TABLE = """title: Mine
profiles: {mini: {seeds: [0]}, pocket: {seeds: [5]}}
rows:
  - {name: simcse, label: SimCSE, experiment: simcse}
  - {name: mine, label: Mine, experiment: my_method, teacher: simcse}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder with a method, an objective that it uses, a model, a profile and a table."""
    folder = tmp_path / "my configs"
    write(folder, "experiment/my_method.yaml", METHOD)
    write(folder, "objective/soft.yaml", "defaults: [distill]\nkd_weight: 0.25\n")
    write(folder, "model/shallow.yaml", "defaults: [minilm]\nlayers: 2\n")
    write(folder, "profile/pocket.yaml", "# @package _global_\ntrainer:\n  max_steps: 9\n")
    write(folder, "profiles.yaml", "pocket: Profile pocket is for the train.\n")
    write(folder, "tables/own.yaml", TABLE)
    return folder


def test_values_alone_make_the_hash(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_config(["experiment=otfkd", "objective.kd_weight=0.25", "name=my_method", "schedule.every=3"])
    monkeypatch.setenv(OWN, str(mine))
    assert load_config(["experiment=my_method"]) == plain
    assert config_hash(load_config(["experiment=my_method"]), {}) == config_hash(plain, {})


@pytest.mark.parametrize("place", ["file://{}", "pkg://mine_of_tests"])
def test_hydras_own_search_path_is_searched(place: str, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = mine.rename(mine.parent / "mine_of_tests")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    given = f"hydra.searchpath=['{place.format(package)}']"
    assert load_config([given, "experiment=my_method"]).objective.kd_weight == 0.25
    assert load_evaluate_config([given, "model=shallow"]).model.layers == 2
    assert own_dirs() == ()


def test_a_package_that_is_not_there_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"pkg://no\.such\.one, and there is no such package"):
        load_config(["hydra.searchpath=[pkg://no.such.one]"])


def test_what_a_folder_offers_is_offered_while_it_is_named(mine: Path) -> None:
    with also_in([mine]):
        assert "my_method" in options("experiment") and "soft" in options("objective")
        assert {"main", "own"} <= set(table_names())
        assert [row.name for row in load_table("own", "pocket").rows] == ["simcse", "mine"]
        assert profile_note("pocket") == "Profile pocket is for the train."
    assert "my_method" not in options("experiment")
    with pytest.raises(UserError, match="my_method is not a choice"):
        load_config(["experiment=my_method"])


def test_every_way_to_name_the_folder_finds_the_same_run(
    mine: Path, otfkd_command: Command, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained by one, skipped by the others, and in a sweep beside another method."""
    monkeypatch.chdir(mine.parent)
    run = ["experiment=my_method", *overrides, "trainer.max_steps=5", "evaluation.every=null"]
    first = otfkd_command("train", "--config-dir", mine.name, *run)
    assert first.code == 0 and "\nfinished: " in first.out
    folder = first.out.rpartition(": ")[2]
    assert "/my_method/" in folder
    ways = [f"--config-dir={mine}", f"hydra.searchpath=[file://{mine}]".replace(" ", "\\ ")]
    for way in ways:
        again = otfkd_command("train", way, *run)
        assert (again.code, again.out.rpartition("skipped: ")[2]) == (0, folder)
    monkeypatch.setenv(OWN, mine.name)
    again = otfkd_command("train", *run)
    assert (again.code, again.out.rpartition("skipped: ")[2]) == (0, folder)
    swept = otfkd_command("train", "-m", *run, "objective=soft,distill", "dry_run=true")
    assert swept.code == 0 and swept.out.count("run  ") == 2
    assert folder.strip() in swept.out


def test_a_table_of_ones_own_is_planned(mine: Path, otfkd_command: Command, tmp_path: Path) -> None:
    where = [f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"]
    arguments = ["--config-dir", mine, "--profile", "pocket", "--tables", "own"]
    planned = otfkd_command("reproduce", *arguments, "--dry-run", *where)
    assert planned.code == 0 and "own, Mine, seed 5" in planned.out
    printed = otfkd_command("reproduce", *arguments, "--print-commands", *where)
    assert printed.code == 0 and f"'--config-dir={mine}' experiment=simcse profile=pocket" in printed.out


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("experiment/otfkd.yaml", METHOD, ["otfkd.yaml has the name of", "conf/experiment/otfkd.yaml", "rename it"]),
        ("schedule/base.yaml", "every: 3", ["schedule/base.yaml has the name of"]),
        ("tables/main.yaml", TABLE, ["tables/main.yaml has the name of"]),
        ("objective/broken.yaml", "kd_weight: [1", ["objective/broken.yaml cannot be read as YAML"]),
        ("objective/list.yaml", "- 1", ["objective/list.yaml is not a config"]),
        ("objective/bytes.yaml", "", ["objective/bytes.yaml cannot be read as YAML"]),
        ("experiment/bare.yaml", "name: bare", ["experiment/bare.yaml", "# @package _global_"]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(
    name: str, text: str, words: list[str], mine: Path, otfkd_command: Command
) -> None:
    path = write(mine, name, text)
    if not text:
        path.write_bytes(b"\xff\xfe\xff")
    assert_refused(otfkd_command("train", f"--config-dir={mine}", "dry_run=true"), *words)
    assert_refused(otfkd_command("eval", f"--config-dir={mine}"), *words)
    assert_refused(otfkd_command("reproduce", f"--config-dir={mine}", "--dry-run"), *words)


def test_a_folder_that_is_not_there_is_refused(otfkd_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["train"], ["eval"], ["reproduce", "--dry-run"]):
        assert_refused(otfkd_command(*command, "--config-dir=/no/such"), "there is no folder /no/such of configs")
    monkeypatch.setenv(OWN, "/no/such")
    with pytest.raises(UserError, match="there is no folder /no/such of configs"):
        load_config([])


def test_a_wrong_value_in_a_file_is_told_as_any_other(mine: Path) -> None:
    write(mine, "objective/odd.yaml", "defaults: [distill]\nkd_wieght: 1.0\n")
    with also_in([mine]), pytest.raises(UserError, match=r"unknown key 'objective\.kd_wieght'"):
        load_config(["objective=odd"])
