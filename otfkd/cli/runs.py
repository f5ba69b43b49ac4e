"""otfkd-runs: list the runs of a folder and their state, and of failed ones the reason."""

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
    from otfkd.runs.failure import Failure
    from otfkd.runs.folder import find_runs

    for run in find_runs(folder, kept_aside=True):
        state = run.state
        reason = f"  {Failure.read(run.failure_file).reason}" if state == "failed" else ""
        sys.stdout.write(f"{state:<12} {run}{reason}\n")
