"""A run's config as its folder keeps it, whichever version of otfkd wrote it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, field_validator

from otfkd.config.sections import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectiveConfig,
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
