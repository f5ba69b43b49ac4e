"""Sweeps as a person starts them: whatever the launcher, the same runs, and a job that fails takes no other along."""

import datetime
import importlib.metadata
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra.core.utils
import pytest

import otfkd.training.train
from otfkd.evaluation.rows import score_rows
from otfkd.runs.folder import RunFolder
from otfkd.runs.rows import read_rows
from tests.support.commands import Command, assert_refused, finish, start, states, wait_for

ONE_STEP = ("trainer.max_steps=1", "evaluation.every=null")


@pytest.mark.parametrize("batches", [(), ("hydra.sweeper.max_batch_size=1",)], ids=["at once", "in batches"])
def test_a_failed_job_stops_no_other_and_is_listed_with_its_reason(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, batches: tuple[str, ...]
) -> None:
    swept = otfkd_command("train", "-m", *overrides, *ONE_STEP, "seed=0,1", "objective.kd_weight=1,0", *batches)
    assert swept.code == 2
    assert states(otfkd_command, tmp_path / "runs") == [("finished", "s0"), ("finished", "s1")]
    last = swept.err.splitlines()[-1]
    assert last.startswith("otfkd: 2 jobs failed (seed=0 objective.kd_weight=1: objective.kd_weight is above 0 but ")
    assert "; seed=1 objective.kd_weight=1: objective.kd_weight is above 0 but " in last
    assert last.endswith("); the same command tries them again")
    assert "Traceback" not in swept.err and "Error executing job" not in swept.err


def test_every_job_is_checked_before_the_first_and_announced_at_its_turn(
    otfkd_command: Command, overrides: list[str]
) -> None:
    swept = otfkd_command("train", *overrides, *ONE_STEP, "objective.kd_weight=0,1", "-m", "seed=0,1", "dry_run=true")
    told = [line for line in swept.err.splitlines() if line.startswith("job ")]
    assert [" (" in line for line in told] == [False] * 3 + [True] * 3
    assert all(re.search(r" \(\d+ s, about \d+ s left\)$", line) for line in told[3:])
    assert [line.partition(": objective.kd_weight is above 0")[0].partition(" (")[0] for line in told] == [
        "job 3 of 4: objective.kd_weight=1 seed=0 cannot run",
        "job 4 of 4: objective.kd_weight=1 seed=1 cannot run",
        "job 1 of 4: objective.kd_weight=0 seed=0",
        "job 2 of 4: objective.kd_weight=0 seed=1",
        "job 3 of 4: objective.kd_weight=1 seed=0",
        "job 4 of 4: objective.kd_weight=1 seed=1",
    ]


def test_folders_are_swept_over_as_choices_are(otfkd_command: Command, overrides: list[str], tiny_model: Path) -> None:
    given = (*overrides[1:], *ONE_STEP, "dry_run=true")
    models = otfkd_command("train", f"model={tiny_model},'{tiny_model}/.'", "-m", *given)
    assert (models.code, models.out.count(f"student    {tiny_model}")) == (0, 2), models.err
    teachers = otfkd_command(
        "train", "experiment=distill_static", f"model={tiny_model}",
        f"teacher={tiny_model},[{tiny_model},{tiny_model}]",
        "teacher.pooler=mean", "-m", *given,
    )  # fmt: skip
    assert teachers.code == 0, teachers.err
    lines = [line for line in teachers.out.splitlines() if line.startswith("teacher ")]
    assert [line.count(str(tiny_model)) for line in lines] == [1, 2]
    mixed = otfkd_command("train", "experiment=distill_static", f"teacher=minilm,{tiny_model}", "-m")
    assert_refused(mixed, "sweeps over the choice minilm and over folders")


def test_a_fault_in_a_job_is_code_1_and_the_same_command_tries_that_job_again(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "-m", *overrides, *ONE_STEP, "seed=0,1")

    def faulty(*arguments: Any) -> Any:
        return 1 / 0 if arguments[3].seed == 0 else score_rows(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.train, "score_rows", faulty)
        failed = otfkd_command(*command)
    assert failed.code == 1
    assert "1 jobs failed (seed=0: ZeroDivisionError: division by zero)" in failed.err.splitlines()[-1]
    assert states(otfkd_command, tmp_path / "runs") == [("failed", "s0"), ("finished", "s1")]
    again = otfkd_command(*command)
    assert again.code == 0
    assert re.findall(r"^(finished|skipped): .*/(s\d)$", again.out, re.MULTILINE) == [
        ("finished", "s0"), ("skipped", "s1"),
    ]  # fmt: skip


