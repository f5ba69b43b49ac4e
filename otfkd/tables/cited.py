"""Figures that pages cite from published rows: written between comments that say what they are, and checked.

`<!-- small/main, otfkd, average -->78.16 ± 0.21<!-- / -->` is the average of row `otfkd` of table `main` at profile
`small`, mean and standard deviation over its seeds; a backbone may follow the table (`thesis/main/bert_base`). The
column is a task, `average`, `dev` (the score that chose the model), `passes` (encoder passes, those of the runs it
started from too), `n`, or `unrotated` (the seeds that † marks). `otfkd - static` in place of the row is the difference
of two rows over their common seeds, with its 95 % interval: `+0.23 (-0.28 to 0.75)`. A fourth word shows a part of it:
`mean`, `gain` or `interval`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import numpy as np

from otfkd.base.errors import UserError
from otfkd.evaluation.significance import paired_t
from otfkd.tables.columns import AVERAGE, total_forwards
from otfkd.tables.definition import load_table
from otfkd.tables.notes import unrotated
from otfkd.tables.published import Published, read_published
from otfkd.tables.table import Cell
from otfkd.tables.tabulate import selected_dev

_OPENS = re.compile(r"<!--\s+(\w+/\w+(?:/\w+)?,[^>]*?)\s+-->")
_FIGURE = re.compile(_OPENS.pattern + r"([^<]*)<!--\s*/\s*-->")


@dataclass(frozen=True)
class Wrong:
    """A figure on a page that is not what its rows give."""

    page: Path
    line: int
    what: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.what} is {self.wanted} by its rows, and {self.found or 'nothing'} here"


def pages(experiments: Path) -> list[Path]:
    """The pages that may cite rows: those of the project that the folder of experiments lies in.

    A folder without a page of its own is no project's, but holds what someone made beside it.
    """
    if not (experiments / "README.md").is_file():
        return []
    project = experiments.resolve().parent
    found = [project / "README.md", *sorted((project / "docs").glob("*.md")), *sorted(experiments.glob("*.md"))]
    return [page for page in found if page.is_file()]


def wrong_figures(experiments: Path) -> list[Wrong]:
    """The figures on pages that are not what published rows give.

    Raises:
        UserError: a figure of rows that are not there, or a comment that is not closed.
    """
    return [one for page in pages(experiments) for one in _wrong(page, experiments)]


def _wrong(page: Path, experiments: Path) -> Iterator[Wrong]:
    text = _text(page)
    for found in _FIGURE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        wanted, shown = _figure(found[1], experiments, f"{page}:{line}"), _spaced(found[2])
        if wanted != shown:
            yield Wrong(page, line, _spaced(found[1]), wanted, shown)


def written(page: Path, experiments: Path) -> str:
    """A page's text with every figure as its rows give it.

    Raises:
        UserError: as `wrong_figures`.
    """
    text = _text(page)

    def fill(found: re.Match[str]) -> str:
        wanted = _figure(found[1], experiments, f"{page}:{text.count(chr(10), 0, found.start()) + 1}")
        # What is right stays as it is, with its line breaks.
        return found[0] if wanted == _spaced(found[2]) else found[0].replace(f"-->{found[2]}<!--", f"-->{wanted}<!--")

    return _FIGURE.sub(fill, text)


def _text(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    closed = {found.start() for found in _FIGURE.finditer(text)}
    for opened in _OPENS.finditer(text):
        if opened.start() not in closed:
            line = text.count("\n", 0, opened.start()) + 1
            raise UserError(f"{page}:{line}: {_spaced(opened[1])} is not closed: end its figure with <!-- / -->")
    return text


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _figure(what: str, experiments: Path, at: str) -> str:
    """What a comment names, as it is written."""
    try:
        place, row, column, *form = (part.strip() for part in _spaced(what).split(","))
        shown = form.pop() if form else None
        if form:
            raise ValueError
    except ValueError:
        raise UserError(
            f"{at} names {_spaced(what)}: write PROFILE/TABLE, ROW, COLUMN, or ROW - ROW for a difference"
        ) from None
    profile, table, *model = place.split("/")
    rows = _Rows(experiments, profile, table, model[0] if model else None, at)
    name, _, base = row.partition(" - ")
    values = rows.column(name, column)
    return _difference(values, rows.column(base, column), shown, at) if base else _level(values, column, shown, at)


def _level(values: Mapping[int | None, float], column: str, form: str | None, at: str) -> str:
    if column in ("passes", "n", "unrotated"):
        return f"{fmean(values.values()):,.0f}"
    cell = Cell(values)
    if form not in (None, "mean"):
        raise UserError(f"{at}: {form} is of two rows: leave it out, or write mean")
    return cell.text(" ± ") if form is None else f"{cell.mean:.2f}"


def _difference(values: Mapping[int | None, float], base: Mapping[int | None, float], form: str | None, at: str) -> str:
    common = [seed for seed in values if seed in base]
    if form not in (None, "gain", "interval"):
        raise UserError(f"{at}: a difference is shown whole, or as gain or interval, not as {form}")
    if not common:
        raise UserError(f"{at} names rows without a common seed: name others")
    before, after = (np.array([one[seed] for seed in common]) for one in (base, values))
    gain = f"{float((after - before).mean()):+.2f}"
    if form == "gain":
        return gain
    low, high = paired_t(before, after)[0]
    interval = f"{low:.2f} to {high:.2f}"
    return interval if form == "interval" else f"{gain} ({interval})"


@lru_cache(maxsize=8)
def _read(path: Path, _version: int) -> list[Published]:
    return read_published(path)


@dataclass(frozen=True)
class _Rows:
    """The published rows that a comment names."""

    experiments: Path
    profile: str
    table: str
    model: str | None
    at: str

    def column(self, name: str, column: str) -> dict[int | None, float]:
        """A row's values by seed."""
        own = self._named(name)
        counted = {"n": len(own), "unrotated": sum(unrotated(one.result) for one in own)}
        if column in counted:
            return {None: float(counted[column])}
        values = {one.result.seed: self._value(one, column) for one in own}
        known = {seed: value for seed, value in values.items() if value is not None}
        if len(known) < len(values):
            raise UserError(f"{self.at} names the column {column}, which row {name} of {self.table} does not have")
        return known

    def _value(self, one: Published, column: str) -> float | None:
        row = one.result
        if column == AVERAGE:
            return row.average
        if column == "dev":
            dev = selected_dev(row)
            return one.dev if dev is None else dev
        if column == "passes":
            spec = load_table(self.table, self.profile)
            own = next(each for each in spec.at(self.profile) if each.name == one.row)
            lineage = [each for name in spec.lineage(own, self.profile) for each in self._named(name)]
            return float(total_forwards(row, [each.result for each in lineage if each.result.seed == row.seed]))
        scores = row.scores.get(column, {})
        return scores.get("all", scores.get("accuracy"))

    def _named(self, name: str) -> list[Published]:
        path = self.experiments / "results" / f"{self.profile}.jsonl"
        if not path.is_file():
            raise UserError(f"{self.at} names profile {self.profile}, but {path} is not there")
        own = [
            one for one in _read(path, path.stat().st_mtime_ns) if (one.table, one.model) == (self.table, self.model)
        ]
        rows = [one for one in own if one.row == name]
        if not rows:
            known = ", ".join(dict.fromkeys(one.row for one in own)) or "none"
            raise UserError(f"{self.at} names row {name} of {self.table}, but {path} has of that table: {known}")
        return sorted(rows, key=lambda one: one.result.seed or 0)
