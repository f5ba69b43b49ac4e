"""From result rows alone to a table: mean and spread over seeds, and what beats the baseline."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from otfkd.base.errors import UserError
from otfkd.runs.rows import Row
from otfkd.tables.columns import COSTS, average_of_scores, cost_columns, score_columns
from otfkd.tables.definition import RowSpec, TableSpec
from otfkd.tables.differences import differences
from otfkd.tables.notes import notes, rotates, unrotated
from otfkd.tables.table import Cell, Line, Part, Table

_LAST_DIGITS = 1e-6  # in which a mean may differ by the order it is added up in

# Result rows of each table row, one a seed.
Measured = Mapping[str, Sequence[Row]]
ByColumn = Mapping[str, float | None]
BySeed = Mapping[int | None, ByColumn]


def build_table(
    spec: TableSpec, profile: str, measured: Mapping[str | None, Measured], dev_in_test: Mapping[str, int] | None = None
) -> Table:
    """Put result rows into a table.

    Args:
        spec: its definition.
        profile: at which its rows were run.
        measured: backbone (None for the profile's own) to row name to its selected test rows.
        dev_in_test: how many pairs of each test task are dev pairs too; None where nobody counted.

    Raises:
        UserError: rows that were scored on different data or by different protocols, that are no seeds of one config,
            that lack a column, or that no such table may show.
    """
    _check(spec, profile, measured)
    values = {model: {name: _values(spec, profile, part, name) for name in part} for model, part in measured.items()}
    columns = _columns(spec, values)
    parts = []
    for model, part in values.items():
        rows, seeds = measured[model], wanted(spec, profile, measured[model])
        lines = [_line(row, columns, part.get(row.name, {}), rows.get(row.name, ()), seeds) for row in spec.at(profile)]
        published = tuple(quoted for quoted in spec.quoted if quoted.model == model)
        parts.append(Part(model, tuple(_bold(spec, profile, lines)), published))
    every = [row for part in measured.values() for found in part.values() for row in found]
    return Table(spec.title, columns, tuple(parts), notes(spec, profile, every, parts, dev_in_test))


def wanted(spec: TableSpec, profile: str, part: Measured) -> list[int]:
    """The seeds that every trained row of one backbone should have: the definition's, and those that any row has."""
    found = {row.seed for rows in part.values() for row in rows if row.seed is not None}
    return sorted({*spec.profiles[profile].seeds, *found})


def _check(spec: TableSpec, profile: str, measured: Mapping[str | None, Measured]) -> None:
    names, models = {row.name for row in spec.at(profile)}, spec.profiles[profile].models or (None,)
    for model, part in measured.items():
        for name, rows in part.items():
            if name not in names or model not in models:
                raise UserError(
                    f"'{spec.title}' has no row {name}{'' if model is None else f' of {model}'}, but its results do: "
                    "make the table again"
                )
            _check_seeds(spec, name, rows)
            _check_averages(spec, name, rows)
    _check_alike(spec, [row for part in measured.values() for rows in part.values() for row in rows])


def _check_seeds(spec: TableSpec, name: str, rows: Sequence[Row]) -> None:
    """Refuse what are no seeds of one config."""
    seed, times = Counter(row.seed for row in rows).most_common(1)[0]
    if times > 1:
        raise UserError(f"row {name} of '{spec.title}' was given seed {seed} twice: make the table again")
    if len({row.config_hash for row in rows}) > 1:
        raise UserError(f"row {name} of '{spec.title}' was given seeds of different configs: make the table again")


def _check_averages(spec: TableSpec, name: str, rows: Sequence[Row]) -> None:
    """Refuse an average that is of other scores than those beside it."""
    for row in rows:
        given, own = (math.nan if one is None else one for one in (row.average, average_of_scores(row)))
        if not (math.isclose(given, own, rel_tol=0, abs_tol=_LAST_DIGITS) or (math.isnan(given) and math.isnan(own))):
            raise UserError(
                f"row {name} of '{spec.title}' has the average {given:.6f} with seed {row.seed}, and its scores "
                f"make {own:.6f}: restore its results, or make the table again"
            )


def _check_alike(spec: TableSpec, rows: Sequence[Row]) -> None:
    for what in ("suite_sha256", "protocol"):
        found = sorted({getattr(row, what) for row in rows})
        if len(found) > 1:
            raise UserError(
                f"the rows of '{spec.title}' differ in {what} ({', '.join(found)}): run them again under one"
            )


def _values(spec: TableSpec, profile: str, part: Measured, name: str) -> dict[int | None, ByColumn]:
    """A table row's columns by seed."""
    if spec.kind != "cost":
        return {row.seed: score_columns(row, spec.kind) for row in part[name]}
    own = next(row for row in spec.at(profile) if row.name == name)
    return {row.seed: _costs(spec, profile, own, row, _of_seed(part, row.seed)) for row in part[name]}


def _of_seed(part: Measured, seed: int | None) -> dict[str, Row]:
    """The result row that each table row has of a seed."""
    return {name: row for name, rows in part.items() for row in rows if row.seed == seed}


def _costs(spec: TableSpec, profile: str, own: RowSpec, row: Row, of_seed: Mapping[str, Row]) -> ByColumn:
    """What one run cost, the runs of its seed that it started from counted too."""
    lineage = spec.lineage(own, profile)
    if lacking := [name for name in lineage if name not in of_seed]:
        raise UserError(
            f"row {own.name} of '{spec.title}' lacks the run of {lacking[0]} with seed {row.seed}, whose cost is part "
            "of its own: make the table again"
        )
    teacher = own.teacher or spec.baseline
    target = None if teacher is None else of_seed.get(teacher)
    reach = None if target is None or target.cost is None else max(point.dev for point in target.cost.curve)
    return cost_columns(row, [of_seed[name] for name in lineage], reach)


def _columns(spec: TableSpec, values: Mapping[str | None, Mapping[str, BySeed]]) -> tuple[str, ...]:
    """The columns to show, which every result row must have."""
    found = [by for part in values.values() for rows in part.values() for by in rows.values()]
    known = COSTS if spec.kind == "cost" else tuple(found[0]) if found else ()
    wanted = {*known, *(spec.columns or ())}
    if lacking := {column for by in found for column in wanted ^ by.keys()}:
        raise UserError(f"not every row of '{spec.title}' has {', '.join(sorted(lacking))}: score all on one suite")
    return spec.columns or known


def _line(row: RowSpec, columns: Sequence[str], by_seed: BySeed, rows: Sequence[Row], seeds: Sequence[int]) -> Line:
    asked = seeds if row.experiment is not None else [None]
    ordered = sorted(rows, key=lambda one: one.seed or 0)
    dev = {one.seed: selected_dev(one) for one in rows}
    return Line(
        row.label,
        len(by_seed),
        tuple(_cell({seed: by[column] for seed, by in by_seed.items()}) for column in columns),
        missing=tuple(seed for seed in asked if seed not in by_seed),
        steps=tuple(one.step for one in ordered if one.step is not None),
        generations=tuple(one.generation for one in ordered if one.generation is not None),
        unrotated=sum(map(unrotated, rows)) if any(map(rotates, rows)) else 0,
        dev=_cell(dev),
    )


def _cell(values: Mapping[int | None, float | None]) -> Cell:
    """A mean is over all seeds of the row, or it is not shown: one over those that have a value would flatter."""
    known = {seed: value for seed, value in values.items() if value is not None}
    return Cell(known if len(known) == len(values) else {})


def selected_dev(row: Row) -> float | None:
    """The score that selected a model; None where the row does not say."""
    curve = () if row.cost is None else row.cost.curve
    return next((point.dev for point in curve if point.step == row.step), None)


def _bold(spec: TableSpec, profile: str, lines: Sequence[Line]) -> list[Line]:
    """Mark what beats the baseline over seeds; Holm's correction is over all tests of the part."""
    if spec.baseline is None or spec.kind == "cost":
        return list(lines)
    base = [row.name for row in spec.at(profile)].index(spec.baseline)
    others = {at: base for at in range(len(lines)) if at != base}
    found = differences(lines, others, range(len(lines[base].cells)))
    better = {place for place, one in found.items() if one.apart and one.gain > 0}
    return [
        replace(
            line,
            cells=tuple(replace(cell, better=(at, column) in better) for column, cell in enumerate(line.cells)),
        )
        for at, line in enumerate(lines)
    ]
