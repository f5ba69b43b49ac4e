"""From tables' definitions to result rows: plan the jobs, skip what is done, run the rest."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from otfkd.base.errors import Interrupted, UserError, exits_as_errors, refusals_as_user_errors
from otfkd.base.progress import Pace
from otfkd.config.composition import key_of, load_evaluate_config, loaded, prepare_overrides
from otfkd.config.schema import Config, EvaluateConfig
from otfkd.config.sections import EvaluationConfig, ModelConfig
from otfkd.evaluation.scoring import score_model
from otfkd.runs.failure import Failure, told
from otfkd.runs.folder import RunFolder
from otfkd.runs.rows import Row, read_rows, write_rows
from otfkd.runs.whole import unreadable
from otfkd.tables.definition import RowSpec, TableSpec
from otfkd.tables.published import Key, Published
from otfkd.training.run import Run, prepare
from otfkd.training.train import train

log = logging.getLogger("otfkd")

_LATER = "filled-in-by-another-row"  # a path that is known once that row's run has its folder
# What a table decides, or has a flag of its own.
_OWN_KEYS = ("experiment", "profile", "seed", "dry_run", "fresh")
# What makes no run that a table could show.
_TRIALS = ("debug", "trainer.fast_dev_run", "trainer.overfit_batches")

# The folders of finished jobs.
Folders = Mapping[Key, Path]


@dataclass(frozen=True)
class Job:
    """One model to train (with a seed) or to score (without), for one row of a table.

    Attributes:
        table: the table's name.
        row: what to train.
        model: the backbone; None for the profile's own.
        seed: of the run; None for an encoder as it comes.
        arguments: of the training command, but for what other rows' runs fill in.
        config: composed of them when the plan was made, so that editing a file meanwhile changes nothing.
        transfer: how the transfer tasks are scored, composed then too; None where they are not wanted.
    """

    table: str
    row: RowSpec
    model: str | None
    seed: int | None
    arguments: tuple[str, ...]
    config: Config
    transfer: EvaluationConfig | None

    @property
    def key(self) -> Key:
        return (self.table, self.model, self.row.name, self.seed)

    @property
    def starts(self) -> dict[str, Key]:
        """The jobs whose runs it starts from, by the config group that they fill in."""
        return {group: (self.table, self.model, row, self.seed) for group, row in self.row.starts.items()}

    def __str__(self) -> str:
        parts = (self.table, self.model, self.row.label, None if self.seed is None else f"seed {self.seed}")
        return ", ".join(part for part in parts if part is not None)


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        published: the test rows that tables show, of every job that succeeded.
        failures: job and what ended it; a failed job never shows as a finished one.
    """

    published: list[Published] = field(default_factory=list)
    failures: list[tuple[Job, Failure]] = field(default_factory=list)


def table_jobs(tables: Mapping[str, TableSpec], profile: str, overrides: Sequence[str] = ()) -> list[Job]:
    """All jobs of some tables, seed by seed, so that a teacher comes before its students.

    Args:
        tables: their definitions by name.
        profile: the size at which to make them.
        overrides: further keys for every job that reads them, in command-line style; they win over a row's own.

    Raises:
        UserError: a row that does not compose, or a key that no row reads or that is not the caller's to give.
    """
    prepare_overrides(overrides, Config)
    for override in overrides:
        key = key_of(override)
        if key in _OWN_KEYS:
            raise UserError(f"{key} is not given by hand, since a table has its own: leave {override} out")
        if key in _TRIALS:
            raise UserError(f"{override} makes no run that a table shows: leave it out")
        if key.startswith(("hydra.", "hydra/")):
            raise UserError(f"{override} starts no job of a table: add it to the sweeps that --print-commands prints")
    jobs = [job for name, spec in tables.items() for job in _plan_table(name, spec, profile, overrides)]
    _check_read(overrides, jobs)
    return jobs


def _check_read(overrides: Sequence[str], jobs: Sequence[Job]) -> None:
    for override in overrides:
        if not any(override in job.arguments for job in jobs):
            raise UserError(
                f"no row of {', '.join(dict.fromkeys(job.table for job in jobs))} reads {override}: leave it out"
            )


def _plan_table(name: str, spec: TableSpec, profile: str, overrides: Sequence[str]) -> list[Job]:
    at, rows = spec.profiles[profile], spec.at(profile)
    transfer = _transfer_evaluation() if spec.kind == "transfer" else None
    seeded: list[tuple[int | None, RowSpec]] = [(None, row) for row in rows if row.experiment is None]
    seeded += [(seed, row) for seed in at.seeds for row in rows if row.experiment is not None]
    planned = []
    for model in at.models or (None,):
        composed = {row.name: _arguments(spec, profile, row, model, overrides) for row in rows}
        for seed, row in seeded:
            arguments, config = composed[row.name]
            if seed is not None:
                arguments, config = (*arguments, f"seed={seed}"), config.model_copy(update={"seed": seed})
            planned.append(Job(name, row, model, seed, arguments, config, transfer))
        _check_read(at.models.get(model or "", ()), [job for job in planned if job.model == model])
    return planned


