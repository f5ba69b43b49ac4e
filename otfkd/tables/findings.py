"""What a table found, in a few sentences for each row that others are compared with, made from the rows alone."""

from collections.abc import Iterator, Sequence

from otfkd.tables.columns import AVERAGE, COSTS
from otfkd.tables.comparison import Comparison
from otfkd.tables.differences import Difference
from otfkd.tables.measured import Backbone
from otfkd.tables.table import Line, Part

# What is said of rows, in this order; fewer seeds than `_FEW` see only large differences.
_APART = "Told apart, also after Holm's correction over these rows"
_HINT = "A hint, whose interval leaves out 0 but not after the correction"
_ALIKE = "Not told apart"
_ALIKE_OF_FEW = "Not told apart, which with so few seeds does not mean alike"
_LEAD = "One seed: a lead, no interval"
_UNROTATED = "No claim about rotation, since dev chose models from before it"
_VERDICTS = (_APART, _HINT, _ALIKE, _ALIKE_OF_FEW, _LEAD, _UNROTATED)
_FEW = 5


def findings(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """What rows are compared with, and what came of it."""
    by_reference: dict[str, list[str]] = {}
    for name, other in comparison.references.items():
        if name in comparison.found:
            by_reference.setdefault(other, []).append(name)
    for other, names in by_reference.items():
        yield _against(comparison, other), " ".join(_sentences(comparison, other, names))
    if (why := comparison.measured.uneven) is not None:
        yield "Minutes are not compared", f"{why}."


def _against(comparison: Comparison, other: str) -> str:
    what = "" if comparison.column == AVERAGE else f" on {comparison.column}"
    line = comparison.lines[other]
    before = f"chosen from before its first rotation in {line.unrotated} of {line.n} seeds" if line.unrotated else ""
    known = "; ".join(filter(None, [_took(comparison, other), before]))
    return f"Against ‘{line.label}’{what}{known and f' ({known})'}"


def _sentences(comparison: Comparison, other: str, names: Sequence[str]) -> Iterator[str]:
    verdicts = {name: verdict(comparison.lines[name], comparison.found[name]) for name in names}
    if {_HINT, _ALIKE, _ALIKE_OF_FEW} & {*verdicts.values()} and _APART not in verdicts.values():
        yield "No row is told apart after Holm's correction over these rows."
    for said in _VERDICTS:
        rows = [_row(comparison, name, other) for name, own in verdicts.items() if own == said]
        if rows:
            yield f"{said}: {'; '.join(rows)}."


def verdict(line: Line, found: Difference) -> str:
    """What may be said of a row and its difference."""
    if line.unrotated:
        return _UNROTATED
    if found.n == 1:
        return _LEAD
    if found.apart:
        return _APART
    if found.hinted:
        return _HINT
    return _ALIKE if found.n >= _FEW else _ALIKE_OF_FEW


def _row(comparison: Comparison, name: str, other: str) -> str:
    line, found = comparison.lines[name], comparison.found[name]
    before = f"so in {line.unrotated} of {line.n} seeds" if line.unrotated else ""
    seeds = f"n = {found.n}" if found.n > 1 else ""
    took = _took(comparison, name)
    return ", ".join(
        filter(None, [f"‘{line.label}’ {found.text}", seeds, before, took if took != _took(comparison, other) else ""])
    )


def _took(comparison: Comparison, name: str) -> str:
    """A row's encoder passes, its teacher's too, and its minutes where they compare; nothing where not known."""
    row, measured = comparison.rows[name], comparison.measured
    passes = measured.compute(row) if name in measured.runs else None
    if passes is None:
        return ""
    minutes = measured.minutes(row)
    return f"{passes:,.0f} passes" + ("" if minutes is None else f" and {minutes:,.1f} minutes")


def costs(part: Part, measured: Backbone, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Of a table of costs: encoder passes against the baseline's, and minutes where they compare."""
    names = [row.name for row in measured.spec.at(measured.profile)]
    if measured.spec.baseline is not None:
        base = part.lines[names.index(measured.spec.baseline)]
        for column in [COSTS[3]] if measured.uneven is not None else [COSTS[3], COSTS[1]]:
            at = columns.index(column) if column in columns else None
            before = None if at is None else base.cells[at].mean
            if at is not None and before:
                others = [(line.label, line.cells[at].mean) for line in part.lines if line is not base]
                told = [f"‘{label}’ ×{mean / before:.2f}" for label, mean in others if mean is not None]
                if told:
                    yield f"{column}, ‘{base.label}’ {before:.2f}", f"{'; '.join(told)}."
    if (why := measured.uneven) is not None:
        yield "Minutes are not compared", f"{why}."
