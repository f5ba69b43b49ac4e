"""Which jobs a published row answers, so that nothing is trained for them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.data.transfer import checksum
from otfkd.evaluation.rows import sts_protocol, transfer_protocol
from otfkd.evaluation.scoring import transfer_tasks
from otfkd.tables.jobs import Job
from otfkd.tables.published import Key, Published
from otfkd.training.run import Identity, identify

log = logging.getLogger("otfkd")


@dataclass(frozen=True)
class Asked:
    """What a row must record to answer a job.

    Attributes:
        hash: of its config and of what the run reads: model, teacher, text and the suite that selects.
        corpus_sha256: of what it learns from.
        suite_sha256: of the pairs or examples it is scored on.
        protocol: how it is scored.
        dev_in_test: how many pairs of each test task are dev pairs too.
    """

    hash: str
    corpus_sha256: str
    suite_sha256: str
    protocol: str
    dev_in_test: dict[str, int] | None

    def is_told_by(self, one: Published) -> bool:
        """Whether a row of the same seed is what a run would give."""
        result = one.result
        return (
            one.hash == self.hash
            and result.corpus_sha256 in (None, self.corpus_sha256)
            and (result.suite_sha256, result.protocol) == (self.suite_sha256, self.protocol)
            and result.split == "test"
            and result.checkpoint != "last"
        )


@dataclass(frozen=True)
class Answers:
    """What published rows answer, and what they do not.

    Attributes:
        found: the rows that answer, by job; one of another table is a copy.
        to_run: what is left to do: jobs that no row answers, and those whose runs they start from.
        asked: what was asked of each job; not there where its inputs cannot be found, which the job itself will say.
        stale: rows of these tables that no longer are what their definition asks for.
    """

    found: dict[Key, Published] = field(default_factory=dict)
    to_run: list[Job] = field(default_factory=list)
    asked: dict[Key, Asked] = field(default_factory=dict)
    stale: list[Published] = field(default_factory=list)


def find_answers(jobs: Sequence[Job], published: Sequence[Published], *, fresh: bool = False) -> Answers:
    """Compare what jobs would compute with what rows record.

    A run whose teacher or student is an earlier run is known by that run's hash, so none of them need be on this
    machine; model, text and tasks are read.

    Args:
        jobs: a table's, teachers before their students.
        published: all rows.
        fresh: let no row answer.
    """
    asked = _asked(jobs)
    found = {} if fresh else {job.key: one for job in jobs if (one := _answer(job, asked, published)) is not None}
    needed: set[Key] = set()
    for job in reversed(jobs):
        if job.key not in found or job.key in needed:
            needed |= {job.key, *job.starts.values()}
    return Answers(found, [job for job in jobs if job.key in needed], asked, _stale(jobs, asked, published))


def _answer(job: Job, asked: Mapping[Key, Asked], published: Sequence[Published]) -> Published | None:
    """The row of a job's own table, or else that of another table with the same run."""
    wanted = asked.get(job.key)
    if wanted is None:
        return None
    told = [one for one in published if one.result.seed == job.seed and wanted.is_told_by(one)]
    own = next((one for one in told if one.key == job.key), told[0] if told else None)
    if own is None:
        return None
    placed = {"table": job.table, "model": job.model, "row": job.row.name}
    return own.model_copy(update={**placed, "dev_in_test": wanted.dev_in_test})


def _stale(jobs: Sequence[Job], asked: Mapping[Key, Asked], published: Sequence[Published]) -> list[Published]:
    """Rows of the jobs' tables that have another identity than their row's, or that no row is left for."""
    tables = {job.table for job in jobs}
    of_row = {key[:3]: one for key, one in asked.items()}
    unknown = {job.key[:3] for job in jobs} - of_row.keys()
    return [
        one
        for one in published
        if one.table in tables
        and one.key[:3] not in unknown
        and ((wanted := of_row.get(one.key[:3])) is None or not wanted.is_told_by(one))
    ]


def _asked(jobs: Sequence[Job]) -> dict[Key, Asked]:
    """What each job asks for; the seeds of a row ask for the same, unless it names a teacher of its own."""
    asked: dict[Key, Asked] = {}
    known: dict[tuple[object, ...], Asked] = {}
    for job in jobs:
        if any(key not in asked for key in job.starts.values()):
            continue
        earlier = {group: asked[key].hash for group, key in job.starts.items()}
        given = job.config.teacher.source == "model" and "teacher" not in earlier
        alike = (*job.key[:3], job.seed if given else None, *earlier.values())
        if alike not in known:
            try:
                known[alike] = _of(job, identify(job.config, earlier))
            except UserError as error:
                log.debug("no row can answer %s: %s", job, error)
                continue
        asked[job.key] = known[alike]
    return asked


def _of(job: Job, identity: Identity) -> Asked:
    config = job.config
    if job.transfer is not None:
        tasks = transfer_tasks(job.transfer, config.paths.data_root, Path(config.paths.cache))
        return Asked(
            identity.hash, identity.corpus_sha256, checksum(tasks), transfer_protocol(job.transfer), dev_in_test=None
        )
    suite = identity.suite
    protocol = sts_protocol(suite, config.evaluation)
    return Asked(identity.hash, identity.corpus_sha256, suite.checksum, protocol, suite.dev_in_test())
