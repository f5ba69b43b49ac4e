"""A finished table, and how it is written: Markdown, LaTeX and CSV, the same bytes each time."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from otfkd.tables.definition import QuotedSpec

MISSING = "—"


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
                lines.append(_markdown(f"*quoted:* {quoted.label}", MISSING, self.published(quoted)))
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
                cells = [text.replace(MISSING, "--") for text in self.published(quoted)]
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
            model = part.model or ""
            for line in part.lines:
                writer.writerow([model, line.label, "measured", line.n, *_numbers(line)])
            for quoted in part.quoted:
                numbers = [text for column in self.columns for text in (str(quoted.scores.get(column, "")), "")]
                writer.writerow([model, quoted.label, f"quoted: {quoted.source}", "", *numbers])
        return buffer.getvalue()

    def published(self, quoted: QuotedSpec) -> list[str]:
        """A quoted row's cells."""
        return [f"{quoted.scores[column]:.2f}" if column in quoted.scores else MISSING for column in self.columns]

    def files(self, name: str) -> dict[str, str]:
        """What is written of it: file name to text."""
        return {f"{name}.md": self.markdown(), f"{name}.csv": self.csv(), f"{name}.tex": self.latex()}


def _markdown(label: str, n: str, cells: Sequence[str]) -> str:
    return " ".join(["|", label.replace("|", r"\|"), "|", n, "|", " | ".join(cells), "|"])


def _numbers(line: Line) -> list[str]:
    """The mean and the spread of each cell; empty where there is none."""
    values = [value for cell in line.cells for value in (cell.mean, cell.spread)]
    return ["" if value is None else f"{value:.4f}" for value in values]


def _latex(cell: Cell) -> str:
    text = cell.text(r" {\footnotesize$\pm$ ").replace(MISSING, "--")
    text += "}" if r"\pm" in text else ""
    return rf"\textbf{{{text}}}" if cell.better else text


# What means something to LaTeX, and how it is written there to mean itself.
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
