"""otfkd-reproduce: make tables, resuming where an earlier attempt stopped.

A row that is published in experiments/results counts as finished: only what no row answers is trained, and what that
starts from. A row answers if it records the same config hash, data and protocol. Each run's row is published as soon as
the run is finished, so what is stopped midway leaves its rows, and tables that mark the seeds they lack.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.base.launchers import check_environment
from otfkd.cli.common import command_parser, exit_with, whole_numbers
from otfkd.config.composition import prepare_overrides
from otfkd.config.groups import also_in
from otfkd.config.schema import Config
from otfkd.runs.failure import jobs_failed

if TYPE_CHECKING:
    from otfkd.tables.definition import TableSpec
    from otfkd.tables.jobs import Job

TABLES = "main,interval,cost"
_CHECK = """\
--check trains nothing and needs no data. It fails (exit code 2) where a built table is not byte for byte what its
rows give, so also where a table shows fewer seeds than are wanted without its mark, and where a figure on a page
differs from its rows. It lists rows that lack seeds, but an unfinished table that says so is no failure (exit code 0).
"""


def main() -> None:
    parser = command_parser(
        "otfkd-reproduce", __doc__, epilog=_CHECK, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", default="mini", help="the size at which to run (default: mini)")
    parser.add_argument(
        "--tables",
        help="names from experiments/tables, with commas (default: those that rows of the profile are published of, or "
        f"{TABLES})",
    )
    parser.add_argument(
        "--seeds",
        type=whole_numbers,
        help="these alone, with commas, in place of the definition's; their rows are added",
    )
    parser.add_argument("--experiments", type=Path, default=Path("experiments"), help="gets results/ and built/")
    parser.add_argument(
        "--fresh", action="store_true", help="train everything again, whatever is published or finished here"
    )
    parser.add_argument("--publish", action="store_true", help="publish what is finished here, and train nothing")
    parser.add_argument("--config-dir", metavar="FOLDER", type=Path, help="has config groups and tables/ of your own")
    parser.add_argument("--dry-run", action="store_true", help="print every job and its state, and stop")
    parser.add_argument("--print-commands", action="store_true", help="print the training commands, and stop")
    parser.add_argument("--print-slurm", action="store_true", help="print them as a Slurm array, and stop")
    parser.add_argument("--check", action="store_true", help="say whether tables and pages are what the rows give")
    parser.add_argument(
        "--fill", action="store_true", help="build all tables of published rows, write the pages' figures, and stop"
    )
    parser.add_argument("overrides", nargs="*", help="further KEY=VALUE for every job")
    exit_with(lambda: _main(parser.parse_args()))


def _main(arguments: argparse.Namespace) -> None:
    with also_in([arguments.config_dir] if arguments.config_dir else []):
        _reproduce(arguments)


def _reproduce(arguments: argparse.Namespace) -> None:
    prepare_overrides(arguments.overrides, Config)
    check_environment()
    if arguments.fresh and arguments.publish:
        raise UserError("--publish trains nothing, so --fresh has nothing to do: leave one of them out")
    if arguments.check or arguments.fill:
        (_check if arguments.check else _fill)(arguments.experiments)
        return
    from otfkd.tables.definition import load_table

    profile = arguments.profile
    names = arguments.tables.split(",") if arguments.tables else _published(arguments.experiments, profile)
    specs = {name: load_table(name, profile) for name in names}
    from otfkd.tables.jobs import table_jobs  # which loads torch
    from otfkd.tables.make import with_seeds

    planned = specs if arguments.seeds is None else with_seeds(specs, profile, arguments.seeds)
    jobs = table_jobs(planned, profile, arguments.overrides)
    if arguments.dry_run or arguments.print_commands or arguments.print_slurm:
        _print(jobs, arguments)
    else:
        _make(specs, jobs, arguments)


def _print(jobs: "list[Job]", arguments: argparse.Namespace) -> None:
    """Jobs, or the commands to run them by hand."""
    from otfkd.tables.make import answers
    from otfkd.tables.status import commands, overview, slurm_array

    show = commands if arguments.print_commands else slurm_array if arguments.print_slurm else overview
    left = answers(jobs, arguments.profile, arguments.experiments, fresh=arguments.fresh).to_run
    sys.stdout.write(show(jobs, {job.key for job in jobs} - {job.key for job in left}))


def _make(specs: "dict[str, TableSpec]", jobs: "list[Job]", arguments: argparse.Namespace) -> None:
    from otfkd.tables.make import make_tables

    profile, experiments = arguments.profile, arguments.experiments
    outcome, files = make_tables(specs, jobs, profile, experiments, fresh=arguments.fresh, train=not arguments.publish)
    if files:
        _show(specs, files, profile, experiments)
    mirrored = [job.config for job in jobs if "wandb" in job.config.logger.names]
    if mirrored and files:
        _mirror(mirrored[0], specs, files, profile, experiments)
    if outcome.failures:
        raise jobs_failed(outcome.failures)


def _published(experiments: Path, profile: str) -> list[str]:
    """The tables that have rows at a profile, or those that are made where there is none yet."""
    from otfkd.tables.built import results_file
    from otfkd.tables.published import read_published

    path = results_file(experiments, profile)
    found = sorted({one.table for one in read_published(path)}) if path.is_file() else []
    return found or TABLES.split(",")


def _show(specs: "dict[str, TableSpec]", files: dict[str, str], profile: str, experiments: Path) -> None:
    from otfkd.tables.built import REPORT, built_folder

    folder = built_folder(experiments, profile)
    for name in specs:
        if f"{name}.md" in files:
            sys.stdout.write(f"\n{files[f'{name}.md']}\nwritten to {folder}/{name}.md, .csv and .tex\n")
    sys.stdout.write(f"\nall of it, with figures: {folder}/{REPORT}\n")


def _mirror(
    config: Config, specs: "dict[str, TableSpec]", files: dict[str, str], profile: str, experiments: Path
) -> None:
    """Send tables and figures to where the runs are shown."""
    from otfkd.tables.built import figures, results_file
    from otfkd.tables.published import read_published
    from otfkd.training.wandb_run import send_files

    drawn = figures(profile, read_published(results_file(experiments, profile)), specs)
    send_files(config.logger, Path(config.paths.runs), f"tables-{profile}", {**files, **drawn})


def _check(experiments: Path) -> None:
    from otfkd.tables.built import differing, unfinished
    from otfkd.tables.cited import wrong_figures

    _refuse_none(experiments)
    wrong = [f"{path}: not what the published rows give" for path in differing(experiments)]
    wrong += map(str, wrong_figures(experiments))
    if wrong:
        raise UserError(f"{'; '.join(wrong)}; otfkd-reproduce --fill writes them again")
    for row in unfinished(experiments):
        sys.stdout.write(f"unfinished: {row}\n")
    sys.stdout.write(
        f"all of {experiments}/built, and each figure that pages cite, is what the rows in {experiments}/results give\n"
    )


def _fill(experiments: Path) -> None:
    from otfkd.tables.built import build_all

    _refuse_none(experiments)
    for page in build_all(experiments):
        sys.stdout.write(f"figures written to {page}\n")


def _refuse_none(experiments: Path) -> None:
    from otfkd.tables.built import published_profiles

    if not published_profiles(experiments):
        raise UserError(f"{experiments}/results holds no published rows: make a table first")
