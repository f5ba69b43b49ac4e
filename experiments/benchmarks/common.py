"""What every benchmark does alike: say on which machine it ran, show its rows, and write them down."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from otfkd.base.files import write_text
from otfkd.base.provenance import environment
from otfkd.data import mini

RESULTS = Path(__file__).parent / "results"
PEERS = ("sentence-transformers",)

Row = dict[str, Any]  # column to value; a number is shown to four digits


def machine() -> dict[str, Any]:
    """The processor and memory, and what `provenance.json` says of a run's environment."""
    here = environment()
    here["versions"] |= {name: importlib.metadata.version(name) for name in PEERS}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": _processor(), "memory_gib": round(memory, 1), **here}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write(name: str, rows: list[Row]) -> Path:
    """Write a benchmark's rows and the machine they are of to results/NAME.json."""
    path = RESULTS / f"{name}.json"
    write_text(path, json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    return path


def show(title: str, rows: list[Row]) -> None:
    """Print rows as a table; its columns are the keys, in the order in which rows first have them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    Console().print(table)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def corpus() -> Path:
    """The sentences that training is measured on: real ones from OTFKD_DATA, else the embedded corpus."""
    root = os.environ.get("OTFKD_DATA")
    if root:
        return Path(root).absolute() / "corpus" / "general.txt"
    path = RESULTS.parent / "mini.txt"
    if not path.is_file():
        write_text(path, "".join(f"{line}\n" for line in mini.corpus()))
    return path


def ratio(what: str, ours: float, other: float, goal: float, *, at_least: bool = False) -> Row:
    """A row that compares two figures, and says whether the goal is met."""
    value = ours / other
    met = value >= goal if at_least else value <= goal
    return {
        "what": what, "ours": ours, "other": other, "ratio": value, "goal": f"{'≥' if at_least else '≤'} {goal}",
        "met": "yes" if met else "no",
    }  # fmt: skip
