"""What runs wrote while they trained, read back and put together: seeds of one config are one method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, Generic, TypeVar

from otfkd.base.errors import UserError, first_line
from otfkd.config.differences import flat
from otfkd.config.stored import StoredConfig
from otfkd.runs.folder import RunFolder, find_runs
from otfkd.runs.origin import Provenance
from otfkd.runs.rotations import Follows, Refused, Rotated

Moment = tuple[int, int]  # an optimizer step, and whether before (0) or after (1) the rotation due there


@dataclass(frozen=True)
class Course:
    """How the training of one seed went.

    Attributes:
        seed: of the run.
        dev: optimizer step to dev score.
        rotated: the steps after which a new teacher came.
        refused: the steps after which a due rotation was refused, where they are known.
        reasons: why, one each.
        follows: the step from which on the student's moving average teaches, another one at every step.
    """

    seed: int
    dev: dict[int, float]
    rotated: tuple[int, ...]
    refused: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    follows: int | None = None

    @property
    def last(self) -> int:
        """The last step that anything is known of."""
        return max([*self.dev, *self.rotated, *self.refused, self.follows or 0])

    @property
    def without_rotation(self) -> str | None:
        """Why a course has no rotation although some were due; None for any other."""
        if self.rotated or not self.reasons:
            return None
        if len(self.reasons) == 1:
            return f"the rotation did not take place: {self.reasons[0]}"
        return f"none of {len(self.reasons)} rotations took place, the last as {self.reasons[-1]}"

    @property
    def selected(self) -> tuple[int, float]:
        """The step that dev chose, so far where the run goes on, and its score: the first of equals."""
        step = max(self.dev, key=lambda step: (self.dev[step], -step))
        return step, self.dev[step]


@dataclass(frozen=True, kw_only=True)
class TrainedRun(Course):
    """The course of one run's folder, finished or not.

    Attributes:
        folder: where it is.
        name: of its experiment.
        config: what it was told, as far as this version can read it.
        provenance: what its numbers came from.
        rotations: what happened to its teacher, in order.
    """

    folder: RunFolder
    name: str
    config: StoredConfig
    provenance: Provenance
    rotations: tuple[Rotated | Refused | Follows, ...]


Course_co = TypeVar("Course_co", bound=Course, covariant=True)


@dataclass(frozen=True)
class Method(Generic[Course_co]):
    """The seeds of one config."""

    label: str
    runs: tuple[Course_co, ...]

    @property
    def legend(self) -> str:
        return f"{self.label} ({seeds(len(self.runs))})"


def seeds(number: int) -> str:
    return f"{number} seed{'s' * (number != 1)}"


def shared_moments(series: Sequence[Mapping[Moment, float]]) -> list[Moment]:
    """The moments up to the first that not all seeds have: a mean over some of them would jump there."""
    return [moments[0] for moments in takewhile(lambda moments: len(set(moments)) == 1, zip(*series, strict=False))]


def read_methods(paths: Iterable[Path]) -> list[Method[TrainedRun]]:
    """Every run at or below some folders, by method, in the order found.

    Raises:
        UserError: a folder holds no run, a run's files cannot be used, or runs that cannot be compared.
    """
    folders = dict.fromkeys(folder for path in paths for folder in _runs_below(path))
    runs = [_read(folder) for folder in folders]
    _refuse_other_dev_tasks(runs)
    groups: dict[tuple[str, str], list[TrainedRun]] = {}
    for run in runs:
        groups.setdefault((run.name, run.provenance.config_hash), []).append(run)
    methods = [_by_seed(group) for group in groups.values()]
    labels = _labels([group[0] for group in methods])
    return [Method(label, group) for label, group in zip(labels, methods, strict=True)]


def _runs_below(path: Path) -> list[RunFolder]:
    found = find_runs(path.absolute())
    if not found:
        raise UserError(f"{path} holds no run: name a run's folder, or one with runs in it")
    return found


def _read(folder: RunFolder) -> TrainedRun:
    try:
        config, provenance = folder.read_stored_config(), folder.read_provenance()
        dev, rotations = folder.read_dev_scores(), tuple(folder.read_rotations())
    except (OSError, ValueError) as error:
        raise UserError(f"the run in {folder} cannot be read ({first_line(error)}): train it again") from None
    if provenance is None or config.name is None or config.seed is None:
        raise UserError(f"{folder.config_file} does not say which experiment and seed it is of: train the run again")
    if not dev:
        raise UserError(
            f"{folder.metrics_file} has no dev score yet: let the run go on, train it again, or leave it out"
        )
    refused = [record for record in rotations if isinstance(record, Refused)]
    return TrainedRun(
        seed=config.seed, dev=dev,
        rotated=tuple(record.step for record in rotations if isinstance(record, Rotated)),
        refused=tuple(record.step for record in refused), reasons=tuple(record.reason for record in refused),
        follows=next((record.step for record in rotations if isinstance(record, Follows)), None),
        folder=folder, name=config.name, config=config, provenance=provenance, rotations=rotations,
    )  # fmt: skip


def _refuse_other_dev_tasks(runs: Sequence[TrainedRun]) -> None:
    for run in runs:
        one, other = (each.provenance.fingerprints.get("suite") for each in (runs[0], run))
        if one != other:
            raise UserError(f"{runs[0].folder} and {run.folder} have different dev tasks: draw them apart")


def _by_seed(runs: Iterable[TrainedRun]) -> tuple[TrainedRun, ...]:
    ordered = sorted(runs, key=lambda run: run.seed)
    for one, other in pairwise(ordered):
        if one.seed == other.seed:
            raise UserError(f"{one.folder} and {other.folder} are the same run: name one of them")
    return tuple(ordered)


def _labels(firsts: Sequence[TrainedRun]) -> list[str]:
    """Names of methods; where two have one name, with the settings they differ in, or else their hashes."""
    labels = []
    for run in firsts:
        alike = [_settings(other) for other in firsts if other.name == run.name]
        own = _settings(run)
        # What is unknown of one is no difference.
        differing = [key for key in own if any(other.get(key, own[key]) != own[key] for other in alike)]
        said = [f"{key.rpartition('.')[2]} {own[key]}" for key in differing]
        hashed = [run.provenance.config_hash] * (len(alike) > 1)
        labels.append(", ".join([run.name, *(said if 0 < len(said) < 3 else hashed)]))
    return labels


def _settings(run: TrainedRun) -> dict[str, Any]:
    """What makes its method, by dotted key."""
    return flat(run.config.model_dump(mode="json", exclude={"name", "seed"}))
