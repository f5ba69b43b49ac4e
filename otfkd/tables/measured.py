"""What was measured of one backbone in a table: its runs by row, their scores, and what they took."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from otfkd.base.errors import UserError
from otfkd.runs.rows import Row
from otfkd.tables.columns import total_forwards
from otfkd.tables.definition import RowSpec, TableSpec
from otfkd.tables.published import Published

_STEADY = 1.5  # how far apart the times of an encoder pass may be on a machine that did nothing else


@dataclass(frozen=True)
class Backbone:
    """The published runs of a table with one backbone; `model` is None where the table has only the profile's own."""

    spec: TableSpec
    profile: str
    model: str | None
    runs: Mapping[str, Sequence[Published]]  # by row, in the order of their seeds

    @property
    def rows(self) -> list[RowSpec]:
        """Those that something is published of."""
        return [row for row in self.spec.at(self.profile) if row.name in self.runs]

    @property
    def measure(self) -> str:
        tasks = next(iter(self.runs.values()))[0].result.scores
        what = "Accuracy (%)" if self.spec.kind == "transfer" else "Spearman × 100"
        return f"{what}, {f'mean of {len(tasks)} tasks' if len(tasks) > 1 else next(iter(tasks))}"

    def scores(self, row: RowSpec) -> tuple[float, ...]:
        """Of each seed.

        Raises:
            UserError: one has no average, and a mean over the others would be another number.
        """
        found = [one.result.average for one in self.runs[row.name]]
        known = [score for score in found if score is not None]
        if len(known) < len(found):
            raise UserError(f"the average of {row.label} is undefined with {len(found) - len(known)} of its seeds")
        return tuple(known)

    def compute(self, row: RowSpec) -> float | None:
        """Encoder passes, mean over seeds; None where a run, or one that it started from, is not known."""
        return self._spent(row, lambda result, earlier: float(total_forwards(result, earlier)))

    def minutes(self, row: RowSpec) -> float | None:
        """Of the clock, as `compute`; None too where the clocks do not compare."""
        if self.uneven is not None:
            return None
        return self._spent(row, lambda result, earlier: sum(_seconds(one) for one in (result, *earlier)) / 60)

    @property
    def uneven(self) -> str | None:
        """Why the clocks of these runs do not compare; None where they do."""
        results = [one.result for runs in self.runs.values() for one in runs]
        trained = [result for result in results if result.cost is not None and result.cost.forwards]
        machines = {_machine(result) for result in trained}
        if len(machines) > 1:
            return "the runs had different machines or numbers of threads"
        paces = [_seconds(result) / result.cost.forwards for result in trained if result.cost is not None]
        if paces and max(paces) > _STEADY * min(paces):
            return (
                f"an encoder pass took from {min(paces):.2g} to {max(paces):.2g} s, so the machine did other work as "
                "well"
            )
        return None

    def _spent(self, row: RowSpec, cost: Callable[[Row, Sequence[Row]], float]) -> float | None:
        results = [one.result for one in self.runs[row.name]]
        known = [result for result in results if result.cost is not None]
        lineage = self.spec.lineage(row, self.profile)
        earlier = {result.seed: self._of_seed(lineage, result.seed) for result in results}
        if not known or any(len(rows) < len(lineage) for rows in earlier.values()):
            return None
        return fmean(cost(result, earlier[result.seed]) for result in known)

    def _of_seed(self, names: Sequence[str], seed: int | None) -> list[Row]:
        published = [one for name in names for one in self.runs.get(name, ())]
        return [one.result for one in published if one.result.seed == seed]


def backbones(spec: TableSpec, profile: str, published: Sequence[Published]) -> Iterator[Backbone]:
    """Those of a table, in its order, whether or not anything is published of them.

    Args:
        spec: the table's definition.
        profile: at which it was made.
        published: its rows.
    """
    for model in spec.profiles[profile].models or (None,):
        runs: dict[str, list[Published]] = {}
        for one in sorted(published, key=lambda one: one.result.seed or 0):
            if one.model == model:
                runs.setdefault(one.row, []).append(one)
        yield Backbone(spec, profile, model, runs)


def _seconds(row: Row) -> float:
    return 0.0 if row.cost is None else row.cost.seconds


def _machine(row: Row) -> tuple[object, ...]:
    """What must be the same for times to compare."""
    return tuple(row.environment.get(key) for key in ("device", "processes", "threads", "cpus", "system"))
