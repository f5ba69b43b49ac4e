"""What a dry run says of jobs, and the commands it prints."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import otfkd.evaluation.scoring
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.models.registry import fingerprint_model
from otfkd.runs.failure import failure_kept
from otfkd.runs.rows import Cost
from otfkd.tables.jobs import Job, filled, run_jobs, table_jobs
from otfkd.tables.status import JobStatus, commands, job_states, overview, slurm_array
from otfkd.training.train import train
from tests.support.published import ROWS, make_cost, make_spec

OTFKD = {**ROWS[2], "overrides": ["schedule.every=2"]}
ROWS_HERE = [ROWS[1], OTFKD]


@pytest.fixture
def few(overrides: list[str], tiny_suite: Suite, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(otfkd.evaluation.scoring, "load_suite", lambda *_: tiny_suite)
    return [*overrides, "trainer.max_steps=4", "evaluation.every=null"]


@pytest.fixture
def jobs(few: list[str]) -> list[Job]:
    return table_jobs({"tiny": make_spec(rows=ROWS_HERE)}, "mini", few)


def states(jobs: list[Job]) -> list[str]:
    return [one.state for one in job_states(jobs)]


def test_states_from_new_to_finished(jobs: list[Job]) -> None:
    assert states(jobs) == ["new", "waits", "new", "waits"]
    folder = train(filled(jobs[0], {})).folder
    assert states(jobs) == ["finished", "new", "new", "waits"]
    (checkpoint,) = (folder / "checkpoints").glob("last.ckpt")
    (folder / "results.jsonl").unlink()
    assert checkpoint.is_file()
    assert states(jobs) == ["interrupted", "waits", "new", "waits"]
    with pytest.raises(ValueError, match="bang"), failure_kept(folder / "failure.json"):
        raise ValueError("bang")
    assert states(jobs) == ["failed", "waits", "new", "waits"]
    assert "failed, is tried again\n" in overview(jobs) and "4 runs are left to train" in overview(jobs)
    assert commands(jobs).count("otfkd-train") == 1
    run_jobs(jobs)
    assert states(jobs) == ["finished"] * 4
    assert overview(jobs).endswith("nothing is left to train\n")
    assert commands(jobs) == "# nothing is left to train: otfkd-reproduce makes the tables\n"
    assert slurm_array(jobs) == commands(jobs)


def test_an_untrained_encoder_is_scored_once(few: list[str]) -> None:
    jobs = table_jobs({"tiny": make_spec(rows=ROWS[:1])}, "mini", few)
    assert states(jobs) == ["new"]
    assert commands(jobs).startswith("# nothing is left to train")
    run_jobs(jobs)
    assert states(jobs) == ["finished"]


def test_an_untrained_encoder_is_no_run_of_the_same_config(few: list[str]) -> None:
    """Seed 0 is what an encoder's config has too, for want of another."""
    jobs = table_jobs({"tiny": make_spec(rows=[ROWS[0], *ROWS_HERE])}, "mini", few)
    assert states(jobs) == ["new", "new", "waits", "new", "waits"]
    run_jobs(jobs)
    assert states(jobs) == ["finished"] * 5


def test_one_run_serves_every_row_that_is_the_same(few: list[str]) -> None:
    """The other table says in an override what the first one's row has from its profile."""
    same = {**ROWS[2], "name": "also", "label": "Also", "overrides": ["schedule.every=2", "schedule.source=current"]}
    other = {**ROWS[2], "name": "other", "label": "Other", "overrides": ["schedule.every=3"]}
    one = {"seeds": [0]}
    specs = {
        "a": make_spec(rows=ROWS_HERE, profiles={"mini": one}),
        "b": make_spec(rows=[ROWS[1], same, other], profiles={"mini": one}),
    }
    jobs = table_jobs(specs, "mini", few)
    assert states(jobs) == ["new", "waits", "shared", "shared", "waits"]
    train(filled(jobs[0], {}))
    assert states(jobs) == ["finished", "new", "shared", "shared", "new"]
    shown = overview(jobs).splitlines()
    assert [re.split(r"\s{2,}", line)[1] for line in shown[:5]] == [
        "finished", "new", "the same run as a row above", "the same run as a row above", "new",
    ]  # fmt: skip
    assert shown[0].startswith("a, SimCSE, seed 0 ")
    assert re.fullmatch(r"2 runs are left to train, about \d+ minutes at the pace of the 1 finished here", shown[5])
    # Running them trains each config once.
    run_jobs(jobs)
    assert len({one.folder for one in run_jobs(jobs).published}) == 3


def test_the_estimate_is_by_the_pace_of_what_is_finished(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*_: Any) -> list[JobStatus]:
        cost: Cost = make_cost(seconds=600, forwards=28)
        return [JobStatus(jobs[0], "finished", cost=cost), JobStatus(jobs[1], "new"), JobStatus(jobs[3], "waits")]

    monkeypatch.setattr("otfkd.tables.status.job_states", looked)
    # Each of the two is 4 steps of 6 + 1 passes, as the finished one was.
    assert overview(jobs).endswith("2 runs are left to train, about 20 minutes at the pace of the 1 finished here\n")


