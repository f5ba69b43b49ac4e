"""otfkd-eval: score any model on a suite."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from otfkd.base.errors import UserError
from otfkd.base.progress import waiting
from otfkd.cli.common import run_hydra
from otfkd.config.schema import EvaluateConfig


def task(composed: DictConfig) -> None:
    """Score one composed config and print its table."""
    config = EvaluateConfig.from_hydra(composed)
    if config.output is not None and Path(config.output).expanduser().is_dir():
        raise UserError(f"output={config.output} is a folder, and rows are appended to a file: name one in it")
    from otfkd.models.found import find_model

    find_model(config.model.path, "model")  # a wrong name is refused before torch loads
    with waiting(f"scoring {config.model.path}"):
        from otfkd.evaluation.scoring import score_model
        from otfkd.tables.terminal import scores

        told = scores(score_model(config))
    sys.stdout.write(f"{told}\n")


def main() -> None:
    run_hydra(task, "evaluate", EvaluateConfig)
