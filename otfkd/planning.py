"""What making tables would do: every job and its state, an estimate of the time, or the commands to run by hand."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from otfkd.cost import forwards
from otfkd.prepare import RESULTS, Prepared, prepare
from otfkd.reproduce import Job, filled, inputs, untrained_folder
from otfkd.results import Cost, read_rows


@dataclass(frozen=True)
class Planned:
    """A job as things stand.

    Attributes:
        job: what is to be done.
        state: whether it is done; `waits` for a run it starts from, `shared` with an earlier job.
        starts: the runs it starts from, by config group.
        cost: what it took, where it is finished.
    """

    job: Job
    state: Literal["finished", "interrupted", "new", "waits", "shared"]
    starts: dict[str, Path]
    cost: Cost | None = None


# What a job computes: its arguments, its seed, and the same of the jobs it starts from.
Lineage = tuple[Any, ...]


def look(jobs: Sequence[Job]) -> Iterator[Planned]:
    """Every job as things stand, in order."""
    finished: dict[tuple[str, str | None, str, int | None], Path] = {}
    lineages: dict[tuple[str, str | None, str, int | None], Lineage] = {}
    seen: set[Lineage] = set()
    for job in jobs:
        rows = [row for row in (job.row.teacher, job.row.student) if row is not None]
        before = [(job.table, job.model, row, job.seed) for row in rows]
        lineage = lineages[job.key] = (job.arguments, job.seed, tuple(lineages[key] for key in before))
        waits = any(key not in finished for key in before)
        starts = {} if waits else inputs(job, finished)
        folder = None if waits else _folder(job, prepare(filled(job, finished)))
        done = folder is not None and (folder / RESULTS).is_file()
        if folder is not None and done:
            finished[job.key] = folder
        if lineage in seen:
            yield Planned(job, "shared", starts)
        elif folder is None:
            yield Planned(job, "waits", starts)
        elif done:
            yield Planned(job, "finished", starts, read_rows(folder / RESULTS)[0].cost)
        else:
            begun = (folder / "checkpoints" / "last.ckpt").is_file()
            yield Planned(job, "interrupted" if begun else "new", starts)
        seen.add(lineage)


def _folder(job: Job, run: Prepared) -> Path:
    return run.folder if job.seed is not None else untrained_folder(run)


_WORDS = {
    "finished": "finished",
    "interrupted": "interrupted, goes on",
    "new": "new",
    "waits": "new, waits for the run it starts from",
    "shared": "the same run as a row above",
}


def overview(jobs: Sequence[Job]) -> str:
    """Every job with its state, then an estimate of the time that is left."""
    planned = list(look(jobs))
    width = max(len(str(one.job)) for one in planned)
    lines = [f"{one.job!s:<{width}}  {_WORDS[one.state]}" for one in planned]
    return "\n".join([*lines, _estimate(planned)]) + "\n"


def _estimate(planned: Sequence[Planned]) -> str:
    left = [one.job for one in planned if one.state in ("new", "interrupted", "waits") and one.job.seed is not None]
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


def commands(jobs: Sequence[Job]) -> str:
    """The training commands that can run now, in any order or at once; what waits for them is counted below."""
    planned = list(look(jobs))
    lines = [
        shlex.join(["otfkd-train", *one.job.arguments, *(f"{what}='{folder}'" for what, folder in one.starts.items())])
        for one in planned
        if one.state in ("new", "interrupted") and one.job.seed is not None
    ]
    waiting = sum(one.state == "waits" for one in planned)
    if waiting:
        lines.append(f"# {waiting} more start from runs that are not finished: print the commands again after these")
    return "\n".join([*lines, ""])


def slurm_array(jobs: Sequence[Job]) -> str:
    """A Slurm script with one array task for each of the `commands`; give it to sbatch with your own limits."""
    lines = commands(jobs).splitlines()
    ready = [line for line in lines if not line.startswith("#")]
    tasks = "\n".join(ready)
    return (
        f"#!/bin/bash\n#SBATCH --job-name=otfkd\n#SBATCH --array=1-{len(ready)}\n#SBATCH --signal=TERM@120\n"
        f"#SBATCH --requeue\n{''.join(line + chr(10) for line in lines if line.startswith('#'))}"
        f'eval "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" <<\'TASKS\'\n{tasks}\nTASKS\n)"\n'
    )
