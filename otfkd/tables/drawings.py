"""The figures of a table, from its published rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from matplotlib.figure import Figure

from otfkd.base.errors import UserError
from otfkd.reporting.figures import curves
from otfkd.reporting.methods import Course, Method
from otfkd.reporting.space import Placement, geometry
from otfkd.reporting.style import inline_svg
from otfkd.reporting.tradeoffs import Setting, against_compute, against_interval
from otfkd.runs.rows import Row
from otfkd.tables.columns import total_forwards
from otfkd.tables.definition import RowSpec, TableSpec
from otfkd.tables.published import Published

_INTERVAL = "schedule.every"
_TOGETHER = 5  # methods whose curves one figure can hold and still be read
_WIDTH = 6.0  # inches, of a page


# Captions and figures; no figure where the caption says why.
Captioned = Iterator[tuple[str, Figure | None]]


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows; without a picture, why there is none."""

    caption: str
    svg: str | None = None


@dataclass(frozen=True)
class _Part:
    """What one backbone's figures are drawn from."""

    spec: TableSpec
    profile: str
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
        results = [one.result for one in self.runs[row.name]]
        known = [result for result in results if result.cost is not None]
        lineage = self.spec.lineage(row, self.profile)
        earlier = {result.seed: self._of_seed(lineage, result.seed) for result in results}
        if not known or any(len(rows) < len(lineage) for rows in earlier.values()):
            return None
        return fmean(total_forwards(result, earlier[result.seed]) for result in known)

    def _of_seed(self, names: Sequence[str], seed: int | None) -> list[Row]:
        published = [one for name in names for one in self.runs.get(name, ())]
        return [one.result for one in published if one.result.seed == seed]


def drawings(name: str, spec: TableSpec, profile: str, published: Sequence[Published]) -> Iterator[Drawing]:
    """The figures that a table's definition asks for, backbone by backbone.

    Args:
        name: of the table.
        spec: its definition.
        profile: at which it was made.
        published: its rows.
    """
    draw = {"interval": _interval, "curves": _curves, "compute": _compute, "geometry": _geometry}
    for model in spec.profiles[profile].models or (None,):
        own: dict[str, list[Published]] = {}
        for one in sorted(published, key=lambda one: one.result.seed or 0):
            if one.model == model:
                own.setdefault(one.row, []).append(one)
        for kind in spec.figures if own else ():
            mark = "-".join(filter(None, [name, model, kind]))
            for drawing in _drawn(draw[kind](_Part(spec, profile, own)), mark):
                yield drawing if model is None else replace(drawing, caption=f"{model}: {drawing.caption}")


def _drawn(captioned: Captioned, mark: str) -> Iterator[Drawing]:
    """The figures of one kind; what keeps one from being drawn is said in its place."""
    try:
        for number, (caption, figure) in enumerate(captioned, 1):
            yield Drawing(caption, None if figure is None else inline_svg(figure, f"{mark}-{number}"))
    except UserError as error:
        yield Drawing(f"A figure is not drawn: {error}.")


def _interval(part: _Part) -> Captioned:
    """Rows that sweep the interval against their scores; the table's other rows are levels."""
    points = [point for spec in part.spec.rows for point in _swept(part, spec)]
    if not points:
        yield "The score against the interval is not drawn: no row with an interval is finished.", None
        return
    swept_rows = {row.name for spec in part.spec.rows if spec.sweep is not None for row in spec.expanded(part.profile)}
    levels = {row.label: part.scores(row) for row in part.rows if row.name not in swept_rows}
    yield (
        "Test score against the distillation interval. Every dot is a seed; bars and bands are one standard deviation "
        "over seeds to each side of the mean.",
        against_interval(points, part.measure, levels, _WIDTH),
    )


def _swept(part: _Part, spec: RowSpec) -> list[Setting]:
    """The rows that one with a sweep of the interval stands for, as far as they are finished."""
    if spec.sweep is None or spec.sweep.key != _INTERVAL:
        return []
    label, values = spec.label.format(value="N"), spec.sweep.values[part.profile]
    rows = zip(values, spec.expanded(part.profile), strict=True)
    return [Setting(label, float(value), part.scores(row)) for value, row in rows if row.name in part.runs]


def _curves(part: _Part) -> Captioned:
    """The baseline and a few methods a figure."""
    methods = {row.name: _method(row, part.runs[row.name]) for row in part.rows if row.experiment is not None}
    shown = {name: method for name, method in methods.items() if method is not None}
    if not shown:
        yield "Dev curves are not drawn: no trained row is finished.", None
        return
    base = [shown.pop(part.spec.baseline)] if part.spec.baseline in shown else []
    others, room = list(shown.values()), _TOGETHER - len(base)
    for start in range(0, max(1, len(others)), room):
        yield (
            "Dev score against the optimizer step, above the generations of each method's teacher. Thick is the mean "
            "over seeds, thin is each seed, their range is shaded; a star is the step that dev chose.",
            curves([*base, *others[start : start + room]]),
        )


def _method(row: RowSpec, published: Sequence[Published]) -> Method[Course] | None:
    """None where the row of a seed does not say how its training went."""
    courses = [course for one in published if (course := _course(one.result)) is not None]
    return Method(row.label, tuple(courses)) if len(courses) == len(published) else None


def _course(row: Row) -> Course | None:
    if row.seed is None or row.cost is None or not row.cost.curve:
        return None
    dev = {point.step: point.dev for point in row.cost.curve}
    rotated = tuple(step for step, sha256 in row.cost.rotations if sha256 is not None)
    follows = next((step for step, sha256 in row.cost.rotations if sha256 is None), None)
    return Course(row.seed, dev, rotated, follows=follows)


def _compute(part: _Part) -> Captioned:
    costs = [(row, part.compute(row)) for row in part.rows]
    points = [Setting(row.label, cost, part.scores(row)) for row, cost in costs if cost is not None]
    if not points:
        yield "The score against compute is not drawn: no trained row is finished.", None
        return
    yield (
        "Test score against compute, the initial teacher's training counted too; bars are one standard deviation over "
        "seeds to each side of the mean. Filled points are on the Pareto front: nothing as cheap scores higher.",
        against_compute(points, part.measure, _WIDTH),
    )


def _geometry(part: _Part) -> Captioned:
    placements = [
        Placement(row.label, one.result.seed, one.geometry["alignment"], one.geometry["uniformity"])
        for row in part.rows
        for one in part.runs[row.name]
        if one.geometry is not None
    ]
    if not placements:
        yield (
            "Alignment against uniformity is not drawn: the published rows do not have them; otfkd-figures RUN --what "
            "geometry draws them from runs.",
            None,
        )
        return
    yield (
        "Alignment of positive dev pairs (grade above 4) against uniformity of dev sentences; lower is better in both.",
        geometry(placements, _WIDTH),
    )