def test_a_sweep_ends_with_the_table_of_its_runs_alone(
    otfkd_command: Command, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs that it found finished and those that fail are among them, but not a job that has no run."""
    assert otfkd_command("train", *overrides, *ONE_STEP, "seed=0").code == 0
    assert otfkd_command("train", *overrides, *ONE_STEP, "seed=3").code == 0

    def faulty(*arguments: Any) -> Any:
        return 1 / 0 if arguments[3].seed == 1 else score_rows(*arguments)

    monkeypatch.setattr(otfkd.training.train, "score_rows", faulty)
    swept = otfkd_command("train", "-m", *overrides, *ONE_STEP, "seed=0,1", "objective.kd_weight=0,1")
    rows = [line.split("\t") for line in swept.out.splitlines() if "\t" in line]
    assert [(row[0], row[1][-3:], row[-1]) for row in rows] == [
        ("finished", "/s0", "-"), ("failed", "/s1", "ZeroDivisionError: division by zero"),
    ]  # fmt: skip
    assert swept.out.endswith("\t".join(rows[-1]) + "\n")


def test_two_sweeps_of_one_second_share_no_folder(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Stopped":
            return cls(2024, 11, 29, 12, 0, 0)

    monkeypatch.setattr(hydra.core.utils, "datetime", Stopped)
    for _ in range(2):
        assert otfkd_command("train", "-m", *overrides, "dry_run=true", "seed=0,1").code == 0
    folders = list((tmp_path / "runs" / "sweeps").iterdir())
    assert len(folders) == 2
    assert all(folder.name.startswith("2024-11-29_12-00-00") for folder in folders)


@pytest.mark.parametrize("subdir", [".", "job-${hydra.job.num}"])
def test_a_sweep_reads_its_own_notes_wherever_they_are(
    otfkd_command: Command, overrides: list[str], tmp_path: Path, subdir: str
) -> None:
    """Two sweeps in a folder that a user named: neither hears of the other's failed jobs, nor misses its own."""
    command = ["train", "-m", *overrides, "dry_run=true", f"hydra.sweep.dir={tmp_path / 'here'}"]
    command.append(f"hydra.sweep.subdir={subdir}")
    failed = otfkd_command(*command, "objective.kd_weight=0,1")
    assert failed.code == 2
    assert "1 jobs failed (objective.kd_weight=1: " in failed.err.splitlines()[-1]
    assert otfkd_command(*command, "seed=0").code == 0


@pytest.mark.parametrize(
    ("launcher", "package", "extra"),
    [
        ("joblib", "hydra-joblib-launcher", "joblib"), ("slurm", "hydra-submitit-launcher", "slurm"),
        ("submitit_local", "hydra-submitit-launcher", "slurm"),
    ],
)  # fmt: skip
def test_a_launcher_that_is_not_installed_is_refused_with_its_extra(
    otfkd_command: Command, monkeypatch: pytest.MonkeyPatch, launcher: str, package: str, extra: str
) -> None:
    original = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return original(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    refused = otfkd_command("train", "-m", f"hydra/launcher={launcher}", "seed=0,1")
    assert_refused(refused, f"hydra/launcher={launcher} needs {package}", f"pip install 'otfkd[{extra}]'")


def test_a_launcher_without_a_sweep_is_refused(otfkd_command: Command) -> None:
    assert_refused(otfkd_command("train", "hydra/launcher=joblib", "seed=0"), "hydra/launcher=joblib", "add -m")


def test_slurm_is_refused_where_there_is_none(otfkd_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "/nonesuch")
    assert_refused(otfkd_command("train", "-m", "hydra/launcher=slurm", "seed=0"), "finds no srun")


# Other launchers, in processes of their own.


def results(runs: Path) -> dict[str, Any]:
    """Every finished run's rows, but for what a clock says and for the revision, which may be edited meanwhile."""
    return {
        str(path.parent.relative_to(runs)): [
            row.model_dump(exclude={"cost": {"seconds", "peak_bytes", "curve"}, "environment": True})
            for row in read_rows(path)
        ]
        for path in sorted(runs.rglob("results.jsonl"))
    }


@pytest.fixture
def here(otfkd_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Do in this process, quickly, what `start` does in another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTFKD_CACHE", str(tmp_path / "cache"))
    return otfkd_command


def sweep(real: Sequence[str], runs: str) -> list[str]:
    more = ["experiment=otfkd", "schedule.every=1,2", "trainer.max_steps=3", f"paths.runs={runs}"]
    return ["train", "-m", *real, *more]


@pytest.mark.slow
def test_every_launcher_gives_the_same_runs(real: list[str], tmp_path: Path, here: Command) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    assert here(*sweep(real, "basic")).code == 0
    basic = results(tmp_path / "basic")
    assert len(basic) == 2
    for launcher, more in {"joblib": ["hydra.launcher.n_jobs=2"], "submitit_local": []}.items():
        done = finish(start(tmp_path, *sweep(real, launcher), f"hydra/launcher={launcher}", *more))
        assert done.code == 0, done.err
        assert results(tmp_path / launcher) == basic
        # And one launcher skips what another did.
        assert here(*sweep(real, launcher)).out.count("skipped: ") == 2


@pytest.mark.slow
def test_no_job_enters_a_folder_that_another_process_holds(real: list[str], tmp_path: Path, here: Command) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = ["train", "-m", *real, "seed=0,1"]
    plan = here("train", *real, "dry_run=true").out
    (folder,) = re.findall(rf"{tmp_path}/runs/simcse/\w+/s0", plan)
    with RunFolder(Path(folder)).held():
        held = finish(start(tmp_path, *command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"))
    assert held.code == 2
    assert held.err.splitlines()[-1].startswith(
        f"otfkd: 1 jobs failed (seed=0: another process is training in {folder}: wait for it"
    )
    assert states(here, tmp_path / "runs") == [("finished", "s1")]
    assert here(*command).code == 0
    assert states(here, tmp_path / "runs") == [("finished", "s0"), ("finished", "s1")]


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True], ids=["killed", "Ctrl-C"])
def test_a_signal_has_every_worker_of_joblib_save(
    real: list[str], tmp_path: Path, otfkd_command: Command, group: bool
) -> None:
    """A terminal sends Ctrl-C to the workers too."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    many = ["seed=0,1,2", "trainer.max_steps=20000", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    process = start(tmp_path, "train", "-m", *real, *many, new_group=group)
    runs = tmp_path / "runs"
    wait_for(lambda: sum(path.stat().st_size > 300 for path in runs.glob("*/*/*/metrics.jsonl")) == 2, process)
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    stopped = finish(process)
    assert stopped.code == 130, stopped.err
    assert stopped.err.splitlines()[-1] == "otfkd: 3 jobs were interrupted; the same command goes on from there"
    # The third was not begun.
    assert states(otfkd_command, runs) == [("interrupted", "s0"), ("interrupted", "s1")]


PROGRAMS = {
    "sbatch": """
        cp "${{@: -1}}" {at}/array.sh
        for task in 0 1; do begin $task; done
        echo "Submitted batch job 77"
    """,
    "begin": """
        export SLURM_JOB_ID=77 SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$1 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1
        export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NODELIST=here
        setsid bash {at}/array.sh > /dev/null 2>&1 < /dev/null &
    """,
    "srun": """
        echo $$ > {at}/pid-$SLURM_ARRAY_TASK_ID
        shift 5
        exec "$@" >> {at}/said-$SLURM_ARRAY_TASK_ID 2>&1
    """,
    "scontrol": """
        echo "$@" >> {at}/requeued
        task=${{2#77_}}; old=$(cat {at}/pid-$task)
        setsid bash -c "while kill -0 $old; do sleep 0.1; done; begin $task" > /dev/null 2>&1 < /dev/null &
    """,
    "sacct": """
        printf 'JobID|State|NodeList\\n77_0|RUNNING|here\\n77_1|RUNNING|here\\n'
    """,
}


@pytest.mark.slow
def test_a_slurm_job_whose_time_is_up_saves_and_goes_on(
    real: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm here is a few scripts; what submitit asks of it is real."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    at = tmp_path / "slurm"
    at.mkdir()
    for name, text in PROGRAMS.items():
        (at / name).write_text(f"#!/bin/bash\n{text.format(at=at)}")
        (at / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{at}:{os.environ['PATH']}")
    process = start(tmp_path, "train", "-m", *real, "seed=0,1", "trainer.max_steps=400", "hydra/launcher=slurm")

    def training() -> object:
        metrics = next((tmp_path / "runs").glob("*/*/s1/metrics.jsonl"), None)
        return metrics is not None and metrics.read_text().count("\n") > 3

    wait_for(training, process)
    os.kill(int((at / "pid-1").read_text()), signal.SIGUSR2)
    done = finish(process)
    assert done.code == 0, done.err
    assert (at / "requeued").read_text() == "requeue 77_1\n"
    header = (at / "array.sh").read_text()
    for line in ("--array=0-1%2", "--gpus-per-node=1", "--cpus-per-task=8", "--time=240", "--signal=USR2@120"):
        assert f"#SBATCH {line}\n" in header
    assert "resuming after step " in (at / "said-1").read_text()
    assert "resuming" not in (at / "said-0").read_text()
    for seed in (0, 1):
        (metrics,) = (tmp_path / "runs").glob(f"*/*/s{seed}/metrics.jsonl")
        steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if "loss" in line]
        assert steps == list(range(1, 401))
        assert (metrics.parent / "results.jsonl").is_file()
