"""The documentation's examples run."""

import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from safetensors.torch import load_file

from otfkd.base.errors import UserError
from otfkd.config.composition import compose, load_config, prepare_overrides
from otfkd.config.schema import Config, EvaluateConfig, Root
from otfkd.search.space import preset
from otfkd.tables.cited import pages, wrong_figures
from otfkd.tables.definition import load_table
from tests.support.pages import code

DOCS = Path(__file__).parents[1] / "docs"
ROOT = DOCS.parent
PAGES = [ROOT / "README.md", ROOT / "experiments/README.md", *sorted(DOCS.glob("*.md"))]
PLACEHOLDERS = {
    "$FOLDER": "one/s0", "$OTHER": "other/s0", "$TEXT": "text", "$PAIRS": "pairs", "$METHOD": "one", "$HUB": "a/b"
}  # fmt: skip
ASSIGNED = re.compile(r"[a-z_./]+=")


def example(name: str) -> str:
    """The only Python block of a page."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_rotation_drives_a_module_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example("rotation.md"), names)
    rows = [json.loads(line) for line in Path("run/rotations.jsonl").read_text().splitlines()]
    assert [(row["step"], row["snapshot_step"]) for row in rows] == [(25, 25), (50, 50), (75, 75)]
    (teacher,) = names["module"].teacher.members
    snapshot = load_file("run/snapshots/step-00000075.safetensors")
    held, student = teacher.state_dict(), names["module"].student.state_dict()
    assert held.keys() == snapshot.keys()
    assert all(torch.equal(held[name], snapshot[name]) for name in snapshot)
    assert not any(torch.equal(student[name], snapshot[name]) for name in snapshot)
    dev = [json.loads(line)["dev"] for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert len(dev) == 4
    assert dev[-1] > dev[0] > 25.0  # of four classes


def test_the_example_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = example("rotation.md")
    exec(block.replace("max_steps=100", "max_steps=60").replace("checkpoint_every=50", "checkpoint_every=60"), {})
    names: dict[str, Any] = {}
    resumed = 'batch_size=32), ckpt_path="run/checkpoints/last.ckpt", weights_only=True)'
    exec(block.replace("batch_size=32))", resumed), names)
    assert names["rotation"].generation == 3
    rows = [json.loads(line)["step"] for line in Path("run/rotations.jsonl").read_text().splitlines()]
    assert rows == [25, 50, 75]


def test_every_field_report_is_held_by_tests_that_exist() -> None:
    table = (DOCS / "field-reports.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in table if re.match(r"\| [BF]\d\d ", line)]
    names = [*(f"B{number:02}" for number in range(1, 29)), *(f"F{number:02}" for number in range(1, len(rows) - 27))]
    assert [name.strip() for name, *_ in rows] == names
    for name, *_, held in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held)
        assert tests and held.count("`") == 2 * len(tests), name
        for file, test in tests:
            assert f"\ndef {test}(" in (DOCS.parent / file).read_text(), f"{name} names {file}::{test}"


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """The name and the arguments of every command of a page that takes overrides; overrides alone are training's."""
    for text in code(page):
        for placeholder, value in PLACEHOLDERS.items():
            text = text.replace(placeholder, value)
        command = re.match(r"(?:.*\s)?(?:\.venv/bin/)?otfkd-(train|eval|reproduce)\s(.*)", text)
        if command is not None:
            arguments = [word for word in shlex.split(re.sub(r"\s[>|].*", "", command[2])) if word not in ("...", "-m")]
            yield command[1], [word for word in arguments if "=" in word and not word.startswith(("-", "hydra"))]


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """A sweep's overrides, so that each of its values is in one job at least; others as they are."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [text]
        for one, text in zip(parsed, overrides, strict=True)
    ]
    for job in range(max(map(len, values), default=1)):
        yield [choices[job % len(choices)] for choices in values]


def check(command: str, overrides: list[str]) -> None:
    for job in jobs(overrides):
        if command == "eval":
            EvaluateConfig.from_hydra(compose(prepare_overrides(job, EvaluateConfig), "evaluate"))
        else:
            load_config(job)


def refusals(asked: Iterable[tuple[list[str], type[Root]]]) -> list[str]:
    """What is said against overrides, of those that are refused."""
    told = []
    for overrides, schema in asked:
        try:
            prepare_overrides(overrides, schema)
        except UserError as error:
            told.append(f"{overrides}: {error}")
    return told


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's own configs, as docs/usage.md has its files."""
    page = (DOCS / "usage.md").read_text()
    files = re.findall(r"`mine/([\w/]+\.yaml)`[^`]*```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(files) == 4
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("OTFKD_CONFIG", str(tmp_path))
    return tmp_path


def test_the_presets_of_the_page_are_used(mine: Path) -> None:
    config = load_config(["experiment=my_method"])
    assert (config.name, config.schedule.every, config.objective.kd_weight) == ("my_method", 50, 0.25)
    assert load_table("my_table", "mini").baseline == "simcse"
    assert preset("my_space")[0] == "schedule.every=interval(20, 200)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_names_keys_and_choices_that_exist(page: Path, mine: Path) -> None:
    asked = [
        (job, EvaluateConfig if command == "eval" else Config)
        for command, overrides in commands(page.read_text())
        for job in jobs(overrides)
    ]
    assert refusals(asked) == []


@pytest.mark.slow  # composing some hundred configs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_composes(page: Path, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTFKD_DATA", "data")
    for command, overrides in commands(page.read_text()):
        check(command, overrides)


def test_the_commands_of_the_usage_page_are_found() -> None:
    found = list(commands((DOCS / "usage.md").read_text()))
    assert len(found) > 70
    assert ("train", ["experiment=distill_static", "teacher=[one/s0,other/s0]", "teacher.weights=[0.33,0.67]"]) in found
    assert list(jobs(["experiment=simcse,otfkd", "seed=0,1,2", "name=x"])) == [
        ["experiment=simcse", "seed=0", "name=x"],
        ["experiment=otfkd", "seed=1", "name=x"],
        ["experiment=simcse", "seed=2", "name=x"],
    ]


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "usage.md"], ids=lambda page: page.name)
def test_keys_named_beside_commands_exist(page: Path) -> None:
    named = [text.split() for text in code(page.read_text()) if text.strip()]
    asked = [(words, Config) for words in named if all(ASSIGNED.match(word) for word in words)]
    assert refusals(asked) == []


