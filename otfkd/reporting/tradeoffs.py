"""Pictures of what a score costs: against the rotation interval, and against compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from otfkd.reporting.methods import seeds
from otfkd.reporting.style import COLUMN, Look, legend_above, looks_for, styled


@dataclass(frozen=True)
class Setting:
    """One setting of one method.

    Attributes:
        label: the series it belongs to.
        x: its interval in optimizer steps, or its compute in encoder forward passes.
        scores: one a seed.
    """

    label: str
    x: float
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def spread(self) -> float:
        """Sample standard deviation over seeds; 0 for one, which shows no bar."""
        return stdev(self.scores) if len(self.scores) > 1 else 0.0


def _counted(label: str, points: Sequence[Setting]) -> str:
    counts = sorted({len(point.scores) for point in points})
    return f"{label} ({seeds(counts[0]) if len(counts) == 1 else f'{counts[0]} to {counts[-1]} seeds'})"


@styled()
def against_interval(
    points: Sequence[Setting],
    measure: str,
    fixed: Mapping[str, tuple[float, ...]] | None = None,
    width: float = COLUMN,
    known: Mapping[str, Look] | None = None,
) -> Figure:
    """Score against rotation interval: means with a bar of one standard deviation to each side, every seed a dot.

    Args:
        points: intervals in optimizer steps; those of one label are one line.
        measure: what the scores are, with their unit.
        fixed: scores of what has no interval, one a seed, drawn as a level.
        width: inches.
        known: looks by label; None takes the first ones.
    """
    figure = Figure(figsize=(width, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    labels = list(dict.fromkeys(point.label for point in points))
    levels = fixed or {}
    styles = looks_for([*labels, *levels], known)
    handles: list[Artist | Container] = []
    for label, look in zip(labels, styles, strict=False):
        own = sorted((point for point in points if point.label == label), key=lambda point: point.x)
        handles.append(_draw_series(axes, own, look))
    for (label, scores), look in zip(levels.items(), styles[len(labels) :], strict=True):
        handles.append(_draw_level(axes, Setting(label, 0, scores), look))
    at = sorted({point.x for point in points})
    axes.set_xticks(at, [f"{x:g}" for x in at])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Rotation interval (optimizer steps, log scale)")
    axes.set_ylabel(measure)
    legend_above(figure, handles)
    return figure


def _draw_series(axes: Axes, points: Sequence[Setting], look: Look) -> Container:
    every = [(point.x, score) for point in points for score in point.scores]
    axes.plot(*zip(*every, strict=True), ".", color=look.colour, alpha=0.4, markersize=3, mew=0, label="_seeds")
    return axes.errorbar(
        [point.x for point in points], [point.mean for point in points], [point.spread for point in points],
        color=look.colour, linestyle=look.line, marker=look.marker, capsize=2, elinewidth=0.8,
        label=_counted(points[0].label, points),
    )  # fmt: skip


def _draw_level(axes: Axes, level: Setting, look: Look) -> Artist:
    name = _counted(level.label, [level])
    line = axes.axhline(level.mean, color=look.colour, linestyle=look.line, linewidth=1, label=name)
    low, high = level.mean - level.spread, level.mean + level.spread
    axes.axhspan(low, high, color=look.colour, alpha=0.1, linewidth=0, zorder=0)
    return line


def pareto_front(points: Sequence[Setting]) -> list[Setting]:
    """The points that no other beats: every one at most as dear has a lower mean, from cheap to dear."""
    front: list[Setting] = []
    for point in sorted(points, key=lambda point: (point.x, -point.mean)):
        if not front or point.mean > front[-1].mean:
            front.append(point)
    return front


@styled()
def against_compute(
    points: Sequence[Setting], measure: str, width: float = COLUMN, known: Mapping[str, Look] | None = None
) -> Figure:
    """Score against compute: a point a method, filled on the Pareto front, with a bar of one standard deviation.

    Args:
        points: each with its compute in encoder forward passes.
        measure: what the scores are, with their unit.
        width: inches.
        known: looks by label; None takes the first ones.
    """
    figure = Figure(figsize=(width, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    front = pareto_front(points)
    handles: list[Artist | Container] = []
    for point, look in zip(points, looks_for([point.label for point in points], known), strict=True):
        handles.append(axes.errorbar(
            [point.x], [point.mean], [point.spread], color=look.colour, marker=look.marker, linestyle="",
            mfc=look.colour if point in front else "white", markersize=5, capsize=2, elinewidth=0.8, zorder=3,
            label=_counted(point.label, [point]),
        ))  # fmt: skip
    handles += axes.plot(
        [point.x for point in front], [point.mean for point in front], drawstyle="steps-post", color="0.6",
        linewidth=0.9, zorder=1, label="Pareto front",
    )  # fmt: skip
    axes.margins(0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Compute (encoder forward passes, log scale)")
    axes.set_ylabel(measure)
    legend_above(figure, handles)
    return figure
