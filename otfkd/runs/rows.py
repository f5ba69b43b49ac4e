"""Result rows: what was scored, on what, and everything a reader needs to trust or repeat it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from otfkd.base.files import append_text, read_json_lines, write_text


class DevPoint(BaseModel):
    """One dev score of a run.

    Attributes:
        step: after which optimizer step.
        dev: the score.
        seconds: of the run until then.
        forwards: of the run until then.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    step: int
    dev: float
    seconds: float
    forwards: int


class Cost(BaseModel):
    """What training took, evaluation included in the time.

    Attributes:
        seconds: of the clock, over all attempts at the run, once its text is tokenised and embeddings that it reads are
            precomputed; of an attempt that was killed, until its last step but for a second or 1 % of the attempt.
        forwards: encoder passes over one view of a micro-batch, a backward pass counted as two; of a teacher whose
            embeddings are precomputed, one pass over the corpus.
        peak_bytes: of memory, the GPU's where there is one; None where the system does not tell.
        curve: the dev scores.
        rotations: (step, snapshot's sha256) of every generation of teachers; None for a moving average.
        refused: rotations that were due and did not take place; None where they were not counted.
        refused_at: the steps after which they were due; None where these were not kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seconds: float
    forwards: int
    peak_bytes: int | None
    curve: tuple[DevPoint, ...]
    rotations: tuple[tuple[int, str | None], ...]
    refused: int | None = None
    # Not written where it is not known, so that earlier rows stay byte for byte what they are.
    refused_at: tuple[int, ...] | None = Field(default=None, exclude_if=lambda steps: steps is None)


class FineTuned(BaseModel):
    """What a fine-tuned model learnt from, and what it was before.

    Attributes:
        objective: the supervised objective.
        data: the labelled examples.
        examples: how many.
        data_sha256: of all of them.
        model: where it started.
        model_sha256: of that model's files.
        trained_on: how many pairs of each test task were among the examples, for those that had any.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    objective: str
    data: str
    examples: int
    data_sha256: str
    model: str
    model_sha256: str
    trained_on: dict[str, int]


class Row(BaseModel):
    """Scores of one model on the tasks of one split.

    Attributes:
        name: the experiment, or the model's name.
        seed: of the run; None for a model that was not trained here.
        split: `dev` chose checkpoints, `test` never did.
        checkpoint: `selected` by dev, or `last`; `given` for a model that was not trained here.
        step: optimizer steps the model was trained for.
        generation: rotations before that step.
        scores: task to {all, mean, wmean, pairs}; None for what is undefined, all pairs being alike to the model.
        average: mean of the tasks' 'all', None where one is; of accuracies for transfer, of Pearsons for the supervised
            tasks, of nDCGs for retrieval.
        sizes: by the first how many numbers of an embedding, where training made them one: each task's 'all' and the
            average, beside those of the whole embedding.
        geometry: of the split's sentences, {alignment, uniformity, anisotropy, effective_rank, sentences, positives};
            dev rows of graded pairs have it, and test rows of evaluation=geometry.
        protocol: how the scores were made.
        suite_sha256: of all pairs and grades.
        weights_sha256: of the model's files.
        config_hash: of the run.
        teacher_sha256: the initial teacher's files, None where it has none.
        corpus_sha256: the training text; None for a model that was not trained here.
        cost: of training; None for a model that was not trained here.
        fine_tuned: from what; None for a model that was not fine-tuned.
        skipped: optimizer steps that were left out, having no finite loss; None for a model that was not trained here.
        stopped: after which optimizer step of how many `trainer.patience` ended training; None where it did not.
        extra: what evaluators of the user's own say of the model; None without any.
        parts: the user's own parts in the run, as a command names them, with the sha256 of their sources; None without
            any.
        environment: revision, versions, device, threads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    name: str
    seed: int | None
    split: Literal["dev", "test"]
    checkpoint: Literal["selected", "last", "given"]
    step: int | None
    generation: int | None
    pooler: str
    scores: dict[str, dict[str, float | None]]
    average: float | None
    sizes: dict[int, dict[str, float | None]] | None = Field(default=None, exclude_if=lambda cut: cut is None)
    geometry: dict[str, float] | None = None
    protocol: str
    suite: str
    suite_sha256: str
    weights_sha256: str
    config_hash: str | None
    teacher_sha256: str | None
    corpus_sha256: str | None = None
    cost: Cost | None = None
    fine_tuned: FineTuned | None = None
    skipped: int | None = None
    stopped: tuple[int, int] | None = Field(default=None, exclude_if=lambda steps: steps is None)
    extra: dict[str, float] | None = Field(default=None, exclude_if=lambda said: said is None)
    parts: dict[str, str] | None = Field(default=None, exclude_if=lambda named: named is None)
    environment: dict[str, Any]

    @field_validator("average")
    @classmethod
    def _of_all_tasks(cls, average: float | None, known: ValidationInfo) -> float | None:
        scores: dict[str, dict[str, float | None]] = known.data.get("scores", {})
        if (average is None) != any(of_task.get("all", 0.0) is None for of_task in scores.values()):
            raise ValueError("it is null where a task has no score, and only there")
        return average


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write all rows of a run at once: with them there, the run is finished."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))


def append_row(path: Path, row: Row) -> None:
    """Add a row to a file of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_text(path, row.model_dump_json() + "\n")


def read_rows(path: Path) -> list[Row]:
    """Every row of a file, each checked."""
    return [Row.model_validate(row) for row in read_json_lines(path)]