def test_the_picture_of_the_gain_is_what_the_published_rows_give() -> None:
    drawn = runpy.run_path(str(DOCS / "gain.py"))["picture"]()
    assert (DOCS / "gain.svg").read_text() == drawn


def test_the_figures_of_the_pages_are_those_of_their_rows() -> None:
    assert {*PAGES} == {*pages(ROOT / "experiments")}
    assert list(map(str, wrong_figures(ROOT / "experiments"))) == []
    cited = [what for page in PAGES for what in re.findall(r"<!-- (small/\w+, [^,]+, \w+)", page.read_text())]
    assert len(cited) > 40
    built = (ROOT / "experiments/built/small/main.md").read_text()
    (average,) = re.findall(r"^\| Fixed teacher \|.* ([\d.]+ ± [\d.]+) \|$", built, re.MULTILINE)
    assert f"<!-- small/main, static, average -->{average}<!-- / -->" in (ROOT / "README.md").read_text()


def test_a_figure_that_is_altered_on_a_page_is_named(tmp_path: Path) -> None:
    for page in ("README.md", "experiments/README.md", "experiments/results/small.jsonl"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    text = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(text.replace(">+0.23 (-0.28 to 0.75)<", ">+0.32 (-0.28 to 0.75)<"))
    (wrong,) = wrong_figures(tmp_path / "experiments")
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "+0.23 (-0.28" in line)
    assert str(wrong) == (
        f"{tmp_path}/README.md:{line}: small/main, otfkd - static, average is +0.23 (-0.28 to 0.75) by its rows, and "
        "+0.32 (-0.28 to 0.75) here"
    )
