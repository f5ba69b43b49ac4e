"""The section of a config that says who else gets a run's numbers."""

from typing import Literal

from pydantic import PositiveInt

from otfkd.config.sections import Node

LoggerName = Literal["wandb", "mlflow", "tensorboard", "csv"]


class LoggerConfig(Node):
    name: Literal["none", LoggerName] | list[LoggerName]
    every: PositiveInt
    project: str  # W&B's project, MLflow's experiment
    offline: bool
    tags: list[str]

    @property
    def names(self) -> list[LoggerName]:
        """The chosen loggers, each once."""
        match self.name:
            case "none":
                return []
            case list(names):
                return list(dict.fromkeys(names))
            case name:
                return [name]