def test_without_a_finished_run_there_is_no_estimate(jobs: list[Job]) -> None:
    assert overview(jobs).endswith(
        "4 runs are left to train; none is finished here yet, so there is no estimate of the time\n"
    )


def test_a_dry_run_writes_no_run(jobs: list[Job], configure: Callable[..., Config]) -> None:
    overview(jobs)
    assert not list(Path(configure().paths.runs).rglob("*.jsonl"))


def run_in_process(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what a printed line does."""
    from otfkd.cli.train import main

    name, *arguments = shlex.split(command)
    assert name == "otfkd-train"
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0


@pytest.mark.slow
def test_the_printed_commands_make_the_runs_of_the_plan(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for the seeds of a row, each seed with the teacher of its own."""
    teachers, remark = commands(jobs).splitlines()
    assert teachers.startswith("otfkd-train -m ") and teachers.endswith(" seed=0,1")
    assert remark == "# 2 more start from runs that are not finished: print the commands again after these"
    run_in_process(teachers, monkeypatch)
    assert states(jobs) == ["finished", "new", "finished", "new"]
    (students,) = commands(jobs).splitlines()
    assert re.search(r"/simcse/\w{10}/s\$\{seed\}", students)
    run_in_process(students, monkeypatch)
    assert states(jobs) == ["finished"] * 4
    outcome = run_jobs(jobs)
    runs = {(one.row, one.result.seed): Path(one.folder) for one in outcome.published}
    for seed in (0, 1):
        taught = [one.result.teacher_sha256 for one in outcome.published if one.folder == str(runs["otfkd", seed])]
        assert taught == [fingerprint_model(runs["simcse", seed] / "model")]


def test_a_single_seed_is_no_sweep_and_goes_on_from_where_others_are(
    few: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = table_jobs({"tiny": make_spec(rows=ROWS_HERE)}, "mini", few)
    train(filled(jobs[0], {}))
    lines = commands(jobs).splitlines()
    assert [line.split()[1].startswith("experiment=") for line in lines[:2]] == [True, True]
    assert [line.split()[-1] for line in lines[:2]] == ["seed=0", "seed=1"]
    run_in_process(lines[0], monkeypatch)
    assert states(jobs) == ["finished", "finished", "new", "waits"]


@pytest.mark.slow
def test_a_plain_sweep_gives_runs_that_tables_find(few: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"name": str(every), "label": str(every), "experiment": "otfkd", "overrides": [f"schedule.every={every}"]}
        for every in (2, 3)
    ]
    jobs = table_jobs({"interval": make_spec(rows=rows)}, "mini", few)
    assert states(jobs) == ["new"] * 4
    sweep = ["-m", "experiment=otfkd", "profile=mini", "schedule.every=2,3", "seed=0,1"]
    run_in_process(shlex.join(["otfkd-train", *sweep, *few]), monkeypatch)
    assert states(jobs) == ["finished"] * 4
    monkeypatch.setattr("otfkd.training.train._train", lambda *_: pytest.fail("trained again"))
    outcome = run_jobs(jobs)
    assert outcome.failures == []
    assert [(one.row, one.result.seed) for one in outcome.published] == [("2", 0), ("3", 0), ("2", 1), ("3", 1)]


FAKE = """#!/bin/bash
trap 'echo saved >> {log}; exit 130' TERM
printf '%s\\n' "$*" >> {log}
{then}
"""


@pytest.mark.parametrize(
    ("task", "then", "code"),
    [(1, "exit 0", 0), (2, "exit 0", 0), (2, "exit 2", 2), (2, "kill -TERM $PPID; sleep 5 & wait", 130)],
)
def test_a_slurm_task_runs_its_command_and_is_queued_again_when_its_time_is_up(
    jobs: list[Job], tmp_path: Path, task: int, then: str, code: int
) -> None:
    script, log = slurm_array(jobs), tmp_path / "log"
    assert "#SBATCH --array=1-2\n#SBATCH --signal=B:TERM@120\n" in script  # B: to the shell, which passes it on
    (tmp_path / "bin").mkdir()
    programs = {"otfkd-train": FAKE.format(log=log, then=then), "scontrol": f'#!/bin/bash\necho "$@" >> {log}\n'}
    for name, text in programs.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "array.sh").write_text(script)
    subprocess.run(["bash", "-n", str(tmp_path / "array.sh")], check=True)
    environment = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(task), "SLURM_JOB_ID": "77",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(tmp_path / "array.sh")], env=environment, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (code, "")
    said = log.read_text().splitlines()
    assert said[0] == " ".join({1: jobs[0], 2: jobs[2]}[task].arguments)  # of seeds 0 and 1; the others wait
    assert said[1:] == (["saved", "requeue 77"] if code == 130 else [])
