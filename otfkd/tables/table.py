"""A finished table, and how it is written: Markdown, LaTeX and CSV, the same bytes each time."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otfkd.tables.definition import QuotedSpec

MISSING = "—"
UNROTATED = "†"  # a rotating row whose selected model never rotated in some seed
UNFINISHED = "‡"  # a row that lacks seeds


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
    """A row of a table.

    Attributes:
        label: what it is.
        n: over how many seeds its cells are means.
        cells: by column.
        missing: seeds that are wanted and not there.
        steps: that the selected models were trained for, by seed.
        generations: rotations before the selected step, by seed.
        unrotated: how many seeds of a rotating row have a selected model from before its first rotation.
        dev: the scores that selected the models.
    """

    label: str
    n: int
    cells: tuple[Cell, ...]
    missing: tuple[int | None, ...] = ()
    steps: tuple[int, ...] = ()
    generations: tuple[int, ...] = ()
    unrotated: int = 0
    dev: Cell = field(default_factory=lambda: Cell({}))

    @property
    def marked(self) -> str:
        """The label, with a mark where a rotating row has selected models that never rotated."""
        return f"{self.label} {UNROTATED}" if self.unrotated else self.label

    @property
    def counted(self) -> str:
        """How many seeds there are, and of how many where some are missing."""
        if self.missing:
            return f"{self.n} of {self.n + len(self.missing)} {UNFINISHED}"
        return str(self.n or MISSING)

    @property
    def generation(self) -> str:
        """One number where all seeds have the same."""
        shown = self.generations if len({*self.generations}) > 1 else self.generations[:1]
        return ", ".join(map(str, shown)) or MISSING


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

    @property
    def head(self) -> tuple[str, ...]:
        """What stands above the columns, but for the labels'."""
        return ("n", "generation", *self.columns)

    def markdown(self) -> str:
        lines = ["| | " + " | ".join(self.head) + " |", "|---|" + "--:|" * len(self.head)]
        for part in self.parts:
            lines += [_markdown(f"*{part.model}*", [""] * len(self.head))] if part.model else []
            for line in part.lines:
                cells = [f"**{cell.text(' ± ')}**" if cell.better else cell.text(" ± ") for cell in line.cells]
                lines.append(_markdown(line.marked, [line.counted, line.generation, *cells]))
            for quoted in part.quoted:
                lines.append(_markdown(f"*quoted:* {quoted.label}", self.published(quoted)))
        return "\n\n".join([f"**{self.title}**", "\n".join(lines), *self.notes]) + "\n"

    def latex(self) -> str:
        r"""The table in booktabs style; `\usepackage{booktabs}` is all it needs."""
        width = 1 + len(self.head)
        head = " & ".join(["", "$n$", *map(_escaped, self.head[1:])])
        lines = [f"% {self.title}", r"\begin{tabular}{l" + "r" * len(self.head) + "}", r"\toprule"]
        lines += [head + r" \\"]
        for part in self.parts:
            lines.append(r"\midrule")
            if part.model:
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_escaped(part.model)}}}}} \\")
            for line in part.lines:
                cells = [_latex(line.counted), _latex(line.generation), *map(_latex_cell, line.cells)]
                lines.append(" & ".join([_escaped(line.marked), *cells]) + r" \\")
            if part.quoted:
                lines.append(r"\midrule")
            for quoted in part.quoted:
                cells = [_latex(text) for text in self.published(quoted)]
                lines.append(" & ".join([rf"\emph{{quoted:}} {_escaped(quoted.label)}", *cells]) + r" \\")
        notes = [f"% {note}" for note in self.notes]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes]) + "\n"

    def csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        numbers = (f"{column} {what}" for column in ("dev", *self.columns) for what in ("mean", "sd"))
        writer.writerow(
            ["model", "row", "source", "n", "n wanted", "steps", "generations", "seeds not rotated", *numbers]
        )
        for part in self.parts:
            model = part.model or ""
            for line in part.lines:
                by_seed = [" ".join(map(str, each)) for each in (line.steps, line.generations)]
                counts = [line.n, line.n + len(line.missing), *by_seed, line.unrotated or ""]
                writer.writerow([model, line.label, "measured", *counts, *_numbers(line)])
            for quoted in part.quoted:
                scores = [text for column in self.columns for text in (str(quoted.scores.get(column, "")), "")]
                writer.writerow([model, quoted.label, f"quoted: {quoted.source}", *[""] * 7, *scores])
        return buffer.getvalue()

    def published(self, quoted: QuotedSpec) -> list[str]:
        """A quoted row's cells: of seeds and generations it says nothing."""
        scores = [f"{quoted.scores[column]:.2f}" if column in quoted.scores else MISSING for column in self.columns]
        return [MISSING, MISSING, *scores]

    def files(self, name: str) -> dict[str, str]:
        """What is written of it: file name to text."""
        return {f"{name}.md": self.markdown(), f"{name}.csv": self.csv(), f"{name}.tex": self.latex()}


def _markdown(label: str, cells: Sequence[str]) -> str:
    return " ".join(["|", label.replace("|", r"\|"), "|", " | ".join(cells), "|"])


def _numbers(line: Line) -> list[str]:
    """The mean and the spread of each cell; empty where there is none."""
    values = [value for cell in (line.dev, *line.cells) for value in (cell.mean, cell.spread)]
    return ["" if value is None else f"{value:.4f}" for value in values]


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text(r" {\footnotesize$\pm$ "))
    text += "}" if r"\pm" in text else ""
    return rf"\textbf{{{text}}}" if cell.better else text


def _latex(text: str) -> str:
    for sign, written in _SIGNS.items():
        text = text.replace(sign, written)
    return text


_SIGNS = {MISSING: "--", UNROTATED: r"\dag{}", UNFINISHED: r"\ddag{}"}
# What means something to LaTeX, and how it is written there to mean itself.
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def _escaped(text: str) -> str:
    return _latex(text.translate(_LATEX))
