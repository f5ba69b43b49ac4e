"""A trial of a run, `trainer.fast_dev_run=true`: each thing that it does, once or twice, in a folder that goes away."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from otfkd.base.processes import broadcast
from otfkd.config.schema import Config
from otfkd.data.sts import Subset, Suite, Task
from otfkd.runs.rotations import Refused
from otfkd.training.run import Run, prepare

_STEPS = 2
_PAIRS = 16  # of each subset of a task
_ANY = 200.0  # a gate that every dev score passes

AnyTask = TypeVar("AnyTask", bound=Task)


@contextlib.contextmanager
def small_run(config: Config) -> Iterator[Run]:
    """A run in two steps, scored on a few pairs, with a folder of its own for as long as the block lasts.

    Raises:
        UserError: whatever the run itself would be refused for.
    """
    folder = broadcast(lambda: Path(tempfile.mkdtemp(prefix="otfkd-")))
    try:
        run = broadcast(lambda: prepare(_in_two_steps(config, folder)))
        yield replace(run, suite=_few_pairs(run.suite))
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # every process, for some may be on another machine


def _in_two_steps(config: Config, runs: Path) -> Config:
    """What a run is in two steps: what is due at all is due after the first, and where it is due anyway the second."""
    values = config.model_dump()
    values |= {"fresh": False, "resume": "auto"}
    values["paths"]["runs"] = str(runs)
    values["logger"]["name"] = "none"
    values["trainer"] |= {"max_steps": _STEPS, "checkpoint_every": 1, "patience": None, "fast_dev_run": False}
    values["evaluation"]["every"] = 1 if config.schedule.asks_dev else None
    values["teacher"]["precomputed"] = False  # which would embed the whole text
    if config.teacher.source == "self":
        values["teacher"]["warmup_steps"] = 1
    values["schedule"] |= _at_once(config)
    return Config.model_validate(values)


def _at_once(config: Config) -> dict[str, Any]:
    """The schedule's keys for what it does to be due after the first step."""
    schedule = config.schedule
    due: dict[str, Any] = {"start": 0}
    if schedule.trigger not in ("never", "follow"):
        due |= {"trigger": "every", "every": 1}
    if schedule.gate is not None:
        due["gate"] = _ANY
    if schedule.cache_every is not None:
        due["cache_every"] = 1
    return due


def _few_pairs(suite: Suite) -> Suite:
    return replace(suite, dev=_few(suite.dev), test=tuple(map(_few, suite.test)))


def _few(task: AnyTask) -> AnyTask:
    """A task of some pairs of all grades, so that its score is defined."""
    return replace(task, subsets=tuple(Subset(subset.name, _spread(subset.pairs)) for subset in task.subsets))


def _spread(pairs: Sequence[tuple[str, str, float]]) -> tuple[tuple[str, str, float], ...]:
    ranked = sorted(pairs, key=lambda pair: pair[2])
    last, count = len(ranked) - 1, min(_PAIRS, len(ranked))
    return tuple(ranked[last * place // max(1, count - 1)] for place in range(count))


def told(run: Run) -> str:
    """What a trial did, from the files that it left."""
    dev = run.folder.read_dev_scores()
    rotations = [record for record in run.folder.read_rotations() if not isinstance(record, Refused)]
    tests = ", ".join(f"{task.size} of {task.name}" for task in run.suite.test)
    parts = [
        _count(_STEPS, "optimizer step"),
        f"{_count(len(dev), 'dev score')} of {run.suite.dev.size} pairs",
        _count(len(rotations), "new teacher"),
        _count(len(run.plan.checkpoint), "checkpoint"),
        f"a model exported and scored on {tests or 'dev'}",
    ]
    return f"the run works: {', '.join(parts)}; these are no results, and nothing is kept"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
