"""The figures of a table, from its published rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from otfkd.base.errors import UserError
from otfkd.reporting.figures import curves
from otfkd.reporting.methods import Course, Method
from otfkd.reporting.space import Placement, geometry
from otfkd.reporting.style import Look, inline_svg
from otfkd.reporting.tradeoffs import Setting, against_compute, against_interval
from otfkd.runs.rows import Row
from otfkd.tables.definition import RowSpec
from otfkd.tables.looks import Looks
from otfkd.tables.measured import Backbone
from otfkd.tables.published import Published

_INTERVAL = "schedule.every"
_TOGETHER = 5  # methods whose curves one figure can hold and still be read
_WIDTH = 6.0  # inches, of a page

# The looks of a table's rows, by label.
Known = Mapping[str, Look]
# Captions and figures; no figure where the caption says why.
Captioned = Iterator[tuple[str, Figure | None]]


@dataclass(frozen=True)
class Drawing:
    """A figure and what it shows; without a picture, why there is none."""

    caption: str
    svg: str | None = None


def drawings(name: str, part: Backbone, known: Looks) -> Iterator[Drawing]:
    """The figures that a table's definition asks for of one backbone.

    Args:
        name: of the table.
        part: what was measured.
        known: the looks of its rows.
    """
    draw = {"interval": _interval, "curves": _curves, "compute": _compute, "geometry": _geometry}
    labels = {row.label: known[row.name] for row in part.rows}
    for kind in part.spec.figures if part.runs else ():
        mark = "-".join(filter(None, [name, part.model, kind]))
        for drawing in _drawn(draw[kind](part, labels), mark):
            yield drawing if part.model is None else replace(drawing, caption=f"{part.model}: {drawing.caption}")


def _drawn(captioned: Captioned, mark: str) -> Iterator[Drawing]:
    """The figures of one kind; what keeps one from being drawn is said in its place."""
    try:
        for number, (caption, figure) in enumerate(captioned, 1):
            yield Drawing(caption, None if figure is None else inline_svg(figure, f"{mark}-{number}"))
    except UserError as error:
        yield Drawing(f"A figure is not drawn: {error}.")


def _interval(part: Backbone, known: Known) -> Captioned:
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
        against_interval(points, part.measure, levels, _WIDTH, {**_of_sweeps(part, known), **known}),
    )


def _of_sweeps(part: Backbone, known: Known) -> Known:
    """A line through several rows looks like the first of them."""
    return {
        spec.label.format(value="N"): known[row.label]
        for spec in part.spec.rows
        for row in reversed(spec.expanded(part.profile))
        if spec.sweep is not None and row.label in known
    }


def _swept(part: Backbone, spec: RowSpec) -> list[Setting]:
    """The rows that one with a sweep of the interval stands for, as far as they are finished."""
    if spec.sweep is None or spec.sweep.key != _INTERVAL:
        return []
    label, values = spec.label.format(value="N"), spec.sweep.values[part.profile]
    rows = zip(values, spec.expanded(part.profile), strict=True)
    return [Setting(label, float(value), part.scores(row)) for value, row in rows if row.name in part.runs]


def _curves(part: Backbone, known: Known) -> Captioned:
    """The baseline and a few methods a figure."""
    methods = {row.name: _method(row, part.runs[row.name]) for row in part.rows if row.experiment is not None}
    shown = {name: method for name, method in methods.items() if method is not None}
    if not shown:
        yield "Dev curves are not drawn: no trained row is finished.", None
        return
    base = [shown.pop(part.spec.baseline)] if part.spec.baseline in shown else []
    others, room = list(shown.values()), _TOGETHER - len(base)
    uncertain = _uncertain(part)
    for start in range(0, max(1, len(others)), room):
        yield (
            "Dev score against the optimizer step, above the generations of each method's teacher. Thick is the mean "
            "over seeds, thin is each seed, their range is shaded; a star is the step that dev chose, a cross a "
            "rotation that was due and refused." + uncertain,
            curves([*base, *others[start : start + room]], known),
        )


def _method(row: RowSpec, published: Sequence[Published]) -> Method[Course] | None:
    """None where the row of a seed does not say how its training went."""
    courses = [course for one in published if (course := _course(one.result)) is not None]
    return Method(row.label, tuple(courses)) if len(courses) == len(published) else None


def _uncertain(part: Backbone) -> str:
    """What is known of refused rotations that cannot be drawn."""
    counts = {
        f"{row.label} seed {one.result.seed}: {cost.refused}"
        for row in part.rows
        for one in part.runs[row.name]
        if (cost := one.result.cost) is not None and cost.refused and cost.refused_at is None
    }
    return (
        f" Of some refusals the rows tell the number and not the step ({'; '.join(sorted(counts))})." if counts else ""
    )


def _course(row: Row) -> Course | None:
    if row.seed is None or row.cost is None or not row.cost.curve:
        return None
    dev = {point.step: point.dev for point in row.cost.curve}
    rotated = tuple(step for step, sha256 in row.cost.rotations if sha256 is not None)
    follows = next((step for step, sha256 in row.cost.rotations if sha256 is None), None)
    return Course(row.seed, dev, rotated, row.cost.refused_at or (), follows=follows)


def _compute(part: Backbone, known: Known) -> Captioned:
    costs = [(row, part.compute(row)) for row in part.rows]
    points = [Setting(row.label, cost, part.scores(row)) for row, cost in costs if cost is not None]
    if not points:
        yield "The score against compute is not drawn: no trained row is finished.", None
        return
    yield (
        "Test score against compute, the initial teacher's training counted too; bars are one standard deviation over "
        "seeds to each side of the mean. Filled points are on the Pareto front: nothing as cheap scores higher.",
        against_compute(points, part.measure, _WIDTH, known),
    )


def _geometry(part: Backbone, known: Known) -> Captioned:
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
        geometry(placements, _WIDTH, known),
    )
