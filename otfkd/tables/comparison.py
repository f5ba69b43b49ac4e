"""The rows of one backbone against others of them: the same numbers for findings, forest plot and table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from otfkd.tables.columns import AVERAGE
from otfkd.tables.definition import RowSpec
from otfkd.tables.differences import Difference, differences
from otfkd.tables.measured import Backbone
from otfkd.tables.table import Line, Part

OWN = "each"  # the comparisons that the definition asks for


@dataclass(frozen=True)
class Comparison:
    """Rows against others.

    Attributes:
        key: names it in a page: `each`, or the row that all others are compared with.
        label: the same to a reader.
        references: row to the row that it is compared with.
        part: the rows as the table shows them.
        measured: what they are made of.
        columns: of the table.
    """

    key: str
    label: str
    references: Mapping[str, str]
    part: Part
    measured: Backbone
    columns: tuple[str, ...]

    @property
    def column(self) -> str:
        """What is compared: the average, where the table shows it."""
        return AVERAGE if AVERAGE in self.columns else self.columns[0]

    @cached_property
    def rows(self) -> dict[str, RowSpec]:
        return {row.name: row for row in self.measured.spec.at(self.measured.profile)}

    @cached_property
    def lines(self) -> dict[str, Line]:
        return dict(zip(self.rows, self.part.lines, strict=True))

    @cached_property
    def found(self) -> dict[str, Difference]:
        """By row, in the column that is compared; Holm's correction is over the rows."""
        at = {name: number for number, name in enumerate(self.rows)}
        references = {at[name]: at[other] for name, other in self.references.items()}
        by_place = differences(self.part.lines, references, [self.columns.index(self.column)])
        by_line = {line: one for (line, _), one in by_place.items()}
        return {name: by_line[number] for name, number in at.items() if number in by_line}


def comparisons(part: Part, measured: Backbone, columns: tuple[str, ...]) -> Iterator[Comparison]:
    """Those that the definition asks for, then all against each row; none in a table of costs or without a baseline."""
    references = measured.spec.references(measured.profile)
    if not references or not columns:
        return
    own = Comparison(OWN, "the row it is to beat", references, part, measured, columns)
    single = {*references.values()}
    every = [] if len(single) == 1 else [own]
    for name, row in sorted(own.rows.items(), key=lambda item: {item[0]} != single):
        others = {other: name for other in own.rows if other != name}
        every.append(replace(own, key=name, label=row.label, references=others))
    yield from (one for one in every if one.found)
