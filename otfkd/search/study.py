"""A search: trials of a few seeds each, kept on disk with Optuna, which a kill loses nothing of."""

import logging
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from otfkd.base.errors import Interrupted, UserError, exits_as_errors, refusals_as_user_errors
from otfkd.base.files import JsonLines
from otfkd.base.hashing import derived_seed
from otfkd.config.composition import load_config
from otfkd.runs.failure import Failure
from otfkd.runs.log import Point, PointReceiver
from otfkd.search.space import Space, search_hash
from otfkd.training.train import train

log = logging.getLogger("otfkd")

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
# What is kept of a trial besides Optuna's own: what it tried, and each seed's selected dev score and generation.
_OVERRIDES, _DEV, _GENERATIONS = "overrides", "dev", "generations"


class Pruned(Interrupted):
    """Other trials were better on dev at this step: the run stops where it is."""


class Search:
    """Trials over a space, each scored by the mean of the selected dev scores of a few seeds.

    A trial's runs are ordinary runs in their own folders, so those that are finished are not trained again. What a
    trial tries depends on the trials that ended before it alone: a search that was killed and goes on is the search
    that was not.

    Args:
        space: what is fixed and what is tried.
        seeds: of each trial's runs.
        runs: the folder of all runs, in which the search has one of its own.

    Raises:
        UserError: another process is at this search.
    """

    def __init__(self, space: Space, seeds: Sequence[int], runs: Path):
        self.space = space
        self.seeds = seeds
        self.folder = runs / "searches" / search_hash(space, seeds)

    @property
    def _journal(self) -> Path:
        return self.folder / "study.journal"

    def run(self, wanted: int) -> list[tuple[str, Failure]]:
        """Try until so many trials have ended, those of earlier attempts included.

        Returns:
            The trials that failed, which the next attempt tries again.

        Raises:
            Interrupted: a signal came; the same command goes on.
        """
        failures: list[tuple[str, Failure]] = []
        with self._held() as study:
            for number in range(_retake(study, self.space.free.keys()), wanted):
                # Drawn anew for each trial: the state of a sampler would not outlive its process.
                study.sampler = optuna.samplers.TPESampler(seed=derived_seed("search", number) % 2**32)
                trial = study.ask(dict(self.space.free))
                log.info("trial %d of %d: %s", number + 1, wanted, " ".join(self.space.overrides(trial.params)))
                failure = self._try(study, trial)
                if failure is not None:
                    log.error("trial %d failed: %s", number + 1, failure.reason)
                    failures.append((" ".join(self.space.overrides(trial.params)), failure))
        return failures

    def trials(self) -> list[FrozenTrial]:
        """The trials that have ended, in the order in which they began."""
        return self._open().get_trials(deepcopy=False, states=_ENDED) if self._journal.is_file() else []

    def command(self, trial: FrozenTrial) -> str:
        """What trains a trial's runs."""
        overrides = [*self.space.fixed, *tried(trial), f"seed={','.join(map(str, self.seeds))}"]
        return shlex.join(["otfkd-train", *(["-m"] if len(self.seeds) > 1 else []), *overrides])

    def _open(self) -> Study:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self._journal))), study_name=self.folder.name,
            direction="maximize", load_if_exists=True, pruner=optuna.pruners.MedianPruner(),
        )  # fmt: skip

    @contextmanager
    def _held(self) -> Iterator[Study]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "lock", timeout=0):
                JsonLines(self._journal).drop_half_line()
                yield self._open()
        except Timeout:
            raise UserError(f"another process is at the search in {self.folder}: wait for it") from None

    def _try(self, study: Study, trial: Trial) -> Failure | None:
        """Train a trial's runs, and tell the study what came of them."""
        overrides = self.space.overrides(trial.params)
        trial.set_user_attr(_OVERRIDES, overrides)
        try:
            with refusals_as_user_errors(), exits_as_errors():
                scores, selected = zip(*(self._selected(trial, overrides, seed) for seed in self.seeds), strict=True)
        except Pruned as pruned:
            log.info("%s", pruned)
            study.tell(trial, state=TrialState.PRUNED)
        except Exception as error:
            study.tell(trial, state=TrialState.FAIL)
            return Failure.of(error)
        else:
            trial.set_user_attr(_DEV, scores)
            trial.set_user_attr(_GENERATIONS, selected)
            study.tell(trial, statistics.fmean(scores))
        return None

    def _selected(self, trial: Trial, overrides: Sequence[str], seed: int) -> tuple[float, int]:
        """Train one run of a trial; the dev score and the generation of its selected model."""
        config = load_config([*self.space.fixed, *overrides, f"seed={seed}"])
        # The first seed says how a trial goes; a watcher does not reach the processes that others are launched in.
        watched = seed == self.seeds[0] and config.processes == 1
        rows = train(config, watch=Watcher(trial, config.trainer.max_steps) if watched else None).rows
        row = next(row for row in rows if row.split == "dev" and row.checkpoint == "selected")
        assert row.average is not None and row.generation is not None  # a run that selects has both
        return row.average, row.generation


class Watcher(PointReceiver):
    """Tells a trial the dev scores of its first run as they come, and stops it where others were better.

    Args:
        trial: whose run it is.
        steps: of the run; after the last there is nothing to save.
    """

    def __init__(self, trial: Trial, steps: int):
        self._trial = trial
        self._steps = steps

    def begin(self, points: Iterable[Point]) -> None:
        for step, values in points:
            self._report(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._report(step, values) and step < self._steps and self._trial.should_prune():
            raise Pruned(
                f"pruned after step {step}: with a dev score of {values['dev']:.2f} others were better by then"
            )

    def _report(self, step: int, values: Mapping[str, float]) -> bool:
        if "dev" in values:
            self._trial.report(values["dev"], step)
        return "dev" in values


def _retake(study: Study, free: Set[str]) -> int:
    """Queue again what a killed process left half done, and what failed; gives how many trials have ended."""
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        if trial.state is TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    over = [trial.params for trial in trials if trial.state in _ENDED]
    queued = [trial.system_attrs["fixed_params"] for trial in trials if trial.state is TrialState.WAITING]
    for trial in trials:
        left = trial.state in (TrialState.RUNNING, TrialState.FAIL) and trial.params not in [*over, *queued]
        if left and trial.params.keys() == free:  # else it was killed while it was drawn, and will be drawn again
            study.enqueue_trial(trial.params)
            queued.append(trial.params)
    return len(over)


def tried(trial: FrozenTrial) -> list[str]:
    """The overrides that a trial tried."""
    return list(trial.user_attrs[_OVERRIDES])


def dev_scores(trial: FrozenTrial) -> list[float]:
    """The selected dev score of each seed; none of a trial that was given up."""
    return list(trial.user_attrs.get(_DEV, ()))


def generations(trial: FrozenTrial) -> list[int]:
    """How often the teacher had rotated when the selected model of each seed was; none of a trial that was given up."""
    return list(trial.user_attrs.get(_GENERATIONS, ()))
