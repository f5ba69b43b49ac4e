"""Pictures of runs: how dev went, how teacher and student agreed, and what training did to the space of embeddings.

Each function takes what it draws as data and gives a figure; nothing here reads a file or loads a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from otfkd.errors import UserError
from otfkd.reporting.history import Method, Moment, Run, seeds, shared_moments
from otfkd.reporting.style import COLUMN, PAGE, Look, looks, styled

Array = NDArray[np.float64]

BEFORE, AFTER = 0, 1  # of a rotation
GRADES = (0, 1, 2, 3, 4, 5)
_AGREEMENT = {"agreement": "Agreement (Spearman)", "kl": "KL (nats)"}


@styled()
def curves(methods: Sequence[Method]) -> Figure:
    """Dev score against optimizer step, a line a method, above the generations of its teachers.

    Thick is the mean over seeds, thin is each of them, their range is shaded; a star is the step that dev chose.
    """
    lanes = [lane for method in methods for lane in _lanes(method)]
    figure = Figure(figsize=(_width(len(methods)), 2.3 + 0.16 * len(lanes)), layout="constrained")
    ratios = [2.0, 0.16 * len(lanes)] if lanes else [1.0]
    rows = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    above, below = rows[0], rows[-1]
    for step in sorted({step for lane in lanes for step in lane.rotated}):
        above.axvline(step, color="0.8", linewidth=0.7, zorder=0, label="_rotation")
    for number, (method, look) in enumerate(zip(methods, looks(len(methods)), strict=True)):
        steps = _lines(above, method, look, [_dev(run) for run in method.runs])
        steps.set_marker(look.marker)
        apart = 1 + len(method.runs[0].dev) // 10
        steps.set_markevery((number % apart, apart))  # few enough to leave the dashes visible
        chosen = np.array([run.selected for run in method.runs])
        above.plot(*chosen.T, "*", color=look.colour, markersize=9, mec="white", mew=0.6, zorder=4, label="_selected")
    above.set_ylabel("Dev score (Spearman × 100)")
    below.set_xlabel("Optimizer step")
    below.set_xlim(left=0)
    handles = [Line2D([], [], linestyle="", marker="*", color="0.3", markersize=7, label="selected by dev")]
    if lanes:
        _draw_lanes(below, lanes, max(max(run.dev) for method in methods for run in method.runs))
        handles.append(Line2D([], [], color="0.8", linewidth=0.7, label="rotation to a new teacher"))
        if any(lane.refused for lane in lanes):
            handles.append(Line2D([], [], linestyle="", marker="x", color="black", label="refused rotation"))
    _legend(figure, above, handles)
    return figure


def _dev(run: Run) -> dict[Moment, float]:
    return {(step, BEFORE): dev for step, dev in run.dev.items()}


@dataclass(frozen=True)
class _Lane:
    """A strip that shows one course of teacher generations."""

    label: str
    rotated: tuple[int, ...]
    refused: tuple[int, ...]


def _lanes(method: Method) -> list[_Lane]:
    """One for all seeds of a method where they rotated alike, else one each; none where nothing was due."""
    courses: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Run]] = {}
    for run in method.runs:
        if run.rotations:
            courses.setdefault((run.rotated, run.refused), []).append(run)

    def label(runs: Sequence[Run]) -> str:
        whole = len(runs) == len(method.runs)
        return method.label if whole else f"{method.label}, seed {', '.join(str(run.seed) for run in runs)}"

    return [_Lane(label(runs), *course) for course, runs in courses.items()]


def _draw_lanes(axes: Axes, lanes: Sequence[_Lane], end: int) -> None:
    for row, lane in enumerate(lanes):
        edges = (0, *lane.rotated, end)
        for generation, (start, stop) in enumerate(pairwise(edges)):
            shade = "white" if generation % 2 == 0 else "0.88"
            axes.broken_barh(
                [(start, stop - start)], (row - 0.42, 0.84), facecolor=shade, edgecolor="0.6", linewidth=0.5
            )
            if generation % (1 + len(edges) // 18) == 0:
                axes.annotate(
                    str(generation), (start, row), (2, 0), textcoords="offset points", va="center", fontsize=5.5
                )
        axes.plot(lane.refused, [row] * len(lane.refused), "x", color="black", markersize=4, label="_refused")
    axes.set_yticks(range(len(lanes)), [f"teacher of {lane.label}" for lane in lanes], fontsize=5.5)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


@styled()
def agreement(methods: Sequence[Method]) -> Figure:
    """How student and teacher agree before each rotation (open) and after it (filled): rank agreement above, KL below.

    Raises:
        UserError: nothing was rotated, or the runs do not say how the two agreed.
    """
    rotating = [
        (method, look)
        for method, look in zip(methods, looks(len(methods)), strict=True)
        if any(run.rotated for run in method.runs)
    ]
    if not rotating:
        raise UserError("none of the runs rotated a teacher, so there is no agreement to draw: name runs that did")
    figure = Figure(figsize=(_width(len(rotating)), 3.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (measure, label) in zip(panels, _AGREEMENT.items(), strict=True):
        for method, look in rotating:
            series = [_around_rotations(run, measure) for run in method.runs]
            _lines(axes, method, look, series)
            shared = shared_moments(series)
            for when, fill in ((BEFORE, "white"), (AFTER, look.colour)):
                at = [moment for moment in shared if moment[1] == when]
                axes.plot(
                    [step for step, _ in at], [fmean(one[moment] for one in series) for moment in at], look.marker,
                    color=look.colour, mfc=fill, zorder=4, label=f"_{method.label} {'after' if when else 'before'}",
                )  # fmt: skip
        axes.set_ylabel(label)
    panels[1].set_xlabel("Optimizer step")
    panels[1].set_xlim(left=0)
    marks = (("before a rotation", "white"), ("after it", "0.3"))
    handles = [Line2D([], [], linestyle="", marker="o", color="0.3", mfc=fill, label=label) for label, fill in marks]
    _legend(figure, panels[0], handles)
    return figure


def _around_rotations(run: Run, measure: str) -> dict[Moment, float]:
    """What was measured before and after each rotation, where there was a teacher to measure."""
    found = {}
    for row in run.rotations:
        for phase, name in ((BEFORE, f"{measure}_before"), (AFTER, f"{measure}_after")):
            if name not in row:
                raise UserError(
                    f"{run.folder}/rotations.jsonl does not say how student and teacher agreed, as those of an earlier "
                    "otfkd do not: train it again with fresh=true"
                )
            if row[name] is not None:
                found[row["step"], phase] = float(row[name])
    return found


def _lines(axes: Axes, method: Method, look: Look, series: Sequence[Mapping[Moment, float]]) -> Line2D:
    """Each seed of a method thin, their range shaded, their mean thick; gives the last."""
    for run, one in zip(method.runs, series, strict=True):
        axes.plot(
            [step for step, _ in one], list(one.values()), color=look.colour, linestyle=look.line, linewidth=0.6,
            alpha=0.5, label=f"_{method.label} seed {run.seed}",
        )  # fmt: skip
    shared = shared_moments(series)
    steps = [step for step, _ in shared]
    values = np.array([[one[moment] for moment in shared] for one in series])
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=look.colour, alpha=0.12, linewidth=0)
    (mean,) = axes.plot(
        steps, values.mean(axis=0), color=look.colour, linestyle=look.line, zorder=3, label=method.legend
    )
    return mean


def _width(methods: int) -> float:
    return COLUMN if methods <= 2 else PAGE


def _legend(figure: Figure, axes: Axes, extra: Sequence[Line2D]) -> None:
    handles = [*axes.get_legend_handles_labels()[0], *extra]
    figure.legend(handles=handles, loc="outside upper left", ncols=2 if figure.get_figwidth() < PAGE else 4)


@dataclass(frozen=True)
class Reading:
    """What an encoder makes of the dev pairs.

    Attributes:
        label: the encoder.
        seed: of its run; None where it was not trained here.
        cosines: (n,), one a pair.
        gold: (n,), their grades.
        spearman: of the two, × 100.
        alignment: of pairs graded above 4.
        uniformity: of all sentences.
    """

    label: str
    seed: int | None
    cosines: Array
    gold: Array
    spearman: float
    alignment: float
    uniformity: float


@styled()
def similarity(readings: Sequence[Reading]) -> Figure:
    """Cosines of dev pairs by gold grade, a panel a label, of its first seed: ridges of area one, medians marked.

    Raises:
        UserError: more encoders than a page holds.
    """
    firsts = {reading.label: reading for reading in reversed(readings)}
    readings = [reading for reading in readings if firsts[reading.label] is reading]
    if len(readings) > 6:
        raise UserError(f"a page holds 6 encoders beside each other, not {len(readings)}: name fewer runs")
    figure = Figure(figsize=(COLUMN if len(readings) <= 2 else PAGE, 2.4), layout="constrained")
    panels = figure.subplots(1, len(readings), sharex=True, sharey=True, squeeze=False)[0]
    lowest = min(float(reading.cosines.min()) for reading in readings)
    edges = np.linspace(np.floor(lowest * 10) / 10, 1, 41)
    binned = [_by_grade(reading) for reading in readings]
    ridges = [[np.histogram(cosines, edges, density=True)[0] for cosines in groups] for groups in binned]
    tallest = max(float(ridge.max()) for panel in ridges for ridge in panel if np.isfinite(ridge).all())
    for axes, reading, groups, panel in zip(panels, readings, binned, ridges, strict=True):
        for grade, (cosines, ridge) in enumerate(zip(groups, panel, strict=True)):
            if not len(cosines):
                continue
            shade = colormaps["Blues"](0.2 + 0.17 * grade)
            height = grade + 1.3 * ridge / tallest
            axes.stairs(height, edges, baseline=grade, fill=True, facecolor=shade, zorder=-grade, label=f"_{grade}")
            axes.stairs(height, edges, baseline=grade, color="black", linewidth=0.5, zorder=-grade)
            axes.plot([np.median(cosines)] * 2, [grade, grade + 0.7], color="black", linewidth=1, label="_median")
        trained = "before" if reading.seed is None else f"seed {reading.seed}"
        axes.set_title(f"{reading.label} ({trained})\nSpearman {reading.spearman:.2f}")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", length=0)
    names = [f"{low}–{low + 1}\nn = {len(group)}" for low, group in zip(GRADES, binned[0], strict=False)]
    panels[0].set_yticks([grade + 0.35 for grade in range(len(names))], names)
    panels[0].set_ylabel("Gold grade")
    figure.supxlabel("Cosine of a dev pair (line: median)", fontsize=7)
    return figure


def _by_grade(reading: Reading) -> list[Array]:
    """Cosines of pairs graded [0, 1), ..., [3, 4), [4, 5]."""
    place = np.clip(np.floor(reading.gold), 0, GRADES[-2]).astype(int)
    return [reading.cosines[place == grade] for grade in GRADES[:-1]]


@styled()
def geometry(readings: Sequence[Reading], width: float = COLUMN) -> Figure:
    """Alignment against uniformity (Wang and Isola 2020), a point an encoder; lower is better in both."""
    # Trained ones first, so that a method looks the same in every figure.
    labels = list(dict.fromkeys(reading.label for reading in sorted(readings, key=lambda one: one.seed is None)))
    figure = Figure(figsize=(width, 2.7), layout="constrained")
    axes = figure.subplots()
    for label, look in zip(labels, looks(len(labels)), strict=True):
        own = [reading for reading in readings if reading.label == label]
        untrained = own[0].seed is None
        axes.plot(
            [reading.uniformity for reading in own], [reading.alignment for reading in own], look.marker,
            color=look.colour, mfc="white" if untrained else look.colour, markersize=5,
            label=f"{label} ({'before' if untrained else seeds(len(own))})",
        )  # fmt: skip
    axes.margins(0.12)
    axes.annotate(
        "better", (0.02, 0.02), (0.14, 0.12), xycoords="axes fraction", fontsize=6, color="0.4",
        arrowprops={"arrowstyle": "->", "color": "0.4", "linewidth": 0.7},
    )  # fmt: skip
    axes.set_xlabel("Uniformity of dev sentences (log of a mean)")
    axes.set_ylabel("Alignment of dev pairs graded above 4")
    _legend(figure, axes, [])
    return figure
