"""otfkd-train: train one run, or a sweep of them with --multirun."""

import sys

from omegaconf import DictConfig

from otfkd.base.launchers import check_environment
from otfkd.cli.common import keep_traceback, run_hydra
from otfkd.config.schema import Config


def task(composed: DictConfig) -> float | None:
    """Train one composed config; gives the selected dev score to a Hydra sweeper that optimises."""
    config = Config.from_hydra(composed)
    check_environment()
    from otfkd.base.processes import rank
    from otfkd.tables.terminal import scores
    from otfkd.training.train import train

    try:
        result = train(config)
    except Exception:
        keep_traceback(config.paths.runs)
        raise
    if rank() != 0:
        return None  # the first process speaks for all
    if result.status == "planned":
        sys.stdout.write(result.plan + "\n")
        return None
    sys.stdout.write(f"{scores(result.rows)}\n{result.status}: {result.folder}\n")
    return next(row.average for row in result.rows if row.split == "dev" and row.checkpoint == "selected")


def main() -> None:
    run_hydra(task, "train", Config)
