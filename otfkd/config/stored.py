"""A run's config as its folder keeps it, whichever version of otfkd wrote it."""

from pathlib import Path
from typing import Any, cast

import yaml  # type: ignore[import-untyped]
from omegaconf._utils import get_yaml_loader
from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, field_validator

from otfkd.config.messages import present_names
from otfkd.config.objective import ObjectiveConfig
from otfkd.config.sections import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    Schedule,
    StudentConfig,
    TeacherConfig,
    TrainerConfig,
)


class StoredConfig(BaseModel):
    """What a run was told, section by section; a section that this version cannot read is None, which means unknown."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    name: str | None = None
    seed: int | None = None
    model: ModelConfig | None = None
    data: DataConfig | None = None
    teacher: TeacherConfig | None = None
    student: StudentConfig | None = None
    objective: ObjectiveConfig | None = None
    schedule: Schedule | None = None
    optimizer: OptimizerConfig | None = None
    precision: PrecisionConfig | None = None
    trainer: TrainerConfig | None = None
    evaluation: EvaluationConfig | None = None

    @field_validator("*", mode="wrap")
    @classmethod
    def _unknown(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    # What OmegaConf takes for a number, at many times its speed: a list of runs reads hundreds of configs.
    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers


def read_settings(file: Path) -> dict[str, Any]:
    """What a config.yaml says, under the names that its keys have now.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, or no config.
    """
    try:
        settings = yaml.load(file.read_bytes(), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is no YAML: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{file} is no config")
    return cast("dict[str, Any]", present_names(settings))
