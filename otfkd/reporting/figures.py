"""Pictures of how runs went: dev score over the teacher's generations, and how student and teacher agreed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from otfkd.base.errors import UserError
from otfkd.reporting.methods import Course, Method, Moment, TrainedRun, shared_moments
from otfkd.reporting.style import Look, looks, looks_for, put_legend, styled, width_for
from otfkd.runs.rotations import Rotated

BEFORE, AFTER = 0, 1  # of a rotation
_FOLLOWING: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.6", "hatch": "//////", "linewidth": 0.5}
_AGREEMENT = {"agreement": "Agreement (Spearman)", "kl": "KL (nats)"}


@styled()
def curves(methods: Sequence[Method[Course]], known: Mapping[str, Look] | None = None) -> Figure:
    """Dev score against optimizer step, a line a method, above the generations of its teachers.

    Thick is the mean over seeds, thin is each of them, their range is shaded; a star is the step that dev chose.

    Args:
        methods: at most as many as there are looks, where none are known.
        known: looks by label; None takes the first ones.
    """
    width = width_for(len(methods))
    lanes = [lane for method in methods for lane in _lanes(method, letters=int(16 * width))]
    height = 0.16 * sum(lane.height for lane in lanes)
    figure = Figure(figsize=(width, 2.3 + height), layout="constrained")
    ratios = [2.0, height] if lanes else [1.0]
    rows = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    above, below = rows[0], rows[-1]
    for step in sorted({step for lane in lanes for step in lane.course.rotated}):
        above.axvline(step, color="0.8", linewidth=0.7, zorder=0, label="_rotation")
    styles = looks_for([method.label for method in methods], known)
    for number, (method, look) in enumerate(zip(methods, styles, strict=True)):
        _draw_dev(above, method, look, number)
    above.set_ylabel("Dev score (Spearman × 100)")
    below.set_xlabel("Optimizer step")
    below.set_xlim(left=0)
    handles: list[Artist] = [
        Line2D([], [], linestyle="", marker="*", color="0.3", markersize=7, label="selected by dev")
    ]
    if lanes:
        _draw_lanes(below, lanes)
        handles += _lane_handles([lane.course for lane in lanes])
    put_legend(figure, above, handles)
    return figure


def _lane_handles(courses: Sequence[Course]) -> list[Artist]:
    """What the marks of the strips mean, as far as there are such."""
    found: list[Artist] = []
    if any(course.rotated for course in courses):
        found.append(Line2D([], [], color="0.8", linewidth=0.7, label="rotation to a new teacher"))
    if any(course.refused for course in courses):
        found.append(Line2D([], [], linestyle="", marker="x", color="black", label="refused rotation"))
    if any(course.follows is not None for course in courses):
        found.append(Patch(label="teacher that follows the student: its moving average", **_FOLLOWING))
    return found


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
    """A strip that shows one course of teachers, of one seed or of several that had the same.

    Attributes:
        label: whose.
        course: that of the first seed.
        last: the last step of any of them.
        told: why no rotation took place, in lines.
    """

    label: str
    course: Course
    last: int
    told: list[str]

    @property
    def height(self) -> float:
        return 1.0 + 0.6 * len(self.told) + 0.3 * bool(self.told)


def _lanes(method: Method[Course], letters: int) -> list[_Lane]:
    """One for all seeds of a method where they rotated alike, else one each; none where nothing was due."""
    courses: dict[Any, list[Course]] = {}
    for run in method.runs:
        if run.rotated or run.refused or run.follows is not None:
            courses.setdefault((run.rotated, run.refused, run.follows), []).append(run)

    def label(runs: Sequence[Course]) -> str:
        whole = len(runs) == len(method.runs)
        return method.label if whole else f"{method.label}, seed {', '.join(str(run.seed) for run in runs)}"

    def told(runs: Sequence[Course]) -> list[str]:
        first = runs[0].without_rotation or ""
        alike = all(run.without_rotation == first for run in runs)
        return wrap(first if alike or not first else f"seed {runs[0].seed}: {first}", letters)

    return [_Lane(label(runs), runs[0], max(run.last for run in runs), told(runs)) for runs in courses.values()]


def _draw_lanes(axes: Axes, lanes: Sequence[_Lane]) -> None:
    tops = [0.0, *accumulate(lane.height for lane in lanes)]
    for top, lane in zip(tops, lanes, strict=False):
        _draw_lane(axes, lane, top + 0.5)
    axes.set_yticks([top + 0.5 for top in tops[:-1]], [f"teacher of {lane.label}" for lane in lanes], fontsize=5.5)
    axes.set_ylim(tops[-1], 0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_lane(axes: Axes, lane: _Lane, row: float) -> None:
    """The teacher's generations as a bar, numbered as far as they fit; hatched from where it follows the student."""
    course = lane.course
    end = lane.last if course.follows is None else course.follows
    starts = (0, *course.rotated)
    spans = [(start, stop - start) for start, stop in pairwise((*starts, end))]
    shades = ["0.88" if generation % 2 else "white" for generation in range(len(starts))]
    axes.broken_barh(spans, (row - 0.42, 0.84), facecolors=shades, edgecolor="0.6", linewidth=0.5)
    numbered = len(starts) if end > lane.last / 25 else 0  # what follows almost from the start leaves no room
    for generation in range(0, numbered, 1 + len(starts) // 18):
        at = (starts[generation], row)
        axes.annotate(str(generation), at, (2, 0), textcoords="offset points", va="center", fontsize=5.5)
    if course.follows is not None:
        axes.broken_barh([(end, lane.last - end)], (row - 0.42, 0.84), label="_follows", **_FOLLOWING)
    axes.plot(course.refused, [row] * len(course.refused), "x", color="black", markersize=4, label="_refused")
    if lane.told:
        text = "\n".join(lane.told)
        told = axes.annotate(text, (0, row + 0.5), (2, 0), textcoords="offset points", va="top", fontsize=4.5)
        told.set_in_layout(False)  # it would take its width from the panels


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
    unrotated = [told for method in methods if (told := _without_rotation(method)) is not None]
    if not rotating:
        why = f" ({'; '.join(unrotated)})" if unrotated else ""
        raise UserError(
            f"none of the runs rotated a teacher{why}, so there is no agreement to draw: name runs that did"
        )
    figure = Figure(figsize=(width_for(len(rotating)), 3.4), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (measure, label) in zip(panels, _AGREEMENT.items(), strict=True):
        for method, look in rotating:
            _draw_around_rotations(axes, method, look, measure)
        axes.set_ylabel(label)
    panels[1].set_xlabel("Optimizer step")
    panels[1].set_xlim(left=0)
    marks = (("before a rotation", "white"), ("after it", "0.3"))
    handles = [
        Line2D([], [], linestyle="", marker="o", color="0.3", mfc=inside, label=label) for label, inside in marks
    ]
    put_legend(
        figure,
        panels[0],
        [*handles, *(Line2D([], [], linestyle="", label="\n".join(wrap(told, 60))) for told in unrotated)],
    )
    return figure


def _without_rotation(method: Method[TrainedRun]) -> str | None:
    """Why a method has no rotation to draw although some were due; where its seeds differ, as the first has it."""
    told = [run.without_rotation for run in method.runs]
    of_one = f"seed {method.runs[0].seed}: " if len(set(told)) > 1 else ""
    return None if None in told else f"{method.legend}: {of_one}{told[0]}"


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
