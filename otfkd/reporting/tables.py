"""Tables: mean and spread over seeds, from result rows alone, the same bytes from the same rows."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from otfkd.data.files import write_text
from otfkd.errors import UserError
from otfkd.evaluation.significance import Verdict, adjust, over_seeds
from otfkd.reporting.columns import COSTS, cost_columns, score_columns
from otfkd.reporting.definition import QuotedSpec, RowSpec, TableSpec
from otfkd.results import Row

MISSING = "—"
# Rows of each table row, one a seed.
Measured = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Cell:
    """One table row's values in one column.

    Attributes:
        values: by seed, None being the seed of a model that was not trained; none where nothing was measured.
        better: whether the difference from the baseline is above 0 by the paired interval over seeds, after Holm.
    """

    values: Mapping[int | None, float]
    better: bool = False

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    def text(self, plus_minus: str) -> str:
        if self.mean is None:
            return MISSING
        return f"{self.mean:.2f}" if self.spread is None else f"{self.mean:.2f}{plus_minus}{self.spread:.2f}"


@dataclass(frozen=True)
class Line:
    """A row of a table: n is over how many seeds its cells are means."""

    label: str
    n: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Part:
    """The rows of one backbone; `model` is None where the table has only the profile's own."""

    model: str | None
    lines: tuple[Line, ...]
    quoted: tuple[QuotedSpec, ...]


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        title: above it.
        columns: of every part.
        parts: one for each backbone.
        notes: what a reader must know, below it.
    """

    title: str
    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        lines = ["| | n | " + " | ".join(self.columns) + " |", "|---|--:|" + "--:|" * len(self.columns)]
        for part in self.parts:
            lines += [_markdown(f"*{part.model}*", "", [""] * len(self.columns))] if part.model else []
            for line in part.lines:
                cells = [f"**{cell.text(' ± ')}**" if cell.better else cell.text(" ± ") for cell in line.cells]
                lines.append(_markdown(line.label, str(line.n or MISSING), cells))
            for quoted in part.quoted:
                lines.append(_markdown(f"*quoted:* {quoted.label}", MISSING, self._published(quoted)))
        return "\n\n".join([f"**{self.title}**", "\n".join(lines), *self.notes]) + "\n"

    def latex(self) -> str:
        r"""The table in booktabs style; `\usepackage{booktabs}` is all it needs."""
        head = " & ".join(["", "$n$", *map(_escaped, self.columns)])
        lines = [f"% {self.title}", r"\begin{tabular}{l" + "r" * (1 + len(self.columns)) + "}", r"\toprule"]
        lines += [head + r" \\"]
        for part in self.parts:
            lines.append(r"\midrule")
            if part.model:
                lines.append(rf"\multicolumn{{{2 + len(self.columns)}}}{{l}}{{\emph{{{_escaped(part.model)}}}}} \\")
            for line in part.lines:
                cells = [_latex(cell) for cell in line.cells]
                lines.append(" & ".join([_escaped(line.label), str(line.n or "--"), *cells]) + r" \\")
            if part.quoted:
                lines.append(r"\midrule")
            for quoted in part.quoted:
                cells = [text.replace(MISSING, "--") for text in self._published(quoted)]
                lines.append(" & ".join([rf"\emph{{quoted:}} {_escaped(quoted.label)}", "--", *cells]) + r" \\")
        notes = [f"% {note}" for note in self.notes]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"

    def csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            ["model", "row", "source", "n", *(f"{column} {what}" for column in self.columns for what in ("mean", "sd"))]
        )
        for part in self.parts:
            for line in part.lines:
                values = [value for cell in line.cells for value in (cell.mean, cell.spread)]
                numbers = ["" if value is None else f"{value:.4f}" for value in values]
                writer.writerow([part.model or "", line.label, "measured", line.n, *numbers])
            for quoted in part.quoted:
                numbers = [text for column in self.columns for text in (str(quoted.scores.get(column, "")), "")]
                writer.writerow([part.model or "", quoted.label, f"quoted: {quoted.source}", "", *numbers])
        return buffer.getvalue()

    def _published(self, quoted: QuotedSpec) -> list[str]:
        return [f"{quoted.scores[column]:.2f}" if column in quoted.scores else MISSING for column in self.columns]

    def files(self, name: str) -> dict[str, str]:
        """What is written of it: file name to text."""
        return {f"{name}.md": self.markdown(), f"{name}.csv": self.csv(), f"{name}.tex": self.latex()}

    def write(self, folder: Path, name: str) -> None:
        for file, text in self.files(name).items():
            write_text(folder / file, text)


def build_table(spec: TableSpec, profile: str, measured: Mapping[str | None, Measured]) -> Table:
    """Put result rows into a table.

    Args:
        spec: its definition.
        profile: at which its rows were run.
        measured: backbone (None for the profile's own) to row name to its selected test rows.

    Raises:
        UserError: rows that were scored on different data or by different protocols, or that no such table may show.
    """
    everything = [row for part in measured.values() for rows in part.values() for row in rows]
    for what in ("suite_sha256", "protocol"):
        found = sorted({getattr(row, what) for row in everything})
        if len(found) > 1:
            raise UserError(
                f"the rows of '{spec.title}' differ in {what} ({', '.join(found)}): run them again under one"
            )
    values = {model: {name: _values(spec, profile, part, name) for name in part} for model, part in measured.items()}
    columns = spec.columns or _columns(spec, values)
    parts = []
    for model, part in values.items():
        lines = [_line(row, columns, part.get(row.name, {})) for row in spec.at(profile)]
        published = tuple(quoted for quoted in spec.quoted if quoted.model == model)
        parts.append(Part(model, tuple(_bold(spec, profile, lines)), published))
    return Table(spec.title, columns, tuple(parts), _notes(spec, profile, everything))


ByColumn = Mapping[str, float | None]
BySeed = Mapping[int | None, ByColumn]


def _values(spec: TableSpec, profile: str, part: Measured, name: str) -> dict[int | None, ByColumn]:
    """A table row's columns by seed."""
    if spec.kind != "cost":
        return {row.seed: score_columns(row, spec.kind) for row in part[name]}
    teacher = next(row.teacher for row in spec.at(profile) if row.name == name) or None
    taught = {row.seed: row for row in part.get(teacher, ())} if teacher else {}
    first = {row.seed: row for row in part.get(spec.baseline or "", ())}
    found: dict[int | None, ByColumn] = {}
    for row in part[name]:
        before = taught.get(row.seed)
        target = before or first.get(row.seed)
        reach = None if target is None or target.cost is None else max(point.dev for point in target.cost.curve)
        found[row.seed] = cost_columns(row, before, reach)
    return found


def _columns(spec: TableSpec, values: Mapping[str | None, Mapping[str, BySeed]]) -> tuple[str, ...]:
    if spec.kind == "cost":
        return COSTS
    found = [by for part in values.values() for rows in part.values() for by in rows.values()]
    return tuple(found[0]) if found else ()


def _line(row: RowSpec, columns: Sequence[str], by_seed: BySeed) -> Line:
    cells = []
    for column in columns:
        known = {seed: by.get(column) for seed, by in by_seed.items()}
        cells.append(Cell({seed: value for seed, value in known.items() if value is not None}))
    return Line(row.label, len(by_seed), tuple(cells))


def _bold(spec: TableSpec, profile: str, lines: Sequence[Line]) -> list[Line]:
    """Mark what beats the baseline over seeds; Holm's correction is over all tests of the part."""
    names = [row.name for row in spec.at(profile)]
    if spec.baseline is None or spec.kind == "cost":
        return list(lines)
    base = lines[names.index(spec.baseline)]
    tests: dict[tuple[int, int], Verdict] = {}
    for at, line in enumerate(lines):
        for column, (cell, reference) in enumerate(zip(line.cells, base.cells, strict=True)):
            common = [seed for seed in cell.values if seed is not None and seed in reference.values]
            if line is not base and len(common) > 1:
                pair = [np.array([one.values[seed] for seed in common]) for one in (reference, cell)]
                tests[at, column] = over_seeds("", *pair)
    verdicts = dict(zip(tests, adjust(list(tests.values())), strict=True))
    return [
        replace(
            line,
            cells=tuple(
                replace(cell, better=_beats(verdicts.get((at, column)))) for column, cell in enumerate(line.cells)
            ),
        )
        for at, line in enumerate(lines)
    ]


def _beats(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.word == "different" and verdict.difference > 0


def _notes(spec: TableSpec, profile: str, rows: Sequence[Row]) -> tuple[str, ...]:
    notes = [spec.profiles[profile].note]
    if rows:
        first = rows[0]
        made = "; ".join(sorted({_made_with(row) for row in rows}))
        notes.append(
            f"Test split of suite {first.suite} ({first.suite_sha256[:8]}), {first.protocol}; checkpoint selected on "
            f"dev. Mean ± standard deviation over n seeds. Made with {made}."
        )
    if spec.baseline is not None and spec.kind != "cost":
        label = next(row.label for row in spec.at(profile) if row.name == spec.baseline)
        notes.append(
            f"Bold: above '{label}' by the paired t interval over common seeds, at 5 % after Holm's correction over "
            "all tests of the table's part."
        )
    if spec.kind == "cost":
        notes.append(
            "A forward is one encoder pass over one view of a micro-batch; a backward pass counts as two. 'With "
            "teacher' adds the training of the initial teacher, as does the time to reach its dev score."
        )
    if spec.quoted:
        sources = "; ".join(sorted({f"{quoted.label}: {quoted.source}" for quoted in spec.quoted}))
        notes.append(f"Quoted rows were published, not measured here. {sources}.")
    return tuple(filter(None, notes))


def _made_with(row: Row) -> str:
    environment = row.environment
    revision, dirty, _ = environment["git_revision"].partition("-")
    versions = environment["versions"]
    return (
        f"otfkd {versions['otfkd']} at {revision[:12]}{dirty and '-dirty'}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {environment['threads']} threads, {environment['system']}"
    )


def _markdown(label: str, n: str, cells: Sequence[str]) -> str:
    return f"| {label} | {n} | " + " | ".join(cells) + " |"


def _latex(cell: Cell) -> str:
    text = cell.text(r" {\footnotesize$\pm$ ").replace(MISSING, "--")
    text += "}" if r"\pm" in text else ""
    return rf"\textbf{{{text}}}" if cell.better else text


def _escaped(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text
