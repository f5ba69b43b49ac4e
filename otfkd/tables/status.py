"""What making tables would do: every job and its state, an estimate of the time, or the commands to run by hand."""

import shlex
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from otfkd.config.groups import own_dirs
from otfkd.config.messages import quoted
from otfkd.runs.cost import forwards
from otfkd.runs.folder import RunFolder, State
from otfkd.runs.rows import Cost
from otfkd.tables.jobs import Job, filled, inputs, untrained_folder
from otfkd.tables.published import Key
from otfkd.training.run import Run, prepare


@dataclass(frozen=True)
class JobStatus:
    """A job as things stand.

    Attributes:
        job: what is to be done.
        state: whether it is done; `waits` for a run it starts from, `shared` with an earlier job; a `published` row
            answers it, and nothing that is to be trained starts from it.
        starts: the runs it starts from, by config group, where they are there.
        done: whether its run is finished here.
        cost: what it took, where it is finished.
    """

    job: Job
    state: State | Literal["waits", "shared", "published"]
    starts: Mapping[str, Path] = field(default_factory=dict)
    done: bool = False
    cost: Cost | None = None


# What a job computes, whatever its table: whether it trains, its config, and the same of the jobs it starts from.
Lineage = tuple[bool, str, tuple["Lineage", ...]]


def job_states(jobs: Sequence[Job], published: Set[Key] = frozenset()) -> Iterator[JobStatus]:
    """Every job as things stand, in order.

    Args:
        jobs: teachers before their students.
        published: those that need not be run.
    """
    finished: dict[Key, Path] = {}
    lineages: dict[Key, Lineage] = {}
    first: dict[Lineage, Key] = {}
    for job in jobs:
        if job.key in published:
            yield JobStatus(job, "published")
            continue
        before = job.starts.values()
        trains, config = job.seed is not None, job.config.model_dump_json()
        lineage = lineages[job.key] = (trains, config, tuple(lineages[key] for key in before))
        earlier = first.setdefault(lineage, job.key)
        if earlier != job.key:
            if earlier in finished:
                finished[job.key] = finished[earlier]
            yield JobStatus(job, "shared", done=job.key in finished)
        elif any(key not in finished for key in before):
            yield JobStatus(job, "waits")
        else:
            folder = _folder(job, prepare(filled(job, finished)))
            starts = inputs(job, finished)
            if folder.finished:
                finished[job.key] = folder.path
            cost = folder.read_rows()[0].cost if folder.finished else None
            yield JobStatus(job, folder.state, starts, folder.finished, cost)


def _folder(job: Job, run: Run) -> RunFolder:
    return run.folder if job.seed is not None else untrained_folder(run)


_WORDS = {
    "finished": "finished",
    "published": "published",
    "interrupted": "interrupted, goes on",
    "failed": "failed, is tried again",
    "training": "trains right now",
    "new": "new",
    "waits": "new, waits for the run it starts from",
    "shared": "the same run as a row above",
}
_TO_RUN = ("new", "interrupted", "failed")


def overview(jobs: Sequence[Job], published: Set[Key] = frozenset()) -> str:
    """Every job with its state, then an estimate of the time that is left."""
    planned = list(job_states(jobs, published))
    width = max(len(str(one.job)) for one in planned)
    lines = [f"{one.job!s:<{width}}  {_WORDS[one.state]}" for one in planned]
    return "\n".join([*lines, _estimate(planned)]) + "\n"


def _estimate(planned: Sequence[JobStatus]) -> str:
    left = [one.job for one in planned if one.state in (*_TO_RUN, "waits") and one.job.seed is not None]
    costs = [one.cost for one in planned if one.cost is not None]
    if not left:
        return "nothing is left to train"
    if not costs:
        return f"{len(left)} runs are left to train; none is finished here yet, so there is no estimate of the time"
    todo = sum(forwards(job.config, [(0, 1)], job.config.trainer.max_steps) for job in left)
    minutes = todo * sum(cost.seconds for cost in costs) / sum(cost.forwards for cost in costs) / 60
    return (
        f"{len(left)} runs are left to train, about {minutes:.0f} minutes at the pace of the {len(costs)} finished here"
    )


def commands(jobs: Sequence[Job], published: Set[Key] = frozenset()) -> str:
    """The training commands that can run now, in any order or at once, the seeds of a row as one sweep.

    What waits for them is counted below.
    """
    planned = list(job_states(jobs, published))
    sweeps: dict[tuple[str, ...], list[int | None]] = {}
    for one in _ready(planned):
        sweeps.setdefault(_arguments(one, "${seed}"), []).append(one.job.seed)
    lines = [
        shlex.join([*_train(), *["-m"] * (len(seeds) > 1), *arguments, f"seed={','.join(map(str, seeds))}"])
        for arguments, seeds in sweeps.items()
    ]
    return "".join(f"{line}\n" for line in [*lines, *_remarks(planned)])


def _train() -> list[str]:
    """The command, and where it finds a user's own configs."""
    return ["otfkd-train", *(f"--config-dir={folder}" for folder in own_dirs())]


def _ready(planned: Sequence[JobStatus]) -> list[JobStatus]:
    """The jobs whose training commands can run now."""
    return [one for one in planned if one.state in _TO_RUN and one.job.seed is not None]


def _remarks(planned: Sequence[JobStatus]) -> list[str]:
    """What must be said, as comments, of the jobs that cannot."""
    waiting = sum(one.state == "waits" for one in planned)
    if waiting:
        return [f"# {waiting} more start from runs that are not finished: print the commands again after these"]
    return [] if _ready(planned) else ["# nothing is left to train: otfkd-reproduce makes the tables"]


def _arguments(one: JobStatus, seed: str) -> tuple[str, ...]:
    """Of a job's training command, but for its seed; the runs it starts from lie in folders named by the same seed."""
    starts = (f"{group}={quoted(f'{at.parent}/s{seed}')}" for group, at in one.starts.items())
    return (*(argument for argument in one.job.arguments if argument != f"seed={one.job.seed}"), *starts)


def slurm_array(jobs: Sequence[Job], published: Set[Key] = frozenset()) -> str:
    """A Slurm script with one array task for each run of the `commands`; give it to sbatch with your own limits.

    Two minutes before its time is up Slurm sends TERM to a task's shell; the run saves itself and is queued again.
    """
    planned = list(job_states(jobs, published))
    ready = [
        shlex.join([*_train(), *_arguments(one, str(one.job.seed)), f"seed={one.job.seed}"]) for one in _ready(planned)
    ]
    remarks = _remarks(planned)
    if not ready:
        return "".join(f"{line}\n" for line in remarks)
    return "\n".join([
        "#!/bin/bash", "#SBATCH --job-name=otfkd", f"#SBATCH --array=1-{len(ready)}", "#SBATCH --signal=B:TERM@120",
        "#SBATCH --requeue", "#SBATCH --open-mode=append", *remarks,
        """task=$(sed -n "${SLURM_ARRAY_TASK_ID}p" <<'TASKS'""", *ready, "TASKS", ")", "trap 'kill -TERM $!' TERM",
        'eval "exec $task" &', "wait $!; code=$?", "[ $code -le 128 ] || { wait $!; code=$?; }",
        '[ $code -ne 130 ] || scontrol requeue "$SLURM_JOB_ID"', "exit $code", "",
    ])  # fmt: skip
