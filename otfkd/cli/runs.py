"""otfkd-runs: list the runs of a folder and their state."""

import argparse
import sys
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.cli.common import exit_with


def main() -> None:
    parser = argparse.ArgumentParser(prog="otfkd-runs", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), help="the runs' folder (default: runs)")
    arguments = parser.parse_args()
    exit_with(lambda: _list(arguments.folder))


def _list(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name the folder given to paths.runs")
    from otfkd.runs.folder import find_runs

    for run in find_runs(folder, kept_aside=True):
        sys.stdout.write(f"{run.state:<12} {run}\n")
