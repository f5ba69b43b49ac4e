"""The sections of a config: which keys they have, and what is valid for each by itself.

Nothing here imports torch, so a command can refuse its arguments at once.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from otfkd.config.markers import AddedLater, HashedAs
from otfkd.config.parts import PATTERN

Pooler = Literal["cls", "cls_head", "mean", "first_last_mean", "top2_mean", "last"]
Compute = Literal["float32", "bfloat16"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
ImportPath = Annotated[str, Field(pattern=PATTERN)]  # of a part of a user's own


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Node):
    path: str  # `minilm` (embedded), a folder, a run's folder or a hub id
    pooler: Pooler | None  # None: as saved with the model
    layers: PositiveInt | None  # None: all of them
    head: bool  # SimCSE's Linear + tanh, in training only
    dropout: Annotated[Rate | None, AddedLater()] = None  # None: as the model's config has it
    attention_dropout: Annotated[Rate | None, AddedLater()] = None

    @property
    def rates(self) -> tuple[float | None, float | None]:
        """Dropout of hidden states and of attention; None: as the model's config has it."""
        return self.dropout, self.attention_dropout


class DataConfig(Node):
    source: Literal["mini", "text", "custom", "hub", "stsb", "sick", "csv"]
    path: str | list[str] | None  # files and patterns; of the source custom an import path
    repo: str | None
    file: str | None
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)]  # sentences a micro-batch, over all processes
    max_length: Annotated[int, Field(ge=3)]
    grade_scale: Annotated[PositiveFloat | None, AddedLater()] = None  # top grade of a CSV; None: 5, if any is above 1
    column: str | None = None  # of tables; None: the one that clearly holds the sentences
    subset: str | None = None  # of a data set of the hub that has several
    split: str | None = None  # of a data set of the hub that is not read as a single file
    unique: Annotated[bool, AddedLater()] = False  # each distinct sentence counts once

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path or []


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


class EmaConfig(Node):
    decay: Fraction = 0.999
    shape: Literal["constant", "ramp", "cosine"] = "constant"


class OnRotationConfig(Node):
    student: Literal["continue", "reinit"] = "continue"
    optimizer: Literal["keep", "reset"] = "keep"
    lr: Literal["continue", "restart"] = "continue"


class Schedule(Node):
    """When and what rotates; its defaults are those of conf/schedule/base.yaml, where each key is explained.

    Raises:
        ValidationError: a value that is not valid, or a trigger without what it needs.

    Example::

        >>> import otfkd
        >>> otfkd.Schedule().trigger
        'never'
        >>> schedule = otfkd.Schedule(trigger="every", every=25, retain="pool", pool_size=2)
        >>> schedule.source, schedule.waits_for_dev
        ('current', False)
    """

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

    @model_validator(mode="after")
    def _has_what_its_trigger_needs(self) -> Self:
        if self.trigger == "every" and self.every is None:
            raise ValueError("schedule.every must be given with schedule=every: add schedule.every=N")
        if self.trigger == "at" and not self.at:
            raise ValueError("schedule.at must name steps with schedule=at: add schedule.at=[100,200]")
        if self.trigger == "geometric" and None in (self.first, self.ratio):
            raise ValueError(
                "schedule.first and schedule.ratio must be given with schedule=geometric: "
                "add schedule.first=N schedule.ratio=R"
            )
        if self.trigger == "plateau" and self.patience is None:
            raise ValueError("schedule.patience must be given with schedule=plateau: add schedule.patience=N")
        return self

    @model_validator(mode="after")
    def _follows_alone(self) -> Self:
        if self.trigger != "follow":
            return self
        if self.source != "ema" or self.retain != "replace" or self.gate is not None:
            raise ValueError(
                "schedule=follow keeps one teacher, the student's moving average: "
                "leave schedule.source=ema, schedule.retain=replace and schedule.gate=null, or choose another schedule"
            )
        if self.max_rotations is not None or self.on_rotation != OnRotationConfig():
            raise ValueError(
                "schedule=follow has no rotations, whose number schedule.max_rotations limits and after which "
                "schedule.on_rotation lets something begin again: leave both, or choose another schedule"
            )
        return self

    @model_validator(mode="after")
    def _averages_several(self) -> Self:
        begins_again = self.on_rotation.student == "reinit"
        if self.source == "average" and begins_again and self.cache_every is None:
            raise ValueError(
                "schedule.source=average has one snapshot to average where schedule.on_rotation.student=reinit begins "
                "the student again at each rotation: add schedule.cache_every=N, fewer steps than between rotations, "
                "or take schedule.source=current"
            )
        return self

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
    callbacks: Annotated[list[ImportPath], AddedLater()] = []  # the user's own
    overfit_batches: Annotated[PositiveInt | None, AddedLater()] = None  # the run has so many, over and over
    fast_dev_run: bool = False  # do each thing once, and keep nothing
    patience: Annotated[PositiveInt | None, AddedLater()] = None  # dev scores without a new best that end a run

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        _refuse_repeats("trainer.callbacks", self.callbacks)
        return self


class EvaluationConfig(Node):
    suite: Literal["mini", "sts", "mteb", "pairs", "geometry", "supervised", "transfer", "retrieval", "beir_nano"]
    path: str | None
    repo: str | None
    file: str | None
    protocol: Literal["full", "fast"] | None  # of the suite transfer
    split: Literal["dev", "test"] | None  # of the suites geometry and retrieval
    every: PositiveInt | None  # None: only after the last step
    dev_compute: Compute  # of the encoder, for dev scores while a run trains; final rows are float32
    batch_size: PositiveInt
    max_length: Annotated[int, Field(ge=3)]
    extra: Annotated[list[ImportPath], AddedLater()] = []  # evaluators of the user's own
    select: Annotated[str | None, AddedLater()] = None  # the number of an evaluator that selects in dev's place
    also: list[str] = []  # choices of the group: further suites that the finished run is reported on
    dev: str | None = None  # of the suite pairs: the file that selects
    test: str | list[str] | None = None  # of the suite pairs: files and patterns that are only reported
    queries: str | None = None  # of the suite retrieval, as are the next two
    corpus: str | None = None
    qrels: str | None = None
    tasks: list[str] | None = None  # of the suites mteb and beir_nano

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        _refuse_repeats("evaluation.extra", self.extra)
        _refuse_repeats("evaluation.also", self.also)
        return self

    @property
    def tests(self) -> list[str]:
        return [self.test] if isinstance(self.test, str) else self.test or []


class PathsConfig(Node):
    data_root: str | None
    runs: str
    cache: str


def _refuse_repeats(key: str, paths: Sequence[str]) -> None:
    twice = next((path for place, path in enumerate(paths) if path in paths[:place]), None)
    if twice is not None:
        raise ValueError(f"{key} names {twice} twice: name it once")
