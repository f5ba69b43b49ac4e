"""otfkd-reproduce: make tables, resuming where an earlier attempt stopped."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.base.launchers import check_environment
from otfkd.cli.common import exit_with
from otfkd.config.composition import prepare_overrides
from otfkd.config.schema import Config

if TYPE_CHECKING:
    from otfkd.tables.definition import TableSpec
    from otfkd.tables.jobs import Job

TABLES = "main,interval,cost"


def main() -> None:
    parser = argparse.ArgumentParser(prog="otfkd-reproduce", description=__doc__)
    parser.add_argument("--profile", default="mini", help="the size at which to run (default: mini)")
    parser.add_argument(
        "--tables", default=TABLES, help=f"names from experiments/tables, with commas (default: {TABLES})"
    )
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="gets results/ and built/")
    parser.add_argument("--dry-run", action="store_true", help="print every job and its state, and stop")
    parser.add_argument("--print-commands", action="store_true", help="print the training commands, and stop")
    parser.add_argument("--print-slurm", action="store_true", help="print them as a Slurm array, and stop")
    parser.add_argument("--check", action="store_true", help="say whether built tables are what published rows give")
    parser.add_argument("overrides", nargs="*", help="further KEY=VALUE for every job")
    exit_with(lambda: _main(parser.parse_args()))


def _main(arguments: argparse.Namespace) -> None:
    prepare_overrides(arguments.overrides, Config)
    check_environment()
    if arguments.check:
        _check(arguments.experiments)
        return
    from otfkd.tables.definition import load_table
    from otfkd.tables.jobs import table_jobs
    from otfkd.tables.status import commands, overview, slurm_array

    specs = {name: load_table(name, arguments.profile) for name in arguments.tables.split(",")}
    jobs = table_jobs(specs, arguments.profile, arguments.overrides)
    if arguments.dry_run or arguments.print_commands or arguments.print_slurm:
        show = commands if arguments.print_commands else slurm_array if arguments.print_slurm else overview
        sys.stdout.write(show(jobs))
    else:
        _make(specs, jobs, arguments.profile, arguments.experiments)


def _make(specs: "dict[str, TableSpec]", jobs: "list[Job]", profile: str, experiments: Path) -> None:
    from otfkd.base.files import write_text
    from otfkd.runs.failure import jobs_failed
    from otfkd.tables.built import REPORT, built, figures
    from otfkd.tables.jobs import run_jobs
    from otfkd.tables.published import publish, read_published
    from otfkd.training.wandb_run import send_files

    outcome = run_jobs(jobs)
    results, folder = experiments / "results" / f"{profile}.jsonl", experiments / "built" / profile
    publish(outcome.published, specs.keys(), results)
    files = built(profile, read_published(results), specs)
    for file, text in files.items():
        write_text(folder / file, text)
    mirrored = [job.config for job in jobs if job.config.logger.name == "wandb"]
    if mirrored:
        drawn = figures(profile, read_published(results), specs)
        send_files(mirrored[0].logger, Path(mirrored[0].paths.runs), f"tables-{profile}", {**files, **drawn})
    for name in specs:
        sys.stdout.write(f"\n{files[f'{name}.md']}\nwritten to {folder}/{name}.md, .csv and .tex\n")
    sys.stdout.write(f"\nall of it, with figures: {folder}/{REPORT}\n")
    if outcome.failures:
        raise jobs_failed(outcome.failures)


def _check(experiments: Path) -> None:
    from otfkd.tables.built import differing

    if not any((experiments / "results").glob("*.jsonl")):
        raise UserError(f"{experiments}/results holds no published rows: make a table first")
    wrong = differing(experiments)
    if wrong:
        names = ", ".join(map(str, wrong))
        raise UserError(f"{names}: not what the published rows give; build again with otfkd-reproduce")
    sys.stdout.write(f"all of {experiments}/built is what the rows in {experiments}/results give\n")
