"""Whether methods differ from a baseline, by their finished runs: their scores by seed, and the pairs behind these."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from otfkd.base.errors import UserError, first_line
from otfkd.evaluation.significance import (
    Array,
    Verdict,
    adjust,
    bootstrap_pairs,
    over_seeds,
    percentile_interval,
    williams_spearman,
)
from otfkd.reporting.graded_pairs import cosines, embed_pairs, grades, read_suite, scored_model
from otfkd.runs.folder import RunFolder, State, find_runs, is_kept_aside
from otfkd.runs.rows import Row, read_rows

log = logging.getLogger("otfkd")

AVERAGE = "average"


@dataclass(frozen=True)
class ScoredRun:
    """A finished run: its selected test row, and its folder."""

    row: Row
    folder: RunFolder

    def score(self, task: str) -> float | None:
        """Spearman x 100 over all pairs of a task, or the average of the tasks; None where it is undefined.

        Raises:
            UserError: it was not scored.
        """
        if task == AVERAGE:
            return self.row.average
        if "all" not in self.row.scores.get(task, {}):
            raise UserError(f"{self.folder} has no score of {task}, and nothing is averaged around it: score it again")
        return self.row.scores[task]["all"]


@dataclass(frozen=True)
class Arm:
    """A method: its letter in the table, where it was found, its runs by seed, and the state of those unfinished."""

    letter: str
    path: Path
    runs: dict[int, ScoredRun]
    unfinished: dict[int, State]

    @property
    def row(self) -> Row:
        """A row of any seed, for what all have in common."""
        return next(iter(self.runs.values())).row

    @property
    def tasks(self) -> list[str]:
        """Every task that any seed was scored on."""
        return list(dict.fromkeys(task for run in self.runs.values() for task in run.row.scores))


@dataclass(frozen=True)
class PairScores:
    """Grades of the test tasks, and the cosines that each run's model gives them: (pairs,) a task."""

    gold: dict[str, Array]
    cosines: dict[RunFolder, dict[str, Array]]


@dataclass(frozen=True)
class Match:
    """A method against the baseline on the seeds that both have; `pairs` is None where they were not asked for."""

    baseline: Arm
    method: Arm
    seeds: tuple[int, ...]
    pairs: PairScores | None = None

    @property
    def wanted(self) -> list[int]:
        """Every seed that either arm has, finished or not: to compare fewer must be said."""
        return sorted({seed for arm in (self.baseline, self.method) for seed in (*arm.runs, *arm.unfinished)})

    @property
    def runs(self) -> list[ScoredRun]:
        """Those of both arms that count here."""
        return [arm.runs[seed] for arm in (self.baseline, self.method) for seed in self.seeds]

    @property
    def tasks(self) -> list[str]:
        """Every task of either arm, then their average where there are several."""
        tasks = list(dict.fromkeys([*self.baseline.tasks, *self.method.tasks]))
        return [*tasks, AVERAGE] if len(tasks) > 1 else tasks

    @cached_property
    def undefined(self) -> dict[str, list[str]]:
        """The tasks that cannot be compared, and whose score of them is undefined."""
        found = {
            task: [f"seed {seed} of {arm.letter}" for arm in (self.baseline, self.method) for seed in self.seeds
                   if arm.runs[seed].score(task) is None]
            for task in self.tasks
        }  # fmt: skip
        return {task: whose for task, whose in found.items() if whose}

    def each(self, measure: Callable[[ScoredRun], float | Array | None]) -> tuple[Array, Array]:
        """A number or an array of each run, stacked by seed, of the baseline and of the method."""
        first, second = (
            np.array([measure(arm.runs[seed]) for seed in self.seeds], dtype=np.float64)
            for arm in (self.baseline, self.method)
        )
        return first, second

    def cosines(self, task: str) -> tuple[Array, Array]:
        """Cosines of the baseline and of the method, (seeds, pairs) each."""
        assert self.pairs is not None
        known = self.pairs.cosines
        return self.each(lambda run: known[run.folder][task])

    @cached_property
    def draws(self) -> dict[str, Array]:
        """Bootstrap differences of each task and of their average, (resamples,) each."""
        assert self.pairs is not None
        # Tasks share no pairs: each is resampled by a seed of its own.
        drawn = {
            task: bootstrap_pairs(*self.cosines(task), gold, seed=number)
            for number, (task, gold) in enumerate(self.pairs.gold.items())
            if task not in self.undefined
        }
        return {**drawn, AVERAGE: np.mean(list(drawn.values()), axis=0)}

    def judge(self, task: str) -> Verdict:
        """The verdict on one task, by seeds where there are several and by pairs where there is one.

        Raises:
            UserError: a score or a similarity is missing, or cannot be judged.
        """
        baseline, method = self.each(lambda run: run.score(task))
        if len(self.seeds) > 1:
            verdict = over_seeds(task, baseline, method)
        else:
            assert self.pairs is not None
            first, second = self.cosines(task)
            p = williams_spearman(first[0], second[0], self.pairs.gold[task])
            verdict = Verdict(task, float(baseline[0]), float(method[0]), 1, None, p, p)
        return verdict if self.pairs is None else replace(verdict, pairs=percentile_interval(self.draws[task]))


Judged = tuple[Match, Verdict]


