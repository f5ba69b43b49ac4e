"""Making tables: published rows stand, what they do not answer is trained, and each finished run is published."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.tables.answers import Answers, Asked, find_answers
from otfkd.tables.built import build, results_file
from otfkd.tables.definition import TableSpec
from otfkd.tables.jobs import Job, Outcome, run_jobs
from otfkd.tables.published import Key, Published, order_of, publish, read_published
from otfkd.tables.status import job_states

log = logging.getLogger("otfkd")


def answers(jobs: Sequence[Job], profile: str, experiments: Path, *, fresh: bool) -> Answers:
    """What the rows that are published at a profile answer."""
    path = results_file(experiments, profile)
    return find_answers(jobs, read_published(path) if path.is_file() else [], fresh=fresh)


def with_seeds(specs: Mapping[str, TableSpec], profile: str, seeds: tuple[int, ...]) -> dict[str, TableSpec]:
    """Definitions that ask for other seeds at a profile."""
    changed = {}
    for name, spec in specs.items():
        at = spec.profiles[profile].model_copy(update={"seeds": seeds})
        changed[name] = spec.model_copy(update={"profiles": {**spec.profiles, profile: at}})
    return changed


def make_tables(
    specs: Mapping[str, TableSpec],
    jobs: Sequence[Job],
    profile: str,
    experiments: Path,
    *,
    fresh: bool = False,
    train: bool = True,
) -> tuple[Outcome, dict[str, str]]:
    """Train what no published row answers, and build all tables of the profile.

    Each run's row is published as soon as the run is finished, and the tables are built however this ends. So what is
    stopped midway leaves the rows of what is finished, and tables that mark what is missing.

    Args:
        specs: the definitions of the tables, by name.
        jobs: of these tables, of all their seeds or of some.
        profile: at which they are made.
        experiments: gets results/ and built/.
        fresh: let no row answer, and train finished runs again.
        train: what is not finished, or only publish what is.

    Returns:
        What became of the jobs that were run, and what was built.

    Raises:
        UserError: some seeds are asked for, and rows of the others are no longer what the definition asks for.
    """
    path, order = results_file(experiments, profile), order_of(specs, profile)
    found = answers(jobs, profile, experiments, fresh=fresh)
    dropped = _giving_way(jobs, found, path, fresh=fresh)
    publish(found.found.values(), path, order, dropped)
    left = found.to_run if train else [one.job for one in job_states(found.to_run) if one.done]
    log.info("%d of %d jobs are published already; %d to do", len(found.found), len(jobs), len(left))

    def finished(made: Published) -> None:
        # A run that only others start from has its row already.
        if made.key not in found.found:
            asked = found.asked.get(made.key)
            publish([made.model_copy(update={"dev_in_test": asked and asked.dev_in_test})], path, order)

    try:
        outcome = run_jobs(_anew(left, found.asked) if fresh else left, finished)
    finally:
        files = build(experiments, profile, specs)
    return outcome, files


def _giving_way(jobs: Sequence[Job], found: Answers, path: Path, *, fresh: bool) -> set[Key]:
    """The rows that are no longer shown: they are made again, or are no rows of the definition any more."""
    asked = {job.key for job in jobs}
    rows = {key[:3] for key in asked}
    lost = [one for one in found.stale if one.key not in asked and one.key[:3] in rows]
    if lost:
        first = lost[0]
        raise UserError(
            f"{path} has seed {first.result.seed} of row {first.row} of {first.table} by another config, data or "
            "protocol, so other seeds cannot stand beside it: make it again too (--seeds), or delete its line"
        )
    for one in found.stale:
        log.warning(
            "the published row %s of %s, seed %s, is of another config, data or protocol and gives way",
            one.row, one.table, one.result.seed,
        )  # fmt: skip
    return {one.key for one in found.stale} | (asked if fresh else set())


def _anew(left: Sequence[Job], known: Mapping[Key, Asked]) -> list[Job]:
    """The jobs, told to train again what is finished; a run that several tables show is trained once."""
    runs: set[tuple[str, int | None]] = set()
    jobs = []
    for job in left:
        asked = known.get(job.key)
        run = None if asked is None else (asked.hash, job.seed)
        jobs.append(replace(job, config=job.config.model_copy(update={"fresh": run is None or run not in runs})))
        if run is not None:
            runs.add(run)
    return jobs
