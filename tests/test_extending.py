"""The page on parts of one's own: its code and commands as they stand, from a folder outside the package."""

import functools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import otfkd.evaluation.scoring
from otfkd.config.composition import load_config
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.distill.checkpoints import WholeFiles
from otfkd.runs.rows import read_rows
from tests.support.commands import Command
from tests.support.killing import arm, fork_and_train, killed
from tests.support.resuming import final, stop_after, unclocked

PAGE = (Path(__file__).parents[1] / "docs/extending.md").read_text()
TABLE = """title: Mine
baseline: simcse
profiles: {mini: {seeds: [0]}}
rows:
  - {name: encoder, label: Encoder, experiment: null}
  - {name: simcse, label: SimCSE, experiment: simcse}
  - {name: huber, label: Huber, experiment: otfkd, teacher: simcse, overrides: [objective.kd=mine:huber]}
"""


def block(language: str) -> str:
    """The only block of a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def small(overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a small run, the page's file lying in the current folder."""
    (tmp_path / "mine.py").write_text(block("python"))
    monkeypatch.chdir(tmp_path)
    few = ["trainer.max_steps=8", "teacher.warmup_steps=2", "schedule.every=2", "evaluation.every=2"]
    return [*(text for text in overrides if not text.startswith(("data=", "data.path="))), *few]


@pytest.fixture
def given(small: list[str]) -> Callable[..., list[str]]:
    """The arguments of the page's command, made small."""
    name, *arguments = shlex.split(block("sh").replace("\\\n", " "))
    assert name == "otfkd-train"
    return lambda runs, *more: [*arguments, *small, f"paths.runs={runs}", *more]


def folder_in(runs: str) -> Path:
    (folder,) = Path(runs).glob("mine/*/s0")
    return folder


def test_the_pages_run_is_stopped_resumed_and_exported(
    given: Callable[..., list[str]], otfkd_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = otfkd_command("train", *given("straight", "dry_run=true"))
    assert planned.code == 0 and "corpus     mine:Scenes, 40 sentences" in planned.out
    assert otfkd_command("train", *given("straight")).code == 0
    norms = Path("norms.json").read_text()
    assert len(json.loads(norms)) == 8
    with monkeypatch.context() as patched:
        stop_after(patched, 5)
        assert otfkd_command("train", *given("stopped")).code == 130
    assert otfkd_command("train", *given("stopped")).code == 0
    straight, resumed = folder_in("straight"), folder_in("stopped")
    assert resumed.parent.name == straight.parent.name
    assert final(resumed) == final(straight)
    assert Path("norms.json").read_text() == norms
    rows = read_rows(straight / "results.jsonl")
    assert unclocked(read_rows(resumed / "results.jsonl")) == unclocked(rows)
    assert all(row.extra is not None and row.extra.keys() == {"same", "contrast"} for row in rows)
    logged = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "extra/same" in line] == [2, 4, 6, 8]
    assert [line["step"] for line in logged if "kd" in line] == [3, 4, 5, 6, 7, 8]

    assert otfkd_command("export", straight, "card").code == 0
    card, sha256 = Path("card/README.md").read_text(), read_rows(straight / "results.jsonl")[0].parts
    assert sha256 is not None
    assert f"`objective.kd=mine:huber` (sha256 of its source: `{sha256['objective.kd=mine:huber']}`)" in card
    assert "by a loss of the author's own, `mine:huber`" in card
    assert "what the author's own code gives" in card and "By evaluators of the author's own" in card


def test_the_pages_whole_objective_takes_the_place_of_every_loss(
    given: Callable[..., list[str]], otfkd_command: Command
) -> None:
    (command,) = re.findall(r"`otfkd-train (.*objective.fn=.*)`", PAGE)
    run = [text for text in given("whole") if not text.startswith("objective.kd=")]
    trained = otfkd_command("train", *run, *shlex.split(command), "name=mine")
    assert trained.code == 0, trained.err
    logged = [json.loads(line) for line in (folder_in("whole") / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in logged) == 8 and not any(
        "info_nce" in line or "kd" in line for line in logged
    )
    parts = read_rows(folder_in("whole") / "results.jsonl")[0].parts
    assert parts is not None and "objective.fn=mine:attract" in parts


def test_a_sweep_compares_a_loss_of_ones_own_with_otfkds(
    given: Callable[..., list[str]], otfkd_command: Command
) -> None:
    run = [text for text in given("swept", "trainer.max_steps=4") if not text.startswith("objective.kd=")]
    swept = otfkd_command("train", "-m", *run, "objective.kd=ce,mine:huber", "seed=0,1")
    assert swept.code == 0, swept.err
    first, second = sorted(Path("swept/mine").iterdir())
    compared = otfkd_command("compare", first, second)
    assert compared.code == 0, compared.err
    assert compared.out.count("mine, swept/mine/") == compared.out.count("seeds 0, 1") == 2


def test_a_table_of_ones_own_has_a_loss_of_ones_own(
    small: list[str], otfkd_command: Command, tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    Path("mine/tables").mkdir(parents=True)
    Path("mine/tables/own.yaml").write_text(TABLE)
    few = [text for text in small if not text.startswith("teacher.")]
    further = ["data=custom", "data.path=mine:Scenes", "evaluation.extra=[mine:Contrast]"]
    arguments = ["--config-dir=mine", "--tables=own", "--experiments=experiments", *few, *further]
    made = otfkd_command("reproduce", *arguments)
    assert made.code == 0, made.err
    table = Path("experiments/built/mini/own.md").read_text()
    assert "Rows with code that is not otfkd's own: " in table and "otfkd, objective.kd=mine:huber (sha256 of" in table
    rows = [json.loads(line) for line in Path("experiments/results/mini.jsonl").read_text().splitlines()]
    assert [sorted(row["result"]["extra"]) for row in rows] == [["contrast", "same"]] * 3
    again = otfkd_command("reproduce", "--dry-run", *arguments)
    assert again.code == 0 and again.out.count("published") == 3


@pytest.mark.slow
def test_a_killed_run_with_parts_ends_with_the_same_bits(
    given: Callable[..., list[str]], otfkd_command: Command
) -> None:
    def config(runs: str) -> Config:
        return load_config(given(runs, "trainer.checkpoint_every=3"))

    assert not killed(fork_and_train(config("straight")))
    norms = Path("norms.json").read_text()
    for call, moment in ((1, "before"), (2, "before"), (1, "after")):
        runs = f"killed-{call}-{moment}"
        at = functools.partial(arm, (WholeFiles, "save_checkpoint", moment), call)  # type: ignore[arg-type]
        assert killed(fork_and_train(config(runs), at))
        Path("norms.json").unlink(missing_ok=True)
        assert not killed(fork_and_train(config(runs)))
        assert final(folder_in(runs)) == final(folder_in("straight"))
        assert Path("norms.json").read_text() == norms
