"""otfkd-search: try settings, and say which score best on dev.

Keys that are given several values are tried, in Hydra's own grammar: schedule.every=interval(20,200),
objective.kd_weight=tag(log,interval(0.1,10)), schedule.every=25,50,100. A trial trains each of the seeds and counts by
the mean of their selected dev scores; it is given up where its first seed is below the median of earlier trials at the
same step, five of them at least. Told too is how often the teacher had rotated when each selected model was: selected
models that had not yet seen a rotation are no news of rotation. The same command goes on where an earlier attempt was
stopped or killed, and a larger --trials adds to it. No trial is chosen by a test score.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from otfkd.base.errors import UserError
from otfkd.base.launchers import check_environment
from otfkd.cli.common import command_parser, exit_with, whole_numbers
from otfkd.config.composition import compose, key_of, prepare_overrides
from otfkd.config.groups import also_in
from otfkd.config.schema import Config
from otfkd.runs.failure import jobs_failed

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from otfkd.search.study import Search


def main() -> None:
    parser = command_parser("otfkd-search", __doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", metavar="NAME", help="further keys to try, from experiments/searches: rotation")
    parser.add_argument("--trials", type=int, default=20, help="how many have ended at the end (default: 20)")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), help="of each trial (default: 0,1,2)")
    parser.add_argument("--config-dir", metavar="FOLDER", type=Path, help="has config groups and searches/ of your own")
    parser.add_argument("overrides", nargs="*", help="KEY=VALUE for every trial, KEY=interval(LOW,HIGH) to try")
    exit_with(lambda: _main(parser.parse_intermixed_args()))


def _main(arguments: argparse.Namespace) -> None:
    with also_in([arguments.config_dir] if arguments.config_dir else []):
        _search(arguments)


def _search(arguments: argparse.Namespace) -> None:
    check_environment()
    for override in arguments.overrides:
        if key_of(override) in ("seed", "fresh", "dry_run"):
            raise UserError(f"{override} is not a trial's to have: leave it out, and give seeds with --seeds 0,1,2")
    try:
        from otfkd.search.space import make_space, preset
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError("otfkd-search needs optuna: install the extra with pip install 'otfkd[optuna]'") from None

    named = preset(arguments.space) if arguments.space else []
    space = make_space(prepare_overrides([*named, *arguments.overrides], Config))
    runs = Path(compose(space.fixed).paths.runs)
    from otfkd.search.study import Search  # which loads torch

    search = Search(space, arguments.seeds, runs)
    failures = search.run(arguments.trials)
    _show(search)
    if failures:
        raise jobs_failed(failures)


def _show(search: "Search") -> None:
    """Write the trials, the best last, and the command that trains its runs."""
    trials = search.trials()
    complete = sorted((trial for trial in trials if trial.value is not None), key=lambda trial: trial.values[0])
    lines = [_cells(trial) for trial in [*(trial for trial in trials if trial.value is None), *complete]]
    console = Console()
    if console.is_terminal:
        table = Table("trial", "dev", "seeds", "rotations", "tried", box=None)
        for cells in lines:
            table.add_row(*cells)
        console.print(table)
    else:
        console.file.writelines("\t".join(cells) + "\n" for cells in lines)
    if complete:
        sys.stdout.write(f"best: {search.command(complete[-1])}\n")


def _cells(trial: "FrozenTrial") -> Sequence[str]:
    from otfkd.search.study import dev_scores, generations, tried

    mean = "pruned" if trial.value is None else f"{trial.value:.2f}"
    seeds = " ".join(f"{score:.2f}" for score in dev_scores(trial))
    return str(trial.number), mean, seeds, " ".join(map(str, generations(trial))), " ".join(tried(trial))
