"""How far a row of a table is from another over the seeds that both have, and whether they can be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from otfkd.evaluation.significance import ALPHA, Interval, alike, holm, paired_t
from otfkd.tables.table import Cell, Line

# A line and a column of a table's part.
Place = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """A row minus another in one column.

    Attributes:
        n: seeds that both have.
        gain: mean over them.
        interval: 95 % for that mean over seeds (paired t); None for one seed, or where all seeds differ by the same.
        p: of no difference; None for one seed.
        adjusted: p after Holm's correction over the tests made together.
    """

    n: int
    gain: float
    interval: Interval | None = None
    p: float | None = None
    adjusted: float | None = None

    @property
    def apart(self) -> bool:
        """Whether the two can be told apart at 5 %, after Holm's correction."""
        return self.adjusted is not None and self.adjusted < ALPHA

    @property
    def hinted(self) -> bool:
        """Whether they can be by the interval alone, which makes no allowance for the other tests."""
        return not self.apart and self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    @property
    def text(self) -> str:
        gain = signed(self.gain)
        return gain if self.interval is None else f"{gain} ({minus(self.interval[0])} to {minus(self.interval[1])})"


def signed(value: float) -> str:
    """Two digits and a sign, which is a minus and no hyphen."""
    return f"{value:+.2f}".replace("-", "−")


def minus(value: float) -> str:
    """Two digits, with a sign below 0."""
    return f"{value:.2f}".replace("-", "−")


def differences(
    lines: Sequence[Line], references: Mapping[int, int], columns: Sequence[int]
) -> dict[Place, Difference]:
    """Of each line and column to the line's reference; Holm's correction is over all of them.

    Args:
        lines: of one part of a table.
        references: line to the line that it is compared with.
        columns: in which.
    """
    found = {
        (at, column): difference
        for at, other in references.items()
        for column in columns
        if (difference := _difference(lines[other].cells[column], lines[at].cells[column])) is not None
    }
    tested = {place: one.p for place, one in found.items() if one.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {place: replace(one, adjusted=adjusted.get(place)) for place, one in found.items()}


def _difference(base: Cell, cell: Cell) -> Difference | None:
    """None without a common seed, an untrained encoder having none."""
    common = sorted(seed for seed in cell.values if seed is not None and seed in base.values)
    if not common:
        return None
    before, after = (np.array([one.values[seed] for seed in common]) for one in (base, cell))
    gain = fmean(after) - fmean(before)
    if len(common) == 1:
        return Difference(1, gain)
    # Alike, as accuracies of few examples can be, it has no p of its own and still counts among the tests.
    if alike(before, after):
        return Difference(len(common), gain, p=1.0)
    interval, p = paired_t(before, after)
    return Difference(len(common), gain, interval, p)