def read_matches(paths: Sequence[Path], *, with_pairs: bool) -> list[Match]:
    """The methods at some paths, each against the first of them.

    Args:
        paths: rows of results, runs' folders, or folders with the runs of one config.
        with_pairs: whether to embed the test pairs with each run's model, too.

    Raises:
        UserError: there are no such runs, or they cannot be compared.
    """
    baseline, *methods = [_read_arm(chr(ord("A") + number), path) for number, path in enumerate(paths)]
    _refuse_unlike([run for arm in (baseline, *methods) for run in arm.runs.values()])
    matches = [Match(baseline, method, _common_seeds(baseline, method, with_pairs)) for method in methods]
    if not with_pairs:
        return matches
    pairs = _score_pairs(run for match in matches for run in match.runs)
    return [replace(match, pairs=pairs) for match in matches]


def _read_arm(letter: str, path: Path) -> Arm:
    if not path.exists():
        rows = RunFolder(path).results_file.name
        raise UserError(f"{path} does not exist: give a {rows} or a folder with finished runs")
    runs: dict[int, ScoredRun] = {}
    for seed, run in _selected_runs(path):
        if seed in runs:
            raise UserError(f"{path} has two results of seed {seed}: name the runs of one config (NAME/HASH)")
        runs[seed] = run
    if not runs:
        raise UserError(f"{path} has no test scores of a selected checkpoint: give a folder with finished, tested runs")
    if len({run.row.config_hash for run in runs.values()}) > 1:
        raise UserError(f"{path} holds runs of several configs: name those of one (NAME/HASH)")
    (config_hash,) = {run.row.config_hash for run in runs.values()}
    unfinished = {seed: state for seed, state in _unfinished(path, config_hash) if seed not in runs}
    return Arm(letter, path, dict(sorted(runs.items())), unfinished)


def _unfinished(path: Path, config_hash: str | None) -> Iterator[tuple[int, State]]:
    """The seeds of a config that were begun below a folder and have no scores."""
    for folder in find_runs(path) if path.is_dir() else ():
        origin = folder.read_provenance()
        if origin is not None and origin.seed is not None and origin.config_hash == config_hash:
            yield origin.seed, folder.state


def _selected_runs(path: Path) -> Iterator[tuple[int, ScoredRun]]:
    """Each trained model that dev chose and that was tested, by seed: of a file, or of a folder and all below it."""
    for file in _result_files(path):
        for row in _rows(file):
            if (row.split, row.checkpoint) == ("test", "selected") and row.seed is not None:
                yield row.seed, ScoredRun(row, RunFolder(file.parent))


def _result_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # Not those of runs alone: rows may have been collected elsewhere, without what else a run leaves.
    found = sorted(path.rglob(RunFolder(path).results_file.name))
    return [file for file in found if not is_kept_aside(file.relative_to(path))]


def _rows(file: Path) -> list[Row]:
    try:
        return read_rows(file)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        reason = first_line(error)
    raise UserError(f"{file} has a row that cannot be used ({reason}): run or score it again")


def _refuse_unlike(runs: Sequence[ScoredRun]) -> None:
    first = runs[0]
    for run in runs:
        for field, what in (("suite_sha256", "suites"), ("protocol", "protocols")):
            one, other = getattr(first.row, field), getattr(run.row, field)
            if one != other:
                folders = f"{first.folder} and {run.folder}"
                raise UserError(f"{folders} were scored on different {what} ({one}; {other}): score both on the same")


def _common_seeds(baseline: Arm, method: Arm, with_pairs: bool) -> tuple[int, ...]:
    seeds = tuple(seed for seed in baseline.runs if seed in method.runs)
    both = f"{baseline.path} and {method.path}"
    if not seeds:
        raise UserError(f"{both} have no seed in common: train both with the same seeds")
    if len(seeds) == 1 and not with_pairs:
        raise UserError(f"{both} have one seed in common, too few for an interval: train more, or add --pairs")
    return seeds


def _score_pairs(runs: Iterable[ScoredRun]) -> PairScores:
    """Embed the test pairs with the models of runs.

    Raises:
        UserError: a run's model, config or suite is missing, or is not what its scores were made with.
    """
    models = {run.folder: run.row for run in runs}
    configs = {folder: folder.read_config() for folder in models}
    suite = read_suite(next(iter(configs.values())))
    found = {}
    for number, (folder, row) in enumerate(models.items(), 1):
        if suite.checksum != row.suite_sha256:
            raise UserError(f"the test data has changed since {folder} was scored: bring it back, or score again")
        encoder = scored_model(folder, {row.weights_sha256})
        log.info("[%d/%d] pairs of %s", number, len(models), folder)
        vectors = embed_pairs(encoder, suite.test, configs[folder])
        found[folder] = {task.name: cosines(task, vectors) for task in suite.test}
    return PairScores({task.name: grades(task) for task in suite.test}, found)


def judge(matches: Sequence[Match]) -> list[Judged]:
    """Verdicts, match by match; the tasks of all matches are corrected together, and so are the averages.

    What is undefined has no verdict: `Match.undefined` says what.

    Raises:
        UserError: as `Match.judge`.
    """
    arms = [arm for match in matches for arm in (match.baseline, match.method)]
    tasks = list(dict.fromkeys(task for arm in arms for task in arm.tasks))
    by_task = _judge_together([(match, task) for match in matches for task in tasks])
    # Williams' test has no average: it compares correlations.
    averaged = [match for match in matches if len(match.seeds) > 1] if len(tasks) > 1 else []
    by_average = _judge_together([(match, AVERAGE) for match in averaged])
    return sorted([*by_task, *by_average], key=lambda judged: judged[0].method.letter)


def _judge_together(family: Sequence[tuple[Match, str]]) -> list[Judged]:
    defined = [(match, task) for match, task in family if task not in match.undefined]
    verdicts = adjust([match.judge(task) for match, task in defined])
    return [(match, verdict) for (match, _), verdict in zip(defined, verdicts, strict=True)]
