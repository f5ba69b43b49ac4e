"""From tables' definitions to finished tables: plan the jobs, skip what is done, run the rest, publish, build."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from otfkd.composition import compose, load_config, prepare_overrides
from otfkd.config import Config, EvaluateConfig
from otfkd.data.files import read_json_lines, write_text
from otfkd.errors import UserError
from otfkd.prepare import RESULTS, Prepared, prepare
from otfkd.reporting.definition import RowSpec, TableSpec, load_table
from otfkd.reporting.tables import Table, build_table
from otfkd.results import Row, read_rows, write_rows
from otfkd.runs import train
from otfkd.scoring import score_model

log = logging.getLogger("otfkd")

_LATER = "filled-in-by-another-row"  # a path that is known once that row's run has its folder


@dataclass(frozen=True)
class Job:
    """One model to train (with a seed) or to score (without), for one row of a table.

    Attributes:
        table: the table's name.
        row: what to train.
        model: the backbone; None for the profile's own.
        seed: of the run; None for an encoder as it comes.
        transfer: whether the transfer tasks are wanted of it.
        arguments: of the training command, but for what other rows' runs fill in.
        config: composed of them when the plan was made, so that editing a file meanwhile changes nothing.
    """

    table: str
    row: RowSpec
    model: str | None
    seed: int | None
    transfer: bool
    arguments: tuple[str, ...]
    config: Config

    @property
    def key(self) -> tuple[str, str | None, str, int | None]:
        return (self.table, self.model, self.row.name, self.seed)

    def __str__(self) -> str:
        parts = (self.table, self.model, self.row.label, None if self.seed is None else f"seed {self.seed}")
        return ", ".join(part for part in parts if part is not None)


# The folders of finished jobs by their keys.
Folders = Mapping[tuple[str, str | None, str, int | None], Path]


class Published(BaseModel):
    """A line of results/PROFILE.jsonl: a copy of a run's row, and which table's row it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    row: str
    model: str | None
    result: Row


@dataclass
class Outcome:
    """What became of the jobs.

    Attributes:
        published: the test rows that tables show, of every job that succeeded.
        failures: job and reason; a failed job never shows as a finished one.
    """

    published: list[Published] = field(default_factory=list)
    failures: list[tuple[Job, str]] = field(default_factory=list)


def plan_jobs(tables: Sequence[str], profile: str, overrides: Sequence[str] = ()) -> list[Job]:
    """All jobs of some tables, seed by seed, so that a teacher comes before its students.

    Args:
        tables: their names.
        profile: the size at which to make them.
        overrides: further keys for every job, in command-line style; they win over a row's own.

    Raises:
        UserError: an unknown table or profile, or a row that does not compose.
    """
    return [job for name in tables for job in _plan_table(name, load_table(name, profile), profile, overrides)]


def _plan_table(name: str, spec: TableSpec, profile: str, overrides: Sequence[str]) -> list[Job]:
    at, rows = spec.profiles[profile], spec.at(profile)
    seeded: list[tuple[int | None, RowSpec]] = [(None, row) for row in rows if row.experiment is None]
    seeded += [(seed, row) for seed in at.seeds for row in rows if row.experiment is not None]
    planned = []
    for model in at.models or (None,):
        own = [] if model is None else at.models[model]
        for seed, row in seeded:
            arguments = [f"experiment={row.experiment or 'simcse'}", f"profile={profile}"]
            arguments += [] if model is None or row.student is not None else [f"model={model}"]
            arguments += [] if seed is None else [f"seed={seed}"]
            arguments += [*own, *row.overrides, *overrides]
            # Any path composes; the one that is meant is known when the other row's run has its folder.
            config = load_config([*arguments, *(f"{what}={_LATER}" for what in _starts(row))])
            planned.append(Job(name, row, model, seed, spec.kind == "transfer", tuple(arguments), config))
    return planned


def _starts(row: RowSpec) -> dict[str, str]:
    """Which config groups of a row other rows' runs fill in: `teacher`, `model`."""
    return {what: other for what, other in (("teacher", row.teacher), ("model", row.student)) if other is not None}


def inputs(job: Job, folders: Folders) -> dict[str, Path]:
    """The runs a job starts from, by the config group they fill in.

    Raises:
        UserError: such a run is not there, because its job failed or is still to come.
    """
    found = {}
    for what, row in _starts(job.row).items():
        folder = folders.get((job.table, job.model, row, job.seed))
        if folder is None:
            raise UserError(
                f"row {job.row.name} has no {what}: row {row} of seed {job.seed} failed or is still to come"
            )
        found[what] = folder
    return found


