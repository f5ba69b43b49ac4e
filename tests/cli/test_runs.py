"""otfkd-runs: one table for people and for scripts."""

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otfkd.cli.run_table import COLUMNS
from otfkd.config.composition import load_config
from otfkd.runs.folder import RunFolder
from otfkd.runs.origin import Provenance
from tests.support.commands import Command, assert_refused


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: finished, failed, and one of which only the folder is left."""
    root = tmp_path_factory.mktemp("runs")
    for seed, every, best in ((0, 50, 10.25), (1, 125, 9.5)):
        config = load_config(["experiment=otfkd", f"schedule.every={every}", f"seed={seed}", f"paths.runs={root}"])
        run = RunFolder(root / "otfkd" / "aaaa" / f"s{seed}")
        run.path.mkdir(parents=True)
        run.describe(config, "plan", Provenance(config_hash="aaaa", seed=seed))
        run.metrics_file.write_text(json.dumps({"step": 1000, "dev": best}) + "\n")
        run.timings_file.write_text(json.dumps({"event": "start", "seconds": 90, "at": 1e9 + seed}) + "\n")
        if seed == 0:
            run.results_file.write_text(json.dumps({"split": "test", "checkpoint": "selected", "average": 81.125}))
        else:
            run.failure_file.write_text(json.dumps({"kind": "ours", "reason": "a\tb: [c]"}))
    lost = root / "simcse" / "bbbb" / "s0"
    lost.mkdir(parents=True)
    (lost / "provenance.json").write_text("{}")
    return root


def listed(command: Command, runs: Path, *arguments: str) -> list[str]:
    """The runs that a call lists, by method and seed, in its order."""
    outcome = command("runs", runs, *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    rows = [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in outcome.out.splitlines()]
    return [f"{row['method']} {row['seed']}" for row in rows]


def test_a_pipe_gets_a_plain_line_a_run(otfkd_command: Command, runs: Path) -> None:
    lines = [line.split("\t") for line in otfkd_command("runs", runs).out.splitlines()]
    rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
    assert [row["state"] for row in rows] == ["finished", "failed", "new"]
    assert rows[0] | {"date": ""} == {
        "state": "finished", "run": f"{runs}/otfkd/aaaa/s0", "method": "otfkd", "seed": "0", "step": "1000",
        "steps": "1000", "dev": "10.25", "best": "10.25", "test": "81.12", "minutes": "1.5", "date": "",
        "differs": "schedule.every=50", "reason": "-",
    }  # fmt: skip
    assert (rows[1]["differs"], rows[1]["test"], rows[1]["reason"]) == ("-", "-", "a b: [c]")
    assert {rows[2][name] for name in ("method", "seed", "steps", "differs")} == {"unknown"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--where", "state=failed"], ["otfkd 1"]),
        (["--where", "method=otfkd", "--where", "seed=0"], ["otfkd 0"]),
        (["--where", "schedule.every=50"], ["otfkd 0"]),
        (["--where", "trainer.max_steps=1000"], ["otfkd 0", "otfkd 1"]),
        (["--where", "teacher.path=null"], ["otfkd 0", "otfkd 1"]),
        (["--where", "seed=2"], []),
        (["--sort", "best"], ["unknown unknown", "otfkd 1", "otfkd 0"]),  # as numbers: 9.5 comes before 10.25
        (["--sort", "date"], ["unknown unknown", "otfkd 0", "otfkd 1"]),
        (["--sort", "differs"], ["unknown unknown", "otfkd 1", "otfkd 0"]),
    ],
)  # fmt: skip
def test_runs_are_chosen_and_sorted(
    otfkd_command: Command, runs: Path, arguments: list[str], expected: list[str]
) -> None:
    assert listed(otfkd_command, runs, *arguments) == expected


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("state", "--where state has no value: write --where KEY=VALUE"),
        ("scheduel.every=5", "unknown key 'scheduel.every': the nearest valid key is '"),
        ("schedule.pool=3", "schedule.pool is now schedule.pool_size: write schedule.pool_size=3"),
    ],
)
def test_a_condition_on_nothing_is_refused(otfkd_command: Command, runs: Path, condition: str, words: str) -> None:
    assert_refused(otfkd_command("runs", runs, "--where", condition), words)


def test_json_and_csv_have_every_column_and_digit(otfkd_command: Command, runs: Path) -> None:
    read = json.loads(otfkd_command("runs", runs, "--json").out)
    assert [tuple(row) for row in read] == [COLUMNS] * 3
    assert (read[0]["test"], read[0]["differs"], read[0]["reason"]) == (81.125, {"schedule.every": 50}, None)
    assert (read[1]["reason"], read[2]["steps"]) == ("a\tb: [c]", "unknown")
    rows = list(csv.DictReader(io.StringIO(otfkd_command("runs", runs, "--csv").out)))
    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    assert (rows[0]["test"], rows[0]["differs"], rows[0]["reason"]) == ("81.125", "schedule.every=50", "")


def test_a_terminal_gets_a_table_with_the_reasons_below(
    otfkd_command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "300")
    drawn = re.sub(r"\x1b\[\d*m", "", otfkd_command("runs", runs, "--where", "method=otfkd").out)
    head, first, *_, last = drawn.splitlines()
    assert head.split()[:3] == ["state", "method", "differs"]
    assert "schedule.every=50" in first and "1000/1000" in first and f"{runs}/otfkd/aaaa/s0" in first
    assert last.split() == f"{runs}/otfkd/aaaa/s1 failed: a b: [c]".split()


def test_watching_draws_again_and_ends_with_ctrl_c(
    otfkd_command: Command, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_refused(otfkd_command("runs", runs, "--watch"), "--watch draws on a terminal")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "300")
    outcome = otfkd_command("runs", runs, "--watch")
    assert (outcome.code, waited) == (0, [5.0, 5.0])
    assert outcome.out.count("schedule.every=50") >= 2


def test_listing_loads_no_torch(runs: Path) -> None:
    code = (
        "import sys, pathlib; from otfkd.cli.runs import looking; "
        "print(len(looking(pathlib.Path(sys.argv[1]), [], None)()), *sys.modules)"
    )
    command = [sys.executable, "-c", code, str(runs)]
    found, *modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(found) > 0
    assert "otfkd.runs.summary" in modules
    assert "torch" not in modules
