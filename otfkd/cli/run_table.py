"""Runs as a table: drawn for a terminal, or a line a run for a script."""

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from otfkd.base.errors import UserError
from otfkd.config.differences import UNKNOWN, in_short, setting_keys
from otfkd.config.messages import unknown_key
from otfkd.runs.summary import Summary

COLUMNS = (
    "state", "run", "method", "seed", "step", "steps", "dev", "best", "test", "minutes", "date", "differs", "reason"
)  # fmt: skip
_EVERY = 5.0  # seconds between two looks
_STYLES = {"training": "cyan", "failed": "red", "interrupted": "yellow", "kept aside": "dim"}


def values(run: Summary) -> dict[str, Any]:
    """What each column has for a run, as JSON knows it; None where there is nothing."""
    named = {name: getattr(run, name) for name in COLUMNS}
    date = run.date.isoformat(" ", "seconds") if isinstance(run.date, datetime) else run.date
    return {**named, "run": str(run.run), "date": date}


def _texts(run: Summary) -> dict[str, str]:
    return {name: _text(name, value) for name, value in values(run).items()}


def _text(name: str, value: Any) -> str:
    match value:
        case None:
            return "-"
        case dict():
            return in_short(value) or "-"
        case float():
            return f"{value:.1f}" if name == "minutes" else f"{value:.2f}"
        case _:
            return str(value)[:16] if name == "date" else str(value)


def chosen(runs: Iterable[Summary], where: Sequence[str], sort: str | None) -> list[Summary]:
    """The runs of which every `KEY=VALUE` is true, by a column where one is named: the largest comes last.

    Raises:
        UserError: there is no such key, or no value.
    """
    tests = [_test(condition) for condition in where]
    left = [run for run in runs if all(test(run) for test in tests)]
    return left if sort is None else sorted(left, key=lambda run: _order(sort, values(run)[sort]))


def _order(name: str, value: Any) -> tuple[Any, ...]:
    """What there is none of comes first, then what is unknown."""
    if value is None:
        return (0,)
    return (1,) if value == UNKNOWN else (2, _text(name, value) if isinstance(value, dict) else value)


def _test(condition: str) -> Callable[[Summary], bool]:
    key, given, text = condition.partition("=")
    if not given:
        raise UserError(f"--where {condition} has no value: write --where KEY=VALUE")
    valid = (*COLUMNS, *setting_keys())
    if key not in valid:
        raise unknown_key(key, valid, condition, "otfkd-runs")
    try:
        value = OverridesParser.create().parse_override(condition).value()
    except HydraException:
        value = text

    def test(run: Summary) -> bool:
        known = values(run) if key in COLUMNS else run.settings
        return key in known and (known[key] == value or known[key] == text)

    return test


def plain(runs: Iterable[Summary]) -> str:
    """A line a run, its columns apart by tabs."""
    return "".join("\t".join(" ".join(text.split()) for text in _texts(run).values()) + "\n" for run in runs)


def as_json(runs: Iterable[Summary]) -> str:
    """A list of objects, each on a line of its own."""
    return "[" + ",\n ".join(json.dumps(values(run)) for run in runs) + "]\n"


def as_csv(runs: Iterable[Summary]) -> str:
    """Lines of comma-separated values, below the names of the columns."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows({**values(run), "differs": _texts(run)["differs"]} for run in runs)
    return written.getvalue()


def drawn(runs: Sequence[Summary]) -> Group:
    """The table for a terminal, and below it why runs failed, or ended before their last step."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("state", "method", "differs"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "step", "dev", "best", "test", "minutes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("date", no_wrap=True)
    table.add_column("run", overflow="fold")
    for run in runs:
        text = _texts(run)
        style = _STYLES.get(run.state, "")
        cells = {**text, "step": f"{text['step']}/{text['steps']}"}
        table.add_row(Text(run.state, style), *(Text(cells[column.header]) for column in table.columns[1:]))  # type: ignore[index]
    failed = [Text(f"{run.run} failed: {run.reason}", _STYLES["failed"]) for run in runs if run.state == "failed"]
    early = [Text(f"{run.run} {run.reason}") for run in runs if run.state == "finished" and run.reason]
    return Group(table, *failed, *early)


def show(runs: Sequence[Summary]) -> None:
    """Write a table for whoever reads it: a person at a terminal, or a script."""
    console = Console()
    if console.is_terminal:
        console.print(drawn(runs))
    else:
        console.file.write(plain(runs))


def watch(look: Callable[[], Sequence[Summary]]) -> None:
    """Draw the table again and again until Ctrl-C.

    Raises:
        UserError: there is no terminal to draw on.
    """
    console = Console()
    if not console.is_terminal:
        raise UserError("--watch draws on a terminal, and the output is none: leave it out")
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(drawn(look()), refresh=True)
            time.sleep(_EVERY)
