"""Pictures of the space of embeddings, before and after training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from otfkd.base.errors import UserError
from otfkd.reporting.methods import seeds
from otfkd.reporting.style import COLUMN, PAGE, Look, looks_for, put_legend, styled

Array = NDArray[np.float64]

GRADES = range(5)  # 0 stands for grades from 0 to below 1, ..., 4 for those from 4 to 5
BINS = 40


@dataclass(frozen=True)
class Placement:
    """Where an encoder puts the dev sentences on the sphere.

    Attributes:
        label: the encoder.
        seed: of its run; None where it was not trained here.
        alignment: of pairs graded above 4.
        uniformity: of all sentences.
    """

    label: str
    seed: int | None
    alignment: float
    uniformity: float


@dataclass(frozen=True)
class DevPairs(Placement):
    """What an encoder makes of the dev pairs.

    Attributes:
        cosines: (n,), one a pair.
        gold: (n,), their grades.
        spearman: of the two, × 100.
    """

    cosines: Array
    gold: Array
    spearman: float


@styled()
def similarity(encoders: Sequence[DevPairs]) -> Figure:
    """Cosines of dev pairs by gold grade, a panel a label, of its first seed: ridges of area one, medians marked.

    Raises:
        UserError: more encoders than a page holds.
    """
    encoders = _first_seeds(encoders)
    if len(encoders) > 6:
        raise UserError(f"a page holds 6 encoders beside each other, not {len(encoders)}: name fewer runs")
    figure = Figure(figsize=(COLUMN if len(encoders) <= 2 else PAGE, 2.4), layout="constrained")
    panels = figure.subplots(1, len(encoders), sharex=True, sharey=True, squeeze=False)[0]
    lowest = min(float(encoder.cosines.min()) for encoder in encoders)
    edges = np.linspace(np.floor(lowest * 10) / 10, 1, BINS + 1)
    graded = [_by_grade(encoder) for encoder in encoders]
    ridges = [_ridges(groups, edges) for groups in graded]
    tallest = max(float(panel.max()) for panel in ridges)
    for axes, encoder, groups, panel in zip(panels, encoders, graded, ridges, strict=True):
        _draw_ridges(axes, groups, 1.3 * panel / tallest, edges)
        trained = "before" if encoder.seed is None else f"seed {encoder.seed}"
        axes.set_title(f"{encoder.label} ({trained})\nSpearman {encoder.spearman:.2f}")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="y", length=0)
    names = [f"{grade}–{grade + 1}\nn = {len(group)}" for grade, group in zip(GRADES, graded[0], strict=True)]
    panels[0].set_yticks([grade + 0.35 for grade in GRADES], names)
    panels[0].set_ylabel("Gold grade")
    figure.supxlabel("Cosine of a dev pair (line: median)", fontsize=7)
    return figure


def _first_seeds(encoders: Sequence[DevPairs]) -> list[DevPairs]:
    firsts = {encoder.label: encoder for encoder in reversed(encoders)}
    return [encoder for encoder in encoders if firsts[encoder.label] is encoder]


def _by_grade(encoder: DevPairs) -> list[Array]:
    place = np.minimum(np.floor(encoder.gold), GRADES[-1])
    cosines = np.minimum(encoder.cosines, 1)  # that of a sentence with itself may round to more
    return [cosines[place == grade] for grade in GRADES]


def _ridges(groups: Sequence[Array], edges: Array) -> Array:
    """Shares of each grade's pairs in each bin, (grades, bins)."""
    return np.stack([np.histogram(group, edges)[0] / max(len(group), 1) for group in groups])


def _draw_ridges(axes: Axes, groups: Sequence[Array], heights: Array, edges: Array) -> None:
    for grade, cosines, height in zip(GRADES, groups, heights, strict=True):
        shade = colormaps["Blues"](0.2 + 0.17 * grade)
        top = grade + height
        axes.stairs(top, edges, baseline=grade, fill=True, facecolor=shade, zorder=-grade, label=f"_{grade}")
        axes.stairs(top, edges, baseline=grade, color="black", linewidth=0.5, zorder=-grade)
        if len(cosines):
            axes.plot([np.median(cosines)] * 2, [grade, grade + 0.7], color="black", linewidth=1, label="_median")


@styled()
def geometry(placements: Sequence[Placement], width: float = COLUMN, known: Mapping[str, Look] | None = None) -> Figure:
    """Alignment against uniformity (Wang and Isola 2020), a point an encoder; lower is better in both.

    Args:
        placements: of the encoders.
        width: inches.
        known: looks by label; None takes the first ones.
    """
    # Trained ones first, so that a method looks the same in every figure.
    labels = list(dict.fromkeys(one.label for one in sorted(placements, key=lambda one: one.seed is None)))
    figure = Figure(figsize=(width, 2.7), layout="constrained")
    axes = figure.subplots()
    for label, look in zip(labels, looks_for(labels, known), strict=True):
        own = [one for one in placements if one.label == label]
        untrained = own[0].seed is None
        axes.plot(
            [one.uniformity for one in own], [one.alignment for one in own], look.marker,
            color=look.colour, mfc="white" if untrained else look.colour, markersize=5,
            label=f"{label} ({'before' if untrained else seeds(len(own))})",
        )  # fmt: skip
    axes.margins(0.12)
    axes.annotate(
        "better", (0.02, 0.02), (0.14, 0.12), xycoords="axes fraction", fontsize=6, color="0.4",
        arrowprops={"arrowstyle": "->", "color": "0.4", "linewidth": 0.7},
    )  # fmt: skip
    axes.set_xlabel("Uniformity of dev sentences (log of a mean)")
    axes.set_ylabel("Alignment of positive pairs")
    put_legend(figure, axes, [])
    return figure