def filled(job: Job, folders: Folders) -> Config:
    """A job's config, with the runs of other rows in their places.

    Raises:
        UserError: as `inputs`.
    """
    starts = inputs(job, folders)
    return job.config.model_copy(
        update={
            what: getattr(job.config, what).model_copy(update={"path": str(folder)}) for what, folder in starts.items()
        }
    )


def run_jobs(jobs: Sequence[Job]) -> Outcome:
    """Run every job that is not finished; one failure stops no other."""
    outcome = Outcome()
    folders: dict[tuple[str, str | None, str, int | None], Path] = {}
    for number, job in enumerate(jobs, 1):
        log.info("[%d/%d] %s", number, len(jobs), job)
        try:
            row, folders[job.key] = _run(job, folders)
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            log.error("failed: %s", reason)
            outcome.failures.append((job, reason))
            continue
        outcome.published.append(Published(table=job.table, row=job.row.name, model=job.model, result=row))
    return outcome


def _run(job: Job, folders: Folders) -> tuple[Row, Path]:
    if job.seed is None:
        return _score_untrained(job)
    result = train(filled(job, folders))
    selected = next(row for row in result.rows if row.split == "test" and row.checkpoint == "selected")
    return (_transfer(job, result.folder, selected) if job.transfer else selected), result.folder


def _score_untrained(job: Job) -> tuple[Row, Path]:
    """Score an encoder as it comes, once: the scores are kept like a run's."""
    run = prepare(job.config)
    folder = untrained_folder(run)
    if not (folder / RESULTS).is_file():
        values = job.config.model_dump()
        wanted = {key: values[key] for key in ("model", "evaluation", "paths")}
        write_rows(folder / RESULTS, score_model(EvaluateConfig.model_validate({**wanted, "output": None})))
    row = next(row for row in read_rows(folder / RESULTS) if row.split == "test")
    return (_transfer(job, folder, row) if job.transfer else row), folder


def untrained_folder(run: Prepared) -> Path:
    """Where the scores of an encoder as it comes are kept."""
    return Path(run.config.paths.runs) / "untrained" / run.hash


def _transfer(job: Job, folder: Path, scored: Row) -> Row:
    """The transfer scores of a model that has STS scores, kept beside them."""
    path = folder / "transfer.jsonl"
    if not path.is_file():
        model = job.config.model if job.seed is None else None
        arguments = [f"model={folder if model is None else model.path}", "evaluation=transfer"]
        arguments += [f"model.pooler={model.pooler}"] if model is not None and model.pooler is not None else []
        composed = compose(prepare_overrides(arguments, EvaluateConfig), "evaluate")
        config = EvaluateConfig.from_hydra(composed).model_copy(update={"paths": job.config.paths})
        (row,) = score_model(config)
        same = ("name", "seed", "checkpoint", "step", "generation", "config_hash", "teacher_sha256", "cost")
        write_rows(path, [row.model_copy(update={key: getattr(scored, key) for key in same})])
    return read_rows(path)[0]


def publish(outcome: Outcome, path: Path) -> None:
    """Write copies of the rows; those of other tables in the file stay as they are."""
    made = {published.table for published in outcome.published}
    kept = [one for one in read_published(path) if one.table not in made] if path.is_file() else []
    rows = sorted([*kept, *outcome.published], key=lambda one: one.table)
    write_text(path, "".join(one.model_dump_json() + "\n" for one in rows))


def read_published(path: Path) -> list[Published]:
    """Every line of a results file, each checked."""
    return [Published.model_validate(line) for line in read_json_lines(path)]


def build(name: str, profile: str, published: Sequence[Published]) -> Table:
    """A table from published rows alone."""
    spec = load_table(name, profile)
    measured: dict[str | None, dict[str, list[Row]]] = {model: {} for model in spec.profiles[profile].models or (None,)}
    for one in published:
        if one.table == name:
            measured.setdefault(one.model, {}).setdefault(one.row, []).append(one.result)
    return build_table(spec, profile, measured)


def differing(experiments: Path) -> list[Path]:
    """The built files of a folder that its published rows do not give byte for byte."""
    found = []
    for results in sorted((experiments / "results").glob("*.jsonl")):
        published = read_published(results)
        for name in sorted({one.table for one in published}):
            for file, text in build(name, results.stem, published).files(name).items():
                path = experiments / "built" / results.stem / file
                if not path.is_file() or path.read_text(encoding="utf-8") != text:
                    found.append(path)
    return found
