"""otfkd-train: train one run, or a sweep of them with --multirun."""

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from otfkd.base.errors import UserError
from otfkd.base.launchers import check_environment, is_first, slurm_tasks, torchrun_processes
from otfkd.base.progress import waiting
from otfkd.cli.common import keep_traceback, run_hydra
from otfkd.config.schema import Config

if TYPE_CHECKING:
    from otfkd.training.result import TrainResult


def task(composed: DictConfig) -> float | None:
    """Train one composed config; gives the selected dev score to a Hydra sweeper that optimises."""
    config = Config.from_hydra(composed)
    check_environment()
    try:
        result = _result(config)
    except Exception:
        keep_traceback(config.paths.runs)
        raise
    if result is None:
        return None
    from otfkd.tables.terminal import scores

    if result.status in ("planned", "tried"):
        sys.stdout.write(result.plan + "\n")
        return None
    sys.stdout.write(f"{scores([*result.rows, *result.also])}\n{result.status}: {result.folder}\n")
    return next(row.average for row in result.rows if row.split == "dev" and row.checkpoint == "selected")


def show_sweep(jobs: Sequence[DictConfig]) -> None:
    """Write the table of a sweep's runs; a job that was refused before it had a folder has none."""
    from otfkd.cli.run_table import show
    from otfkd.runs.summary import find_run, read_summary

    found = []
    for composed in jobs if is_first() else ():
        with contextlib.suppress(UserError):  # the last line of the sweep says why
            config = Config.from_hydra(composed)
            found.append(None if config.dry_run or config.trainer.fast_dev_run else find_run(config))
    runs = [read_summary(run) for run in dict.fromkeys(found) if run is not None]
    if runs:
        show(runs)


def _result(config: Config) -> "TrainResult | None":
    """What became of a run; None in a process that does not speak for all. Skips need no torch, plans no Lightning."""
    from otfkd.training.finished import skipped
    from otfkd.training.run import prepare

    alone = config.processes == 1 and torchrun_processes() is None and slurm_tasks() <= 1
    trial = config.trainer.fast_dev_run and not config.dry_run
    found = prepare(config) if alone and not trial else None
    if found is not None and (there := skipped(found)) is not None:
        return there
    if found is not None and config.dry_run:
        with waiting("loading"):
            from otfkd.training.plan_text import planned

            return planned(found, found.load_models())
    with waiting("loading"):
        from otfkd.base.processes import rank
        from otfkd.training.train import train

    result = train(config, found)
    return result if rank() == 0 else None


def main() -> None:
    run_hydra(task, "train", Config, after_sweep=show_sweep)
