"""The typed schema behind the Hydra groups: YAML composes, these classes decide what is valid.

Nothing here imports torch, so a command can refuse its arguments at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import Field, ValidationError, model_validator

from otfkd.base.errors import UserError, first_line
from otfkd.config import checks
from otfkd.config.logger import LoggerConfig
from otfkd.config.messages import all_keys, explain
from otfkd.config.objective import ObjectiveConfig
from otfkd.config.sections import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Node,
    OptimizerConfig,
    PathsConfig,
    PrecisionConfig,
    Schedule,
    StudentConfig,
    TeacherConfig,
    TrainerConfig,
)
from otfkd.config.uses import SCORING, TRAINING, Needs


class Root(Node):
    """What every command's config can do: be built from what Hydra composed.

    Attributes:
        uses: what keys need to be read by the command.
        command: its name.
        unnamed: the group that an argument without a key is a choice of; empty where there is none.
    """

    uses: ClassVar[Mapping[str, tuple[Needs, ...]]]
    command: ClassVar[str]
    unnamed: ClassVar[str] = ""

    @classmethod
    def from_hydra(cls, composed: DictConfig) -> Self:
        """Validate a composed config.

        Raises:
            UserError: for an unknown key (naming the nearest valid one), a wrong value or a missing one.
        """
        try:
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as error:
            key = error.full_key or "a key"
            raise UserError(f"{key} must be given: add {key}=VALUE to the command") from None
        except OmegaConfBaseException as error:
            if "'OTFKD_DATA' not found" in str(error):
                raise UserError(
                    "there is no folder of real data: set OTFKD_DATA, or give paths.data_root=FOLDER"
                ) from None
            raise UserError(f"the config does not resolve: {first_line(error)}") from None
        assert isinstance(values, dict)
        _absolute_paths(values)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            # Where a key takes another's value, the other is the one that was set.
            first, *_ = sorted(error.errors(), key=lambda each: _is_taken(composed, each["loc"]))
            raise UserError(explain(first, all_keys(cls), cls.command)) from None


class Config(Root):
    """One training run."""

    uses = TRAINING
    command = "otfkd-train"
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]  # the runs' folder is called by it
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    dry_run: bool
    fresh: bool
    resume: Literal["auto", "force"]
    model: ModelConfig
    data: DataConfig
    teacher: TeacherConfig
    student: StudentConfig
    objective: ObjectiveConfig
    schedule: Schedule
    optimizer: OptimizerConfig
    precision: PrecisionConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    paths: PathsConfig

    @model_validator(mode="before")
    @classmethod
    def _warms_up_until_thefirst_rotation(cls, values: dict[str, Any]) -> dict[str, Any]:
        teacher, schedule = values.get("teacher"), values.get("schedule")
        if not isinstance(teacher, dict) or not isinstance(schedule, dict):
            return values
        if teacher.get("source") != "self" or teacher.get("warmup_steps") is not None:
            return values
        first = first_rotation(schedule, values.get("evaluation"))
        return {**values, "teacher": {**teacher, "warmup_steps": first}}

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        checks.check_empty_slot(self.teacher, self.objective, self.schedule)
        checks.check_warm_up(self.teacher, self.schedule)
        checks.check_sampling(self.objective, self.schedule)
        checks.check_precomputed(self.teacher, self.schedule)
        checks.check_grade_scale(self.data, self.objective)
        checks.check_text(self.data, self.objective)
        checks.check_start(self.student, self.teacher)
        checks.check_chunks(self.trainer.chunk if self.chunked else None, self.objective)
        return self

    @property
    def negatives_per_anchor(self) -> int:
        """In-batch negatives of each anchor over all processes, where it has any; accumulation adds none."""
        if self.objective.fn is not None:
            return 0
        match self.objective.supervised:
            case None:
                return self.data.batch_size - 1
            case "simcse":
                return 2 * self.data.batch_size - 1
            case _:
                return 0

    @property
    def read_at_once(self) -> int:
        """Sentences in one pass of the student: both views of each, or all of every example."""
        return self.data.batch_size * (3 if self.objective.supervised == "simcse" else 2)

    @property
    def chunked(self) -> bool:
        """Whether a batch is embedded in parts, each of them twice (GradCache)."""
        return self.trainer.chunk is not None and self.trainer.chunk < self.read_at_once // self.processes

    @property
    def processes(self) -> int:
        """How many train together, each on an equal share of every micro-batch."""
        return self.trainer.devices * self.trainer.nodes

    @property
    def total_batches(self) -> int:
        """Micro-batches of the whole run."""
        return self.trainer.max_steps * self.trainer.accumulate

    @property
    def distils(self) -> bool:
        """Whether a teacher is learnt from."""
        return self.objective.learns_from(self.teacher.source)

    @property
    def parts(self) -> dict[str, list[str]]:
        """The import paths of the user's own parts, by the keys that name them."""
        return named_parts(self.objective, self.trainer, self.data, self.evaluation)

    @property
    def precomputes(self) -> bool:
        """Whether the teacher is asked once for all sentences, not batch by batch."""
        return self.distils and self.teacher.precomputed