def _arguments(
    spec: TableSpec, profile: str, row: RowSpec, model: str | None, overrides: Sequence[str]
) -> tuple[tuple[str, ...], Config]:
    """A row's training command but for its seed and for what other rows' runs fill in, and what it composes."""
    shared = [*([] if model is None else spec.profiles[profile].models[model]), *overrides]
    arguments = [f"experiment={row.experiment or 'simcse'}", f"profile={profile}"]
    if model is not None:
        arguments += [*([] if row.student else [f"model={model}"]), *spec.profiles[profile].models[model]]
    arguments += [*row.overrides, *overrides]
    # Any path composes; the one that is meant is known when the other row's run has its folder.
    starts = [f"{group}={_LATER}" for group in row.starts]
    config, refusals = loaded([*arguments, *starts], Config)
    for text, why in refusals.items():
        if key_of(text) not in map(key_of, shared):
            raise UserError(f"row {row.name}: {why}")
    if refusals:
        idle = set(map(key_of, refusals))
        arguments = [text for text in arguments if text not in shared or key_of(text) not in idle]
        config, _ = loaded([*arguments, *starts], Config)
    if config.evaluation.suite == "pairs" and not config.evaluation.tests:
        raise UserError(f"row {row.name} has no test, whose scores a table shows: add evaluation.test=FILE")
    return tuple(arguments), config


def _transfer_evaluation() -> EvaluationConfig:
    return load_evaluate_config(["evaluation=transfer"]).evaluation


def inputs(job: Job, folders: Folders) -> dict[str, Path]:
    """The runs a job starts from, by the config group they fill in.

    Raises:
        UserError: such a run is not there, because its job failed or is still to come.
    """
    for group, key in job.starts.items():
        if key not in folders:
            raise UserError(
                f"row {job.row.name} has no {group}: row {key[2]} of seed {job.seed} failed or is still to come"
            )
    return {group: folders[key] for group, key in job.starts.items()}


def filled(job: Job, folders: Folders) -> Config:
    """A job's config, with the runs of other rows in their places.

    Raises:
        UserError: as `inputs`.
    """
    config = job.config
    starts = {group: {"path": str(folder)} for group, folder in inputs(job, folders).items()}
    return config.model_copy(
        update={group: getattr(config, group).model_copy(update=path) for group, path in starts.items()}
    )


def run_jobs(jobs: Sequence[Job], finished: Callable[[Published], None] | None = None) -> Outcome:
    """Run every job that is not finished; one failure stops no other.

    Args:
        jobs: teachers before their students.
        finished: hears of each job as soon as it is done.

    Raises:
        Interrupted: a signal came; it says which jobs had failed by then.
    """
    outcome = Outcome()
    folders: dict[Key, Path] = {}
    pace = Pace(len(jobs))
    for number, job in enumerate(jobs, 1):
        log.info("[%d/%d] %s%s", number, len(jobs), job, pace.left(number - 1))
        try:
            with refusals_as_user_errors(), exits_as_errors():
                made = _run(job, folders)
        except (Interrupted, KeyboardInterrupt) as error:
            failed = [told(outcome.failures)] if outcome.failures else []
            raise Interrupted("; ".join([str(error) or "interrupted", *failed])) from error
        except Exception as error:
            failure = Failure.of(error)
            log.error("failed: %s", failure.reason)
            outcome.failures.append((job, failure))
            continue
        folders[job.key] = Path(made.folder)
        outcome.published.append(made)
        if finished is not None:
            finished(made)
    return outcome


def _run(job: Job, folders: Folders) -> Published:
    """What is to be published of a job."""
    if job.seed is None:
        folder, rows = _score_untrained(job)
    else:
        result = train(filled(job, folders))
        folder, rows = result.folder, result.rows
    of = {(row.split, row.checkpoint): row for row in rows}
    chosen: Literal["given", "selected"] = "given" if job.seed is None else "selected"
    dev, test = of["dev", chosen], of["test", chosen]
    (dev_score,) = dev.scores.values()
    return Published(
        table=job.table, row=job.row.name, model=job.model, folder=str(folder.absolute()),
        arguments=tuple(one for one in job.arguments if not one.startswith("paths.")),
        geometry=dev.geometry, dev=dev_score["all"],
        result=test if job.transfer is None else _transfer(job, job.transfer, folder, test),
        last=of.get(("test", "last")) if job.transfer is None else None,
        made=_day(folder),
    )  # fmt: skip


def _day(folder: Path) -> str | None:
    """When a run ended; None for an encoder that was not trained, and for runs that did not note the time."""
    at = max((event.at for event in RunFolder(folder).read_timings()), default=0.0)
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" if at else None


def _score_untrained(job: Job) -> tuple[Path, list[Row]]:
    """Score an encoder as it comes, once: the scores are kept like a run's."""
    folder = untrained_folder(prepare(job.config))
    if job.config.fresh or not folder.finished or unreadable(folder):
        config = job.config
        wanted = EvaluateConfig(model=config.model, evaluation=config.evaluation, output=None, paths=config.paths)
        folder.finish(score_model(wanted))
    return folder.path, folder.read_rows()


def untrained_folder(run: Run) -> RunFolder:
    """Where the scores of an encoder as it comes are kept."""
    return RunFolder(Path(run.config.paths.runs) / "untrained" / run.hash)


def _transfer(job: Job, evaluation: EvaluationConfig, folder: Path, scored: Row) -> Row:
    """The transfer scores of a model that has STS scores, kept beside them."""
    path = RunFolder(folder).transfer_file
    if job.config.fresh or not path.is_file():
        model = job.config.model
        if job.seed is not None:
            model = ModelConfig(path=str(folder), pooler=None, layers=None, head=True)
        config = EvaluateConfig(model=model, evaluation=evaluation, output=None, paths=job.config.paths)
        (row,) = score_model(config)
        same = (
            "name", "seed", "checkpoint", "step", "generation", "config_hash", "teacher_sha256", "corpus_sha256",
            "cost", "parts",
        )  # fmt: skip
        write_rows(path, [row.model_copy(update={key: getattr(scored, key) for key in same})])
    return read_rows(path)[0]
