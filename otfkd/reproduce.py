"""From a table's definition to a finished table: plan the jobs, skip what is done, run the rest, build."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, ValidationError

from otfkd.composition import load_config, options, tables_dir
from otfkd.config import Config, EvaluateConfig
from otfkd.errors import UserError
from otfkd.prepare import RESULTS, prepare
from otfkd.reporting.tables import Table, build_table
from otfkd.results import Row, read_rows, write_rows
from otfkd.runs import train
from otfkd.scoring import score_model

log = logging.getLogger("otfkd")


class RowSpec(BaseModel):
    """One row of a table.

    Attributes:
        name: names the row in the file.
        label: what the table shows.
        experiment: what to train; None scores the encoder as it comes.
        teacher: the row whose run of the same seed is the initial teacher.
        overrides: further keys, in command-line style.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    label: str
    experiment: str | None
    teacher: str | None = None
    overrides: tuple[str, ...] = ()


class TableSpec(BaseModel):
    """A table's definition: a file in experiments/tables.

    Attributes:
        title: above the table.
        seeds: every trained row has one run a seed.
        profiles: which profiles it can be made at, and what must be said of each.
        rows: in the order shown; a row's teacher comes before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    seeds: tuple[int, ...]
    profiles: dict[str, str]
    rows: tuple[RowSpec, ...]


@dataclass(frozen=True)
class Job:
    """One model to train (with a seed) or to score (without)."""

    row: RowSpec
    seed: int | None


@dataclass
class Outcome:
    """What became of a table's jobs.

    Attributes:
        rows: each table row's selected test rows, one a seed.
        failures: job and reason; a failed job never shows as a finished one.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    failures: list[tuple[Job, str]] = field(default_factory=list)


def load_table(name: str) -> TableSpec:
    """Read a table's definition.

    Raises:
        UserError: there is no such table, or its file is not valid.
    """
    path = tables_dir() / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(table.stem for table in tables_dir().glob("*.yaml")))
        raise UserError(f"there is no table {name}: take one of {known}")
    try:
        spec = TableSpec.model_validate(OmegaConf.to_container(OmegaConf.load(path)))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path} is not valid: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    seen: set[str] = set()
    for row in spec.rows:
        if row.teacher is not None and row.teacher not in seen:
            raise UserError(f"{path}: the teacher of row {row.name} must be a trained row above it, not {row.teacher}")
        if row.experiment is not None:
            seen.add(row.name)
    return spec


def jobs(spec: TableSpec) -> list[Job]:
    """All jobs of a table, seed by seed, so that a teacher comes before its students."""
    untrained = [Job(row, None) for row in spec.rows if row.experiment is None]
    return untrained + [Job(row, seed) for seed in spec.seeds for row in spec.rows if row.experiment is not None]


def reproduce(name: str, profile: str, overrides: Sequence[str], output: Path) -> tuple[Table, Outcome]:
    """Make one table: every job that is not finished is run, one failure stops no other, and the table is written.

    Args:
        name: of the table.
        profile: the size at which to make it.
        overrides: further keys for every job, in command-line style; they win over a row's own.
        output: the folder that receives NAME.md and NAME.csv.

    Raises:
        UserError: an unknown table or profile.
    """
    spec = load_table(name)
    if profile not in spec.profiles or profile not in options("profile"):
        raise UserError(f"the table {name} is not made at profile {profile}: take one of {', '.join(spec.profiles)}")
    outcome = Outcome()
    folders: dict[tuple[str, int | None], Path] = {}
    todo = jobs(spec)
    for number, job in enumerate(todo, 1):
        log.info("[%d/%d] %s%s", number, len(todo), job.row.label, "" if job.seed is None else f", seed {job.seed}")
        try:
            rows, folder = _run(job, profile, overrides, folders)
        except Exception as error:
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            log.error("failed: %s", reason)
            outcome.failures.append((job, reason))
            continue
        folders[job.row.name, job.seed] = folder
        outcome.rows.setdefault(job.row.name, []).extend(rows)
    table = build_table(spec.title, [(row.name, row.label) for row in spec.rows], outcome.rows, spec.profiles[profile])
    table.write(output, name)
    return table, outcome


def _run(
    job: Job, profile: str, overrides: Sequence[str], folders: dict[tuple[str, int | None], Path]
) -> tuple[list[Row], Path]:
    if job.seed is None:
        return _score_untrained(profile, overrides)
    result = train(job_config(job, profile, overrides, folders))
    return [row for row in result.rows if row.split == "test" and row.checkpoint == "selected"], result.folder


def job_config(job: Job, profile: str, overrides: Sequence[str], folders: dict[tuple[str, int | None], Path]) -> Config:
    """The config of a training job: what the same `otfkd-train` command would compose.

    Raises:
        UserError: its teacher's run failed.
    """
    arguments = [f"experiment={job.row.experiment}", f"profile={profile}", f"seed={job.seed}"]
    if job.row.teacher is not None:
        teacher = folders.get((job.row.teacher, job.seed))
        if teacher is None:
            raise UserError(f"row {job.row.name} has no teacher: row {job.row.teacher} of seed {job.seed} failed")
        arguments.append(f"teacher='{teacher}'")
    return load_config([*arguments, *job.row.overrides, *overrides])


def _score_untrained(profile: str, overrides: Sequence[str]) -> tuple[list[Row], Path]:
    """Score the profile's encoder as it comes, once: the scores are kept like a run's."""
    config = load_config(["experiment=simcse", f"profile={profile}", *overrides])
    run = prepare(config)
    folder = Path(config.paths.runs) / "untrained" / run.hash
    if not (folder / RESULTS).is_file():
        values: dict[str, Any] = config.model_dump()
        wanted = {key: values[key] for key in ("model", "evaluation", "paths")}
        write_rows(folder / RESULTS, score_model(EvaluateConfig.model_validate({**wanted, "output": None})))
    return [row for row in read_rows(folder / RESULTS) if row.split == "test"], folder
