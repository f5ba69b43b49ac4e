"""otfkd-compare: say whether methods differ from a baseline, by their finished runs."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from otfkd.base.errors import UserError, first_line
from otfkd.cli.common import exit_with
from otfkd.runs.folder import RunFolder
from otfkd.runs.rows import Row, read_rows

if TYPE_CHECKING:
    from otfkd.evaluation.significance import Array, Interval, Verdict

log = logging.getLogger("otfkd")

AVERAGE = "average"


@dataclass(frozen=True)
class Run:
    """A finished run: its selected test row, and its folder."""

    row: Row
    folder: Path

    def score(self, task: str) -> float:
        """Spearman x 100 over all pairs of a task, or the average of the tasks.

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
    """A method: its letter in the table, where it was found, and its runs by seed."""

    letter: str
    path: Path
    runs: dict[int, Run]

    @property
    def row(self) -> Row:
        """A row of any seed, for what all have in common."""
        return next(iter(self.runs.values())).row


@dataclass(frozen=True)
class PairScores:
    """Grades of the test tasks, and the cosines that each run's folder gives them: (pairs,) a task."""

    gold: "dict[str, Array]"
    cosines: "dict[Path, dict[str, Array]]"


@dataclass(frozen=True)
class Match:
    """A method against the baseline on the seeds that both have; `pairs` is None where they were not asked for."""

    baseline: Arm
    method: Arm
    seeds: tuple[int, ...]
    pairs: PairScores | None

    def each(self, measure: "Callable[[Run], float | Array]") -> "tuple[Array, Array]":
        """A number or an array of each run, stacked by seed, of the baseline and of the method."""
        first, second = (
            np.array([measure(arm.runs[seed]) for seed in self.seeds]) for arm in (self.baseline, self.method)
        )
        return first, second

    def cosines(self, task: str) -> "tuple[Array, Array]":
        """Cosines of the baseline and of the method, (seeds, pairs) each."""
        assert self.pairs is not None
        known = self.pairs.cosines
        return self.each(lambda run: known[run.folder][task])

    @cached_property
    def draws(self) -> "dict[str, Array]":
        """Bootstrap differences of each task and of their average, (resamples,) each."""
        from otfkd.evaluation.significance import bootstrap_pairs

        assert self.pairs is not None
        # Tasks share no pairs: each is resampled by a seed of its own.
        drawn = {
            task: bootstrap_pairs(*self.cosines(task), gold, seed=number)
            for number, (task, gold) in enumerate(self.pairs.gold.items())
        }
        return {**drawn, AVERAGE: np.mean(list(drawn.values()), axis=0)}

    def judge(self, task: str) -> "Verdict":
        """The verdict on one task, by seeds where there are several and by pairs where there is one.

        Raises:
            UserError: a score or a similarity is missing, or cannot be judged.
        """
        from otfkd.evaluation.significance import Verdict, over_seeds, percentile_interval, williams_spearman

        baseline, method = self.each(lambda run: run.score(task))
        if len(self.seeds) > 1:
            verdict = over_seeds(task, baseline, method)
        else:
            assert self.pairs is not None
            first, second = self.cosines(task)
            p = williams_spearman(first[0], second[0], self.pairs.gold[task])
            verdict = Verdict(task, float(baseline[0]), float(method[0]), 1, None, p, p)
        return verdict if self.pairs is None else replace(verdict, pairs=percentile_interval(self.draws[task]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="otfkd-compare", description=__doc__)
    where = "a results.jsonl, a run's folder, or that of several seeds (runs/NAME/HASH)"
    parser.add_argument("baseline", type=Path, metavar="A", help=f"the baseline: {where}")
    parser.add_argument("methods", type=Path, nargs="+", metavar="B", help="what to compare with it, given likewise")
    more = "also embed the test pairs with each run's model (minutes): for an interval over pairs, or a single seed"
    parser.add_argument("--pairs", action="store_true", help=more)
    arguments = parser.parse_args()
    exit_with(lambda: _compare([arguments.baseline, *arguments.methods], with_pairs=arguments.pairs))


def _compare(paths: Sequence[Path], *, with_pairs: bool) -> None:
    baseline, *methods = [_read(chr(ord("A") + number), path) for number, path in enumerate(paths)]
    _refuse_unlike([run for arm in (baseline, *methods) for run in arm.runs.values()])
    matches = [Match(baseline, method, _common_seeds(baseline, method, with_pairs), None) for method in methods]
    if with_pairs:
        pairs = _score_pairs(arm.runs[seed] for m in matches for arm in (baseline, m.method) for seed in m.seeds)
        matches = [replace(match, pairs=pairs) for match in matches]
    verdicts = _judge(matches)
    sys.stdout.write(f"{_legend(matches)}\n\n{_table(verdicts)}\n\n{_notes(matches, verdicts)}\n")


def _read(letter: str, path: Path) -> Arm:
    if not path.exists():
        raise UserError(f"{path} does not exist: give a results.jsonl or a folder with finished runs")
    found = sorted(path.rglob("results.jsonl")) if path.is_dir() else [path]
    files = [file for file in found if ".kept-" not in str(file.relative_to(path))]  # set aside by fresh=true
    runs: dict[int, Run] = {}
    for file in files:
        for row in _rows(file):
            if row.split != "test" or row.checkpoint != "selected" or row.seed is None:
                continue
            if row.seed in runs:
                raise UserError(f"{path} has two results of seed {row.seed}: name the runs of one config (NAME/HASH)")
            runs[row.seed] = Run(row, file.parent)
    if not runs:
        raise UserError(f"{path} has no test scores of a selected checkpoint: give a folder with finished runs")
    if len({run.row.config_hash for run in runs.values()}) > 1:
        raise UserError(f"{path} holds runs of several configs: name those of one (NAME/HASH)")
    return Arm(letter, path, dict(sorted(runs.items())))


def _rows(file: Path) -> list[Row]:
    try:
        return read_rows(file)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (OSError, ValueError) as error:
        reason = first_line(error)
    raise UserError(f"{file} has a row that cannot be used ({reason}): run or score it again")


def _refuse_unlike(runs: Sequence[Run]) -> None:
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


def _judge(matches: Sequence[Match]) -> "list[tuple[Match, Verdict]]":
    """Verdicts, match by match; the tasks of all matches are corrected together, and so are the averages."""
    from otfkd.evaluation.significance import adjust

    runs = [run for match in matches for arm in (match.baseline, match.method) for run in arm.runs.values()]
    tasks = list(dict.fromkeys(task for run in runs for task in run.row.scores))
    by_task = [(match, task) for match in matches for task in tasks]
    # Williams' test has no average: it compares correlations.
    by_average = [(match, AVERAGE) for match in matches if len(tasks) > 1 and len(match.seeds) > 1]
    found = []
    for family in (by_task, by_average):
        judged = adjust([match.judge(task) for match, task in family])
        found += [(match, verdict) for (match, _), verdict in zip(family, judged, strict=True)]
    return sorted(found, key=lambda each: each[0].method.letter)


def _score_pairs(runs: Iterable[Run]) -> PairScores:
    """Embed the test pairs with the models of runs.

    Raises:
        UserError: a run's model, config or suite is missing, or is not what its scores were made with.
    """
    import torch

    from otfkd.base.hashing import hash_weights
    from otfkd.data.sts import load_suite
    from otfkd.evaluation.encode import encode
    from otfkd.evaluation.sts import similarities
    from otfkd.models.registry import find_model, load_encoder

    models = {run.folder: run for run in runs}
    configs = {folder: RunFolder(folder).read_config() for folder in models}
    first = next(iter(configs.values()))
    suite = load_suite(first.evaluation, first.paths.data_root, Path(first.paths.cache))
    graded = {task.name: [pair for subset in task.subsets for pair in subset.pairs] for task in suite.test}
    sentences = list(dict.fromkeys(text for task in suite.test for text in task.sentences()))
    place = {sentence: number for number, sentence in enumerate(sentences)}
    sides = {task: ([place[a] for a, _, _ in graded[task]], [place[b] for _, b, _ in graded[task]]) for task in graded}
    cosines = {}
    for number, (folder, run) in enumerate(models.items(), 1):
        if suite.checksum != run.row.suite_sha256:
            raise UserError(f"the test data has changed since {folder} was scored: bring it back, or score again")
        encoder = load_encoder(find_model(str(folder.absolute() / "model")))
        if hash_weights(encoder) != run.row.weights_sha256:
            raise UserError(f"{folder}/model is not the model that was scored there: run it again")
        log.info("[%d/%d] pairs of %s", number, len(models), folder)
        config = configs[folder].evaluation
        device = "cuda" if torch.cuda.is_available() else "cpu"
        vectors = encode(encoder.to(device), sentences, batch_size=config.batch_size, max_length=config.max_length)
        cosines[folder] = {task: similarities(vectors[left], vectors[right]) for task, (left, right) in sides.items()}
    return PairScores({task: np.array([grade for _, _, grade in pairs]) for task, pairs in graded.items()}, cosines)


def _legend(matches: Sequence[Match]) -> str:
    arms = [matches[0].baseline, *(match.method for match in matches)]
    return "\n".join(f"{arm.letter}  {arm.row.name}, {arm.path}, seeds {', '.join(map(str, arm.runs))}" for arm in arms)


def _table(verdicts: "Sequence[tuple[Match, Verdict]]") -> str:
    others = ", ".join(dict.fromkeys(match.method.letter for match, _ in verdicts))
    head = ["", "task", "mean A", f"mean {others}", "difference", "95 % t interval", "n", "95 % over pairs"]
    rows = [[*head, "permutation p", "p", "Holm p", "verdict"]]
    for match, verdict in verdicts:
        means = [f"{verdict.baseline:.2f}", f"{verdict.method:.2f}", f"{verdict.difference:+.2f}"]
        intervals = [_interval(verdict.interval), str(verdict.n), _interval(verdict.pairs)]
        tests = [_p(verdict.permutation_p), _p(verdict.p), _p(verdict.adjusted), verdict.word]
        rows.append([match.method.letter, verdict.task, *means, *intervals, *tests])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = "".join(f"{{:{'<' if column in (0, 1, 11) else '>'}{width}}}  " for column, width in enumerate(widths))
    return "\n".join(aligned.format(*row).rstrip() for row in rows)


def _interval(interval: "Interval | None") -> str:
    return "-" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _notes(matches: Sequence[Match], verdicts: "Sequence[tuple[Match, Verdict]]") -> str:
    """What a reader must know to read the table, and how many seeds each claim needs."""
    from otfkd.evaluation.significance import MIN_PERMUTATION_SEEDS, RESAMPLES

    row = matches[0].baseline.row
    tests = sum(verdict.task != AVERAGE for _, verdict in verdicts)
    counts = [len(match.seeds) for match in matches]
    said = [
        f"Test split of suite {row.suite} ({row.suite_sha256[:8]}), {row.protocol}; checkpoint selected on dev.",
        "Differences are from A, in points; over seeds by the paired t test. The verdict is at 5 % by Holm's p, "
        f"for which all rows of tasks ({tests}) count together and an average is a claim of its own.",
    ]
    if matches[0].pairs is None:
        said.append("Over pairs: not asked for; --pairs adds it.")
    else:
        said.append(f"Over pairs: bootstrap, {RESAMPLES:,} resamples of the same pairs for every seed of both methods.")
    if min(counts) < MIN_PERMUTATION_SEEDS:
        said.append(f"No permutation p below {MIN_PERMUTATION_SEEDS} seeds: it could not be under 0.05.")
    if 1 in counts:
        said.append("Where n is 1, p is of Williams' test on ranks: of these two checkpoints, not of the two methods.")
    for match in matches:
        if alone := sorted(match.baseline.runs.keys() ^ match.method.runs.keys()):
            seeds = ", ".join(map(str, alone))
            said.append(f"Seeds that only one of A and {match.method.letter} has are left out: {seeds}.")
    return "\n".join([*said, *(_seeds_line(match, verdicts) for match in matches)])


def _seeds_line(match: Match, verdicts: "Sequence[tuple[Match, Verdict]]") -> str:
    from otfkd.evaluation.significance import seeds_needed

    letter, n = match.method.letter, len(match.seeds)
    if n == 1:
        return f"{letter}: one seed shows no spread, so how many seeds a claim of this size needs cannot be said."
    claim = [verdict for each, verdict in verdicts if each is match][-1]
    baseline, method = match.each(lambda run: run.score(claim.task))
    spread = float((method - baseline).std(ddof=1))
    needed = seeds_needed(claim.difference, spread) or "endlessly many"
    return (
        f"{letter}: a claim of {claim.difference:+.2f} ({claim.task}) takes {needed} seeds at 80 % power, "
        f"at the standard deviation of {spread:.2f} that the differences of these {n} seeds have."
    )
