"""What a run has come to, in one look at its files, which a training may be writing: nothing is held or changed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from otfkd.base.errors import UserError
from otfkd.base.files import read_json_lines, whole_lines
from otfkd.config.differences import UNKNOWN, differences, flat, method_settings
from otfkd.config.schema import Config
from otfkd.config.stored import StoredConfig
from otfkd.runs.cost import clock
from otfkd.runs.failure import Failure
from otfkd.runs.folder import RunFolder, State, find_runs

T = TypeVar("T")
U = TypeVar("U")
Unknown = Literal["unknown"]
Score = float | Unknown | None


@dataclass(frozen=True)
class Summary:
    """A run's state, method and scores; `unknown` is what cannot be read, None what is not there, or not yet.

    Attributes:
        run: its folder.
        state: where it stands.
        reason: why it failed, or ended before its last step.
        method: its experiment.
        differs: the settings that are not the experiment's defaults, by dotted key.
        settings: all that its config says, by dotted key.
        seed: its seed.
        step: the last optimizer step that is known of.
        steps: how many the run has.
        dev: the newest dev score.
        best: the best one.
        test: the average of the selected model's test scores.
        minutes: of the clock, over all attempts.
        date: when it first began.
    """

    run: RunFolder
    state: State
    reason: str | None
    method: str
    differs: dict[str, Any] | Unknown
    settings: dict[str, Any]
    seed: int | Unknown
    step: int | Unknown
    steps: int | Unknown
    dev: Score
    best: Score
    test: Score
    minutes: Score
    date: datetime | Unknown | None


def find_run(config: Config) -> RunFolder | None:
    """The newest run whose folder says that it is of this config; to know its hash takes reading model and text."""
    asked = method_settings(config)
    if config.precision.compute == "auto":
        del asked["precision.compute"]  # the folder says what it meant there
    alike = [
        run
        for run in find_runs(Path(config.paths.runs) / config.name)
        if run.path.name == f"s{config.seed}"
        and asked.items() <= method_settings(_known(run.read_stored_config, StoredConfig())).items()
    ]
    return max(alike, key=lambda run: run.provenance_file.stat().st_mtime, default=None)


def read_summary(run: RunFolder) -> Summary:
    """What a run's files say; a file that cannot be read makes what it would say unknown."""
    state = run.state
    config = _known(run.read_stored_config, StoredConfig())
    differing = differences(config)
    unread: tuple[Unknown, Unknown, Unknown] = (UNKNOWN, UNKNOWN, UNKNOWN)
    step, dev, best = _known(lambda: _course(run.metrics_file), unread)
    minutes, date = _known(lambda: _times(run), unread[:2])
    return Summary(
        run=run, state=state, reason=_known(lambda: _reason(run, state), UNKNOWN),
        method=config.name or UNKNOWN, differs=UNKNOWN if differing is None else differing,
        settings=flat(config.model_dump(mode="json")), seed=UNKNOWN if config.seed is None else config.seed,
        step=step, steps=UNKNOWN if config.trainer is None else config.trainer.max_steps,
        dev=dev, best=best, test=_known(lambda: _test(run.results_file), UNKNOWN), minutes=minutes, date=date,
    )  # fmt: skip


def _known(read: Callable[[], T], unknown: U) -> T | U:
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, UserError):  # whatever a foreign or damaged file has in it
        return unknown


def _reason(run: RunFolder, state: State) -> str | None:
    match state:
        case "failed":
            # Between the look at the state and this one the run may have been tried again.
            return Failure.read(run.failure_file).reason if run.failure_file.is_file() else None
        case "finished":
            origin = run.read_provenance()
            return None if origin is None or origin.stopped is None else stopped_early(*origin.stopped)
    return None


def stopped_early(step: int, steps: int) -> str:
    """What is said of a run that dev scores ended."""
    return f"stopped early at step {step} of {steps} (trainer.patience)"


def _course(metrics: Path) -> tuple[int, Score, Score]:
    """The last step, the last dev score and the best."""
    lines = whole_lines(metrics)
    dev = [score for score in (json.loads(line).get("dev") for line in lines if b'"dev"' in line) if score is not None]
    step = json.loads(lines[-1])["step"] if lines else 0
    return step, dev[-1] if dev else None, max(dev, default=None)


def _times(run: RunFolder) -> tuple[Score, datetime | None]:
    timings = run.read_timings()
    begun = next((timing.at for timing in timings if timing.at), None)
    seconds, _, _ = clock(timings)
    return seconds / 60 if timings else None, None if begun is None else datetime.fromtimestamp(begun)


def _test(results: Path) -> Score:
    # The row as it is written: of whatever version it is, it has these.
    rows = read_json_lines(results) if results.is_file() else []
    chosen = [row for row in rows if (row["split"], row["checkpoint"]) == ("test", "selected")]
    score: float | None = chosen[0]["average"] if chosen else None
    return score
