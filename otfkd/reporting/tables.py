"""Tables: mean and spread over seeds, from result rows alone, the same bytes from the same rows."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from otfkd.data.files import write_text
from otfkd.errors import UserError
from otfkd.results import Row

MISSING = "—"


@dataclass(frozen=True)
class Cell:
    """Scores of one table row on one task, over its seeds.

    Attributes:
        values: one a seed; none where nothing was measured.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return MISSING
        return f"{self.mean:.2f}" if self.spread is None else f"{self.mean:.2f} ± {self.spread:.2f}"


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        title: above it.
        columns: tasks, then their average.
        rows: (label, n, cells), n being how many seeds.
        notes: what a reader must know, below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        head = ["| | n | " + " | ".join(self.columns) + " |", "|---|--:|" + "--:|" * len(self.columns)]
        body = [f"| {label} | {n or MISSING} | " + " | ".join(map(str, cells)) + " |" for label, n, cells in self.rows]
        return "\n\n".join([f"**{self.title}**", "\n".join(head + body), *self.notes]) + "\n"

    def csv(self) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["row", "n", *(f"{column} {part}" for column in self.columns for part in ("mean", "sd"))])
        for label, n, cells in self.rows:
            parts = [part for cell in cells for part in (cell.mean, cell.spread)]
            writer.writerow([label, n, *("" if part is None else f"{part:.4f}" for part in parts)])
        return buffer.getvalue()

    def write(self, folder: Path, name: str) -> None:
        write_text(folder / f"{name}.md", self.markdown())
        write_text(folder / f"{name}.csv", self.csv())


def build_table(
    title: str, labels: Sequence[tuple[str, str]], measured: Mapping[str, Sequence[Row]], note: str
) -> Table:
    """Put result rows into a table.

    Args:
        title: above it.
        labels: (row name, label) in the order shown.
        measured: row name to its test rows, one a seed.
        note: said first below the table, where there is something to say.

    Raises:
        UserError: rows that were scored on different data or by different protocols, or by one for prototypes.
    """
    everything = [row for rows in measured.values() for row in rows]
    if any(row.protocol.startswith("SentEval fast:") for row in everything):
        raise UserError(
            f"the table '{title}' has rows of SentEval's fast protocol, which is for prototypes: score their models "
            "again with evaluation.protocol=full"
        )
    if any("all" not in scores for row in everything for scores in row.scores.values()):
        raise UserError(f"the table '{title}' shows STS scores, and some of its rows are of other tasks: drop them")
    for what in ("suite_sha256", "protocol"):
        found = sorted({getattr(row, what) for row in everything})
        if len(found) > 1:
            raise UserError(f"the rows of '{title}' differ in {what} ({', '.join(found)}): run them again under one")
    tasks = tuple(everything[0].scores) if everything else ()
    columns = (*tasks, "average") if len(tasks) > 1 else tasks
    rows = []
    for name, label in labels:
        own = measured.get(name, ())
        cells = [Cell(tuple(row.scores[task]["all"] for row in own)) for task in tasks]
        if len(tasks) > 1:
            cells.append(Cell(tuple(row.average for row in own)))
        rows.append((label, len(own), tuple(cells)))
    return Table(title, columns, tuple(rows), _notes(everything, note))


def _made_with(row: Row) -> str:
    environment = row.environment
    revision, dirty, _ = environment["git_revision"].partition("-")
    versions = environment["versions"]
    return (
        f"otfkd {versions['otfkd']} at {revision[:12]}{dirty and '-dirty'}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {environment['threads']} threads, {environment['system']}"
    )


def _notes(rows: Sequence[Row], note: str) -> tuple[str, ...]:
    if not rows:
        return tuple(filter(None, [note]))
    first = rows[0]
    made = (
        f"Test split of suite {first.suite} ({first.suite_sha256[:8]}), {first.protocol}; checkpoint selected on dev. "
        f"Mean ± standard deviation over n seeds. Made with {'; '.join(sorted({_made_with(row) for row in rows}))}."
    )
    return tuple(filter(None, [note, made]))
