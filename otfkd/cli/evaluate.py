"""otfkd-eval: score any model on a suite."""

import sys

from omegaconf import DictConfig

from otfkd.cli.common import run_hydra
from otfkd.config.schema import EvaluateConfig


def task(composed: DictConfig) -> None:
    """Score one composed config and print its table."""
    config = EvaluateConfig.from_hydra(composed)
    from otfkd.evaluation.scoring import score_model
    from otfkd.tables.terminal import scores

    sys.stdout.write(scores(score_model(config)) + "\n")


def main() -> None:
    run_hydra(task, "evaluate", EvaluateConfig)
