"""A forest plot in a page: each row's difference with its interval, as text and as a strip that fills its column."""

from html import escape

from matplotlib.ticker import MaxNLocator

from otfkd.tables.comparison import OWN, Comparison
from otfkd.tables.differences import Difference, signed
from otfkd.tables.looks import Looks
from otfkd.tables.markup import key, mark, tag

_INK, _FAINT = "#1a1a1a", "#dddddd"
_MARGIN = 4.0  # percent on each side, for markers at the ends
_TICKS = MaxNLocator(nbins=5, steps=[1, 2, 5, 10])


def forest(comparison: Comparison, looks: Looks) -> str:
    """The plot of the column that is compared, row by row in the order of the table.

    Positions along a strip are shares of its width, so nothing is stretched or shrunk with the page.
    """
    found = comparison.found
    ends = [0.0, *(end for one in found.values() for end in (one.gain, *(one.interval or ())))]
    scale = _Scale(min(ends), max(ends))
    lines = [_line(comparison, name, one, scale, looks) for name, one in found.items()]
    what = "average" if comparison.column == "average" else comparison.column
    caption = (
        f"Difference of the {escape(what)} from {_named(comparison)}, in points, over common seeds: the mean, and "
        "its 95 % interval (paired t over seeds; none for one seed). Filled: told apart at 5 % after Holm's correction "
        "over these rows."
    )
    axis = tag("div", tag("span", "", kind="label") + scale.axis() + tag("span", "", kind="value"), kind="axis")
    plot = tag("div", "\n".join([*lines, axis]), kind="forest")
    return tag("figure", f"\n{plot}\n{tag('figcaption', caption)}\n")


def _named(comparison: Comparison) -> str:
    label = escape(comparison.label)
    return label if comparison.key == OWN else f"‘{label}’"


class _Scale:
    """From differences to shares of a strip's width."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._span = low, max(high - low, 1e-9)
        self._ticks = [float(tick) for tick in _TICKS.tick_values(low, high) if low - 1e-9 <= tick <= high + 1e-9]

    def at(self, value: float) -> str:
        return f"{_MARGIN + (100 - 2 * _MARGIN) * (value - self._low) / self._span:.2f}%"

    def axis(self) -> str:
        labels = "".join(
            f'<text x="{self.at(tick)}" y="14" text-anchor="middle">{signed(tick) if tick else "0"}</text>'
            for tick in self._ticks
        )
        return f'<svg class="strip" height="20" role="presentation">{labels}</svg>'

    def grid(self) -> str:
        return "".join(
            f'<line x1="{at}" x2="{at}" y1="0" y2="100%" stroke="{_INK if tick == 0 else _FAINT}"/>'
            for tick, at in ((tick, self.at(tick)) for tick in self._ticks)
        )


def _line(comparison: Comparison, name: str, found: Difference, scale: _Scale, looks: Looks) -> str:
    label = key(looks[name]) + escape(comparison.lines[name].marked)
    if len({*comparison.references.values()}) > 1:
        label += tag("small", f"against ‘{escape(comparison.rows[comparison.references[name]].label)}’")
    bar = ""
    if found.interval is not None:
        low, high = map(scale.at, found.interval)
        bar = f'<line x1="{low}" x2="{high}" y1="50%" y2="50%" stroke="{looks[name].colour}" stroke-width="2"/>'
    dot = mark(looks[name], scale.at(found.gain), "50%", filled=found.apart)
    strip = f'<svg class="strip" height="24" aria-hidden="true">{scale.grid()}{bar}{dot}</svg>'
    seeds = f"n = {found.n}" if found.n > 1 else "one seed"
    value = tag("span", f"{found.text} {tag('small', seeds)}", kind="value")
    return tag("div", f"{tag('span', label, kind='label')}{strip}{value}")
