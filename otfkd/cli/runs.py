"""otfkd-runs: list runs with their state, method and scores, and of failed ones the reason."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.cli.common import command_parser, exit_with

if TYPE_CHECKING:
    from otfkd.runs.summary import Summary


def main() -> None:
    from otfkd.cli.run_table import COLUMNS

    parser = command_parser("otfkd-runs", __doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="the runs' folder (default: runs)")
    parser.add_argument("--sort", choices=COLUMNS, metavar="COLUMN", help=f"one of {', '.join(COLUMNS)}; largest last")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="a column or key of the config; all must hold"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="write JSON")
    output.add_argument("--csv", action="store_true", help="write comma-separated values")
    output.add_argument("--watch", action="store_true", help="draw the table anew every few seconds, until Ctrl-C")
    exit_with(lambda: _list(parser.parse_args()))


def _list(given: argparse.Namespace) -> None:
    from otfkd.cli import run_table

    look = looking(given.folder, given.where, given.sort)
    if given.watch:
        with contextlib.suppress(KeyboardInterrupt):
            run_table.watch(look)
    elif given.json or given.csv:
        sys.stdout.write((run_table.as_json if given.json else run_table.as_csv)(look()))
    else:
        run_table.show(look())


def looking(folder: Path, where: Sequence[str], sort: str | None) -> "Callable[[], Sequence[Summary]]":
    """What looks at a folder's runs, again and again; one that is finished stays as it is."""
    from otfkd.cli.run_table import chosen
    from otfkd.runs.folder import RunFolder, find_runs
    from otfkd.runs.summary import read_summary

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the folder given to paths.runs")
    finished: dict[RunFolder, Summary] = {}

    def look() -> Sequence["Summary"]:
        found = []
        for run in find_runs(folder, kept_aside=True):
            known = finished.get(run) if run.finished else None
            found.append(known or read_summary(run))
            if found[-1].state == "finished":
                finished[run] = found[-1]
        return chosen(found, where, sort)

    return look
