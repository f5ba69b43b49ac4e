"""Pictures of how runs went: dev score over the teacher's generations, and how student and teacher agreed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from otfkd.base.errors import UserError
from otfkd.reporting.methods import Course, Method, Moment, TrainedRun, shared_moments
from otfkd.reporting.style import Look, looks, put_legend, styled, width_for
from otfkd.runs.rotations import Rotated

BEFORE, AFTER = 0, 1  # of a rotation
_AGREEMENT = {"agreement": "Agreement (Spearman)", "kl": "KL (nats)"}


@styled()
def curves(methods: Sequence[Method[Course]]) -> Figure:
    """Dev score against optimizer step, a line a method, above the generations of its teachers.

    Thick is the mean over seeds, thin is each of them, their range is shaded; a star is the step that dev chose.
    """
    lanes = [lane for method in methods for lane in _lanes(method)]
    figure = Figure(figsize=(width_for(len(methods)), 2.3 + 0.16 * len(lanes)), layout="constrained")
    ratios = [2.0, 0.16 * len(lanes)] if lanes else [1.0]
    rows = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    above, below = rows[0], rows[-1]
    for step in sorted({step for lane in lanes for step in lane.rotated}):
        above.axvline(step, color="0.8", linewidth=0.7, zorder=0, label="_rotation")
    for number, (method, look) in enumerate(zip(methods, looks(len(methods)), strict=True)):
        _draw_dev(above, method, look, number)
    above.set_ylabel("Dev score (Spearman × 100)")
    below.set_xlabel("Optimizer step")
    below.set_xlim(left=0)
    handles = [Line2D([], [], linestyle="", marker="*", color="0.3", markersize=7, label="selected by dev")]
    if lanes:
        _draw_lanes(below, lanes)
        handles.append(Line2D([], [], color="0.8", linewidth=0.7, label="rotation to a new teacher"))
        if any(lane.refused for lane in lanes):
            handles.append(Line2D([], [], linestyle="", marker="x", color="black", label="refused rotation"))
    put_legend(figure, above, handles)
    return figure


def _draw_dev(axes: Axes, method: Method[Course], look: Look, number: int) -> None:
    series = [{(step, BEFORE): dev for step, dev in run.dev.items()} for run in method.runs]
    mean = _lines(axes, method, look, series)
    mean.set_marker(look.marker)
    apart = 1 + len(method.runs[0].dev) // 10
    mean.set_markevery((number % apart, apart))  # few enough to leave the dashes visible
    chosen = np.array([run.selected for run in method.runs])
    axes.plot(*chosen.T, "*", color=look.colour, markersize=9, mec="white", mew=0.6, zorder=4, label="_selected")


@dataclass(frozen=True)
class _Lane:
    """A strip that shows one course of teacher generations."""

    label: str
    rotated: tuple[int, ...]
    refused: tuple[int, ...]
    last: int


def _lanes(method: Method[Course]) -> list[_Lane]:
    """One for all seeds of a method where they rotated alike, else one each; none where nothing was due."""
    courses: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Course]] = {}
    for run in method.runs:
        if run.rotated or run.refused:
            courses.setdefault((run.rotated, run.refused), []).append(run)

    def label(runs: Sequence[Course]) -> str:
        whole = len(runs) == len(method.runs)
        return method.label if whole else f"{method.label}, seed {', '.join(str(run.seed) for run in runs)}"

    return [_Lane(label(runs), *course, max(run.last for run in runs)) for course, runs in courses.items()]


def _draw_lanes(axes: Axes, lanes: Sequence[_Lane]) -> None:
    for row, lane in enumerate(lanes):
        starts = (0, *lane.rotated)
        spans = [(start, stop - start) for start, stop in pairwise((*starts, lane.last))]
        shades = ["0.88" if generation % 2 else "white" for generation in range(len(starts))]
        axes.broken_barh(spans, (row - 0.42, 0.84), facecolors=shades, edgecolor="0.6", linewidth=0.5)
        for generation in range(0, len(starts), 1 + len(starts) // 18):
            at = (starts[generation], row)
            axes.annotate(str(generation), at, (2, 0), textcoords="offset points", va="center", fontsize=5.5)
        axes.plot(lane.refused, [row] * len(lane.refused), "x", color="black", markersize=4, label="_refused")
    axes.set_yticks(range(len(lanes)), [f"teacher of {lane.label}" for lane in lanes], fontsize=5.5)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


@styled()
def agreement(methods: Sequence[Method[TrainedRun]]) -> Figure:
    """How student and teacher agree before each rotation (open) and after it (filled): rank agreement above, KL below.

    Raises:
        UserError: nothing was rotated, or the runs do not say how the two agreed.
    """
    rotating = [
        (method, look)
        for method, look in zip(methods, looks(len(methods)), strict=True)
        if any(_rotations(run) for run in method.runs)
    ]
    if not rotating:
        raise UserError("none of the runs rotated a teacher, so there is no agreement to draw: name runs that did")
    figure = Figure(figsize=(width_for(len(rotating)), 3.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (measure, label) in zip(panels, _AGREEMENT.items(), strict=True):
        for method, look in rotating:
            _draw_around_rotations(axes, method, look, measure)
        axes.set_ylabel(label)
    panels[1].set_xlabel("Optimizer step")
    panels[1].set_xlim(left=0)
    marks = (("before a rotation", "white"), ("after it", "0.3"))
    handles = [Line2D([], [], linestyle="", marker="o", color="0.3", mfc=fill, label=label) for label, fill in marks]
    put_legend(figure, panels[0], handles)
    return figure


def _draw_around_rotations(axes: Axes, method: Method[TrainedRun], look: Look, measure: str) -> None:
    series = [_around_rotations(run, measure) for run in method.runs]
    _lines(axes, method, look, series)
    shared = shared_moments(series)
    for when, fill in ((BEFORE, "white"), (AFTER, look.colour)):
        at = [moment for moment in shared if moment[1] == when]
        axes.plot(
            [step for step, _ in at], [fmean(one[moment] for one in series) for moment in at], look.marker,
            color=look.colour, mfc=fill, zorder=4, label=f"_{method.label} {'after' if when else 'before'}",
        )  # fmt: skip


def _rotations(run: TrainedRun) -> list[Rotated]:
    return [record for record in run.rotations if isinstance(record, Rotated)]


def _around_rotations(run: TrainedRun, measure: str) -> dict[Moment, float]:
    """What was measured before and after each rotation, where there was a teacher to measure."""
    found = {}
    for record in _rotations(run):
        for phase, name in ((BEFORE, f"{measure}_before"), (AFTER, f"{measure}_after")):
            if name not in record.model_fields_set:  # None would say that there was no teacher to measure
                raise UserError(
                    f"{run.folder.rotations_file} does not say how student and teacher agreed, as those of an earlier "
                    "otfkd do not: train it again with fresh=true"
                )
            value = getattr(record, name)
            if value is not None:
                found[record.step, phase] = float(value)
    return found


def _lines(axes: Axes, method: Method[Course], look: Look, series: Sequence[Mapping[Moment, float]]) -> Line2D:
    """The seeds of a method thin where there are several, their range shaded, their mean thick; gives the last."""
    alone = len(series) == 1  # under the mean it would only fill its dashes
    for run, one in () if alone else zip(method.runs, series, strict=True):
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