class EvaluateConfig(Root):
    """One model to be scored on one suite."""

    uses = SCORING
    command = "otfkd-eval"
    unnamed = "model"
    model: ModelConfig
    evaluation: EvaluationConfig
    output: str | None
    paths: PathsConfig


def first_rotation(schedule: dict[str, Any], evaluation: Any) -> int | None:
    """The step after which a schedule first rotates; None where it does not say, or not validly."""
    named: Any = None
    match schedule.get("trigger"):
        case "at":
            named = min((step for step in schedule.get("at") or [] if isinstance(step, int)), default=None)
        case "geometric":
            named = schedule.get("first")
        case "on_improvement" | "plateau":
            named = evaluation.get("every") if isinstance(evaluation, dict) else None
    # An interval, as a profile may set one whatever the trigger, comes first.
    first = named if schedule.get("every") is None else schedule["every"]
    return first if isinstance(first, int) and first > 0 else None


def _is_taken(composed: DictConfig, key: tuple[int | str, ...]) -> bool:
    node: Any = composed
    for part in key[:-1]:
        node = node.get(part) if isinstance(node, DictConfig) else None
    return (
        bool(key)
        and isinstance(node, DictConfig)
        and key[-1] in node
        and OmegaConf.is_interpolation(node, str(key[-1]))
    )


def named_parts(
    objective: ObjectiveConfig | None,
    trainer: TrainerConfig | None,
    data: DataConfig | None,
    evaluation: EvaluationConfig | None,
) -> dict[str, list[str]]:
    """The import paths of the parts of the user's own that a run uses, by the keys that name them."""
    whole = None if objective is None else objective.fn
    named = {
        "objective.fn": [] if whole is None else [whole],
        "objective.kd": objective.own_losses if objective is not None and objective.terms is None else [],
        "objective.terms": objective.own_losses if objective is not None and objective.terms is not None else [],
        "trainer.callbacks": [] if trainer is None else trainer.callbacks,
        "data.path": data.paths if data is not None and data.source == "custom" else [],
        "evaluation.extra": [] if evaluation is None else evaluation.extra,
    }
    return {key: paths for key, paths in named.items() if paths}


_PATH_KEYS = (
    ("data", "path"), ("evaluation", "path"), ("evaluation", "dev"), ("evaluation", "test"), ("evaluation", "queries"),
    ("evaluation", "corpus"), ("evaluation", "qrels"), ("paths", "data_root"), ("paths", "runs"), ("paths", "cache"),
)  # fmt: skip


def _absolute_paths(values: dict[Any, Any]) -> None:
    # Relative paths mean the folder the command was started in, wherever the job ends up running.
    for section, key in _PATH_KEYS:
        node = values.get(section)
        if not isinstance(node, dict) or node.get("source") == "custom":  # whose data.path is an import path
            continue
        match node.get(key):
            case str(path):
                node[key] = _absolute(path)
            case list(paths):
                node[key] = [_absolute(path) if isinstance(path, str) else path for path in paths]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
