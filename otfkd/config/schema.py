"""The typed schema behind the Hydra groups: YAML composes, these classes decide what is valid.

Nothing here imports torch, so a command can refuse its arguments at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from otfkd.base.errors import UserError, first_line
from otfkd.config.markers import AddedLater, HashedAs
from otfkd.config.messages import all_keys, explain

Pooler = Literal["cls", "cls_head", "mean", "first_last_mean", "top2_mean", "last"]
Compute = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Node):
    path: str  # `minilm` (embedded), a folder, a run's folder or a hub id
    pooler: Pooler | None  # None: as saved with the model
    layers: PositiveInt | None  # None: all of them
    head: bool  # SimCSE's Linear + tanh, in training only


class DataConfig(Node):
    source: Literal["mini", "text", "hub", "stsb", "sick", "csv"]
    path: str | None
    repo: str | None
    file: str | None
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]  # sentences a micro-batch, over all processes
    max_length: Annotated[int, Field(ge=3)]


class TeacherConfig(Node):
    source: Literal["none", "self", "model"]
    path: str | list[str] | None  # several teach together, their similarities averaged
    weights: list[PositiveFloat] | None  # of several; None: equal
    pooler: Pooler | None
    layers: PositiveInt | None
    precomputed: Annotated[bool, AddedLater()] = False  # the corpus is embedded once, into a file that all runs share
    warmup_steps: PositiveInt | None
    after_warmup: Literal["continue", "reinit"] | None  # what the student does once its snapshot teaches

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path or []


class StudentConfig(Node):
    init: Literal["base", "teacher"]


class ObjectiveConfig(Node):
    supervised: Literal["simcse", "cosent", "cosine_regression", "softmax"] | None  # None: from sentences alone
    temperature: PositiveFloat
    mask_repeats: bool
    consistency_weight: NonNegativeFloat
    kd: Literal["ce", "kl", "js", "listmle", "rank_margin", "mse", "cosine"]
    kd_weight: NonNegativeFloat
    kd_ramp: Literal["first", "rotation"] | None  # counted from the first teacher or from each one; None: constant
    kd_ramp_steps: PositiveInt | None
    kd_ramp_shape: Literal["linear", "sigmoid"]
    lists: Literal["one_view", "two_views"]  # the student's: view 1 against itself or against view 2
    temperature_student: PositiveFloat
    temperature_student_final: PositiveFloat | None  # reached linearly at the last step; None: fixed
    temperature_teacher: PositiveFloat
    temperature_teacher_final: PositiveFloat | None
    margin: NonNegativeFloat
    group_p: Fraction | None
    group_size: Annotated[int, Field(ge=2, le=1_000_000)] | None
    mlm_weight: NonNegativeFloat
    mlm_probability: Fraction

    @property
    def compares_embeddings(self) -> bool:
        """Whether the teacher is matched vector by vector, not through lists of similarities."""
        return self.kd in ("mse", "cosine")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.group_p is not None and self.group_size is not None:
            raise ValueError("objective.group_p and objective.group_size exclude each other: set one of them to null")
        if (self.kd_ramp is None) != (self.kd_ramp_steps is None):
            raise ValueError(
                "objective.kd_ramp and objective.kd_ramp_steps need each other: give both, or set both to null"
            )
        reads = {  # what some kinds of distillation have no use for, where it is set
            "group_p": (self.group_p is not None, _LISTED),
            "group_size": (self.group_size is not None, _LISTED),
            "lists": (self.lists == "two_views", _LISTED),
            "temperature_student_final": (self.temperature_student_final is not None, (*_SOFTMAX, "listmle")),
            "temperature_teacher_final": (self.temperature_teacher_final is not None, _SOFTMAX),
        }
        for key, (is_set, kinds) in reads.items():
            if is_set and self.kd not in kinds:
                raise ValueError(
                    f"objective.{key}={getattr(self, key)} has no meaning with objective.kd={self.kd}: "
                    f"leave it out, or take objective.kd={', '.join(kinds[:-1])} or {kinds[-1]}"
                )
        return self


_SOFTMAX = ("ce", "kl", "js")
_LISTED = (*_SOFTMAX, "listmle", "rank_margin")


class EmaConfig(Node):
    decay: Fraction = 0.999
    shape: Literal["constant", "ramp", "cosine"] = "constant"


class OnRotationConfig(Node):
    student: Literal["continue", "reinit"] = "continue"
    optimizer: Literal["keep", "reset"] = "keep"
    lr: Literal["continue", "restart"] = "continue"


class Schedule(Node):
    """When and what rotates; its defaults are those of conf/schedule/base.yaml, where each key is explained."""

    trigger: Literal["never", "every", "at", "geometric", "on_improvement", "plateau", "follow"] = "never"
    every: PositiveInt | None = None
    at: list[PositiveInt] | None = None
    first: PositiveInt | None = None
    ratio: Annotated[float, Field(gt=1)] | None = None
    patience: PositiveInt | None = None
    start: NonNegativeInt = 0
    max_rotations: PositiveInt | None = None
    gate: NonNegativeFloat | None = None
    source: Literal["current", "best", "ema", "average"] = "current"
    average_last: Annotated[PositiveInt, HashedAs("average")] = 3
    ema: EmaConfig = EmaConfig()
    retain: Literal["replace", "pool", "pool_initial"] = "replace"
    pool_size: Annotated[PositiveInt, HashedAs("pool")] = 3
    aggregate: Literal["mean", "dev_weighted", "sample"] = "mean"
    on_rotation: OnRotationConfig = OnRotationConfig()
    cache_every: PositiveInt | None = None
    keep_snapshots: Annotated[PositiveInt, HashedAs("keep")] = 2

    @property
    def asks_dev(self) -> bool:
        """Whether dev scores say when to rotate."""
        return self.trigger in ("on_improvement", "plateau")

    @property
    def waits_for_dev(self) -> bool:
        """Whether dev scores decide if a rotation takes place."""
        return self.asks_dev or self.gate is not None


class OptimizerConfig(Node):
    lr: PositiveFloat
    decay: Literal["linear", "cosine", "constant"]
    weight_decay: NonNegativeFloat
    clip_norm: PositiveFloat


class PrecisionConfig(Node):
    compute: Literal["auto", "float32", "bfloat16"]
    tf32: bool
    deterministic: bool


class TrainerConfig(Node):
    max_steps: Annotated[int, Field(gt=0, le=10_000_000)]
    accumulate: Annotated[int, Field(gt=0, le=1_000_000)]
    accelerator: Literal["auto", "cpu", "gpu"]
    checkpoint_every: PositiveInt | None
    on_nonfinite: Literal["stop", "skip"]  # what becomes of an optimizer step whose loss is not finite
    chunk: PositiveInt | None  # sentences that the student embeds at once in each process; None: the whole batch
    devices: PositiveInt  # of each node; a process each
    nodes: PositiveInt
    threads: Annotated[int, Field(gt=0, le=1024)] | None  # of each process


class EvaluationConfig(Node):
    suite: Literal["mini", "sts", "mteb", "geometry", "supervised", "transfer"]
    path: str | None
    repo: str | None
    file: str | None
    protocol: Literal["full", "fast"] | None  # of the suite transfer
    split: Literal["dev", "test"] | None  # of the suite geometry
    every: PositiveInt | None  # None: only after the last step
    dev_compute: Compute  # of the encoder, for dev scores while a run trains; final rows are float32
    batch_size: PositiveInt
    max_length: Annotated[int, Field(ge=3)]


class LoggerConfig(Node):
    name: Literal["none", "wandb", "tensorboard", "csv"]
    every: PositiveInt
    project: str
    offline: bool
    tags: list[str]


class PathsConfig(Node):
    data_root: str | None
    runs: str
    cache: str


class Root(Node):
    """What every command's config can do: be built from what Hydra composed."""

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
            raise UserError(explain(error.errors()[0], all_keys(cls))) from None


class Config(Root):
    """One training run."""

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

    @property
    def negatives_per_anchor(self) -> int:
        """In-batch negatives of each anchor over all processes, where it has any; accumulation adds none."""
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
        return self.objective.kd_weight > 0

    @property
    def precomputes(self) -> bool:
        """Whether the teacher is asked once for all sentences, not batch by batch."""
        return self.teacher.precomputed and self.distils


class EvaluateConfig(Root):
    """One model to be scored on one suite."""

    model: ModelConfig
    evaluation: EvaluationConfig
    output: str | None
    paths: PathsConfig


_PATH_KEYS = (("data", "path"), ("evaluation", "path"), ("paths", "data_root"), ("paths", "runs"), ("paths", "cache"))


def _absolute_paths(values: dict[Any, Any]) -> None:
    # Relative paths mean the folder the command was started in, wherever the job ends up running.
    for section, key in _PATH_KEYS:
        node = values.get(section)
        if isinstance(node, dict) and isinstance(node.get(key), str):
            node[key] = str(Path(node[key]).expanduser().absolute())
