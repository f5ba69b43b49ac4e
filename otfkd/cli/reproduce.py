"""otfkd-reproduce: make tables, resuming where an earlier attempt stopped."""

import argparse
import sys
from pathlib import Path

from otfkd.cli.common import exit_with
from otfkd.composition import prepare_overrides
from otfkd.config import Config
from otfkd.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(prog="otfkd-reproduce", description=__doc__)
    parser.add_argument("--profile", default="mini", help="the size at which to run (default: mini)")
    parser.add_argument("--tables", default="main", help="names from experiments/tables, with commas (default: main)")
    parser.add_argument("--output", type=Path, default=Path("experiments/built"), help="where tables are written")
    parser.add_argument("overrides", nargs="*", help="further KEY=VALUE for every job")
    arguments = parser.parse_args()
    exit_with(lambda: _make(arguments.tables.split(","), arguments.profile, arguments.overrides, arguments.output))


def _make(tables: list[str], profile: str, overrides: list[str], output: Path) -> None:
    prepare_overrides(overrides, Config)
    from otfkd.reproduce import reproduce

    failures = []
    for name in tables:
        table, outcome = reproduce(name, profile, overrides, output / profile)
        sys.stdout.write(f"\n{table.markdown()}\nwritten to {output / profile}/{name}.md and .csv\n")
        failures += [f"{job.row.name}, seed {job.seed}: {reason}" for job, reason in outcome.failures]
    if failures:
        raise UserError(f"{len(failures)} jobs failed, first {failures[0]}; the same command tries them again")
