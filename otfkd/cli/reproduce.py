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
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="gets results/ and built/")
    parser.add_argument("--dry-run", action="store_true", help="print every job and its state, and stop")
    parser.add_argument("--print-commands", action="store_true", help="print the training commands, and stop")
    parser.add_argument("--print-slurm", action="store_true", help="print them as a Slurm array, and stop")
    parser.add_argument("--check", action="store_true", help="say whether built tables are what published rows give")
    parser.add_argument("overrides", nargs="*", help="further KEY=VALUE for every job")
    exit_with(lambda: _main(parser.parse_args()))


def _main(arguments: argparse.Namespace) -> None:
    prepare_overrides(arguments.overrides, Config)
    tables = arguments.tables.split(",")
    if arguments.check:
        _check(arguments.experiments)
    elif arguments.dry_run or arguments.print_commands or arguments.print_slurm:
        from otfkd.planning import commands, overview, slurm_array
        from otfkd.reproduce import plan_jobs

        show = commands if arguments.print_commands else slurm_array if arguments.print_slurm else overview
        sys.stdout.write(show(plan_jobs(tables, arguments.profile, arguments.overrides)))
    else:
        _make(tables, arguments.profile, arguments.overrides, arguments.experiments)


def _make(tables: list[str], profile: str, overrides: list[str], experiments: Path) -> None:
    from otfkd.reproduce import build, plan_jobs, publish, read_published, run_jobs

    outcome = run_jobs(plan_jobs(tables, profile, overrides))
    results, built = experiments / "results" / f"{profile}.jsonl", experiments / "built" / profile
    publish(outcome, results)
    for name in tables:
        table = build(name, profile, read_published(results))
        table.write(built, name)
        sys.stdout.write(f"\n{table.markdown()}\nwritten to {built}/{name}.md, .csv and .tex\n")
    if outcome.failures:
        listed = "; ".join(f"{job}: {reason}" for job, reason in outcome.failures)
        raise UserError(f"{len(outcome.failures)} jobs failed ({listed}); the same command tries them again")


def _check(experiments: Path) -> None:
    from otfkd.reproduce import differing

    wrong = differing(experiments)
    if wrong:
        names = ", ".join(map(str, wrong))
        raise UserError(f"{names}: not what the published rows give; build again with otfkd-reproduce")
    sys.stdout.write(f"every table in {experiments}/built is what the rows in {experiments}/results give\n")
