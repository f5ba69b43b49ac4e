"""From what an encoder scores on a suite to result rows, the same way for a run's model and for any other."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from torch import Tensor

from otfkd.base.errors import DivergenceError
from otfkd.base.hashing import hash_weights
from otfkd.base.provenance import environment
from otfkd.config.sections import EvaluationConfig
from otfkd.data import relatedness, retrieval, transfer
from otfkd.data.relatedness import RelatednessTask
from otfkd.data.retrieval import RetrievalTask
from otfkd.data.sts import REJOINED, Suite, Task, TestTask, checksum
from otfkd.data.transfer import TransferTask
from otfkd.evaluation.extra import Evaluator, extra_scores
from otfkd.evaluation.geometry import geometry
from otfkd.evaluation.mteb_tasks import MtebTasks, evaluate_mteb
from otfkd.evaluation.mteb_tasks import protocol as mteb_protocol
from otfkd.evaluation.relatedness import PROTOCOL as SUPERVISED
from otfkd.evaluation.relatedness import evaluate_relatedness
from otfkd.evaluation.retrieval import PROTOCOL as RETRIEVAL
from otfkd.evaluation.retrieval import evaluate_retrieval
from otfkd.evaluation.sts import COLLAPSED, PROTOCOL, StsScore, average, cut, embed, score_task
from otfkd.evaluation.transfer import PROTOCOLS, evaluate_transfer
from otfkd.models.encoder import Encoder
from otfkd.runs.rows import Cost, FineTuned, Row

log = logging.getLogger("otfkd")


@dataclass(frozen=True)
class Origin:
    """Where a scored model comes from; the fields of `Row` by the same names."""

    name: str
    checkpoint: Literal["selected", "last", "given"] = "given"
    seed: int | None = None
    step: int | None = None
    generation: int | None = None
    config_hash: str | None = None
    teacher_sha256: str | None = None
    corpus_sha256: str | None = None
    cost: Cost | None = None
    fine_tuned: FineTuned | None = None
    skipped: int | None = None
    parts: dict[str, str] | None = None
    stopped: tuple[int, int] | None = None


def dev_score(encoder: Encoder, suite: Suite, config: EvaluationConfig) -> float:
    """The number that selects checkpoints: Spearman x 100 over all pairs of the suite's dev task.

    Raises:
        DivergenceError: it is undefined, so that the model cannot be selected.
    """
    return dev_scores(encoder, suite, config)[0]


def dev_scores(encoder: Encoder, suite: Suite, config: EvaluationConfig) -> tuple[float, dict[int, float]]:
    """The number that selects checkpoints, and what it is at each smaller size of the embedding that has one.

    Raises:
        DivergenceError: as `dev_score`.
    """
    vectors = embed(
        encoder, (suite.dev,), batch_size=config.batch_size, max_length=config.max_length, compute=config.dev_compute
    )
    dev = score_task(suite.dev, vectors).all
    if dev is None:
        raise DivergenceError(COLLAPSED)
    at = {size: score_task(suite.dev, cut(vectors, size)).all for size in _smaller(encoder)}
    return dev, {size: score for size, score in at.items() if score is not None}


def _smaller(encoder: Encoder) -> list[int]:
    """The sizes below its own to which a model's embeddings may be cut."""
    return [size for size in encoder.dims if size < encoder.width]


def score_rows(
    encoder: Encoder, suite: Suite, config: EvaluationConfig, origin: Origin, evaluators: Sequence[Evaluator] = ()
) -> list[Row]:
    """Score an encoder on a suite: its dev row, with the geometry of its dev sentences, and its test row if it has one.

    Both have what the user's own evaluators say.

    Raises:
        DivergenceError: no task has a score.
        UserError: an evaluator of the user's own fails.
    """
    tasks = (suite.dev, *suite.test)
    vectors = embed(encoder, tasks, batch_size=config.batch_size, max_length=config.max_length)
    facts = _facts(encoder, origin, sts_protocol(suite, config))
    facts |= {"suite": suite.name, "suite_sha256": suite.checksum}
    scores = {task.name: score_task(task, vectors) for task in tasks}
    _refuse_collapsed(scores)
    if evaluators:
        facts["extra"] = extra_scores(evaluators, encoder, config.max_length)
    dev, test = {suite.dev.name: scores[suite.dev.name]}, {task.name: scores[task.name] for task in suite.test}
    selecting = Row(
        **facts, split="dev", **_scored(dev), sizes=_sizes(encoder, (suite.dev,), vectors),
        geometry=geometry(suite.dev, vectors).as_dict(),
    )  # fmt: skip
    if not test:
        return [selecting]
    return [selecting, Row(**facts, split="test", **_scored(test), sizes=_sizes(encoder, suite.test, vectors))]


def score_tests(encoder: Encoder, tasks: Sequence[TestTask], config: EvaluationConfig, origin: Origin) -> Row:
    """The test row of a user's own tasks, where nothing is selected.

    Raises:
        DivergenceError: no task has a score.
    """
    vectors = embed(encoder, tasks, batch_size=config.batch_size, max_length=config.max_length)
    scores = {task.name: score_task(task, vectors) for task in tasks}
    _refuse_collapsed(scores)
    return Row(
        **_facts(encoder, origin, _at_length(PROTOCOL, config)),
        **_scored(scores),
        sizes=_sizes(encoder, tasks, vectors),
        split="test",
        suite="pairs",
        suite_sha256=checksum(tasks),
    )


def score_geometry(encoder: Encoder, task: Task, config: EvaluationConfig, origin: Origin) -> Row:
    """The row of one task with the geometry of its sentences."""
    vectors = embed(encoder, (task,), batch_size=config.batch_size, max_length=config.max_length)
    scores = {task.name: score_task(task, vectors)}
    _refuse_collapsed(scores)
    return Row(
        **_facts(encoder, origin, _at_length(f"{PROTOCOL}, {REJOINED}", config)),
        **_scored(scores),
        sizes=_sizes(encoder, (task,), vectors),
        geometry=geometry(task, vectors).as_dict(),
        split=config.split or "dev",
        suite="geometry",
        suite_sha256=checksum((task,)),
    )


def score_relatedness(
    encoder: Encoder, tasks: Sequence[RelatednessTask], config: EvaluationConfig, origin: Origin
) -> Row:
    """Score an encoder on the supervised tasks: their test row."""
    scores = evaluate_relatedness(encoder, tasks, batch_size=config.batch_size, max_length=config.max_length)
    return Row(
        **_facts(encoder, origin, _at_length(SUPERVISED, config)),
        split="test",
        scores={task: score.as_dict() for task, score in scores.items()},
        average=fmean(round(score.pearson, 2) for score in scores.values()),
        suite="supervised",
        suite_sha256=relatedness.checksum(tasks),
    )


def score_transfer(encoder: Encoder, tasks: Sequence[TransferTask], config: EvaluationConfig, origin: Origin) -> Row:
    """Score an encoder on transfer tasks: their test row."""
    protocol = config.protocol or "full"
    scores = evaluate_transfer(encoder, tasks, protocol, batch_size=config.batch_size, max_length=config.max_length)
    return Row(
        **_facts(encoder, origin, transfer_protocol(config)),
        split="test",
        scores={task: score.as_dict() for task, score in scores.items()},
        average=fmean(round(score.accuracy, 2) for score in scores.values()),
        suite="transfer",
        suite_sha256=transfer.checksum(tasks),
    )


def score_retrieval(
    encoder: Encoder,
    tasks: Sequence[RetrievalTask],
    prompts: Mapping[str, str],
    config: EvaluationConfig,
    origin: Origin,
) -> Row:
    """Score an encoder on retrieval tasks."""
    scores = {
        task.name: evaluate_retrieval(
            encoder, task, prompts, batch_size=config.batch_size, max_length=config.max_length
        )
        for task in tasks
    }
    return Row(
        **_facts(encoder, origin, _at_length(RETRIEVAL, config)),
        split=config.split or "test",
        scores={task: score.as_dict() for task, score in scores.items()},
        average=fmean(round(score.ndcg, 2) for score in scores.values()),
        suite=config.suite,
        suite_sha256=retrieval.checksum(tasks),
    )


def score_mteb(
    encoder: Encoder, found: MtebTasks, prompts: Mapping[str, str], config: EvaluationConfig, origin: Origin
) -> Row:
    """Score an encoder on tasks of mteb, by mteb."""
    scores = evaluate_mteb(encoder, found, prompts, batch_size=config.batch_size, max_length=config.max_length)
    return Row(
        **_facts(encoder, origin, _at_length(mteb_protocol(), config)),
        split="test",
        scores={task: {"main": score} for task, score in scores.items()},
        average=fmean(round(score, 2) for score in scores.values()),
        suite="mteb",
        suite_sha256=found.checksum,
    )


def sts_protocol(suite: Suite, config: EvaluationConfig) -> str:
    """How the scores of a suite are made, as rows say it."""
    return _at_length(", ".join(filter(None, [PROTOCOL, suite.text])), config)


def transfer_protocol(config: EvaluationConfig) -> str:
    """How transfer scores are made, as rows say it."""
    return _at_length(PROTOCOLS[config.protocol or "full"].description, config)


def _at_length(protocol: str, config: EvaluationConfig) -> str:
    return f"{protocol}, {config.max_length} tokens"


def _facts(encoder: Encoder, origin: Origin, protocol: str) -> dict[str, Any]:
    """What a row says of its model and of how it was scored."""
    return {
        **asdict(origin),
        "pooler": encoder.pooler,
        "protocol": protocol,
        "weights_sha256": hash_weights(encoder),
        "environment": environment(),
    }


def _refuse_collapsed(scores: Mapping[str, StsScore]) -> None:
    """Mark tasks that have no score, unless none has."""
    undefined = [task for task, score in scores.items() if score.all is None]
    if len(undefined) == len(scores):
        raise DivergenceError(COLLAPSED)
    if undefined:
        log.warning(
            "%s: undefined, for all pairs have the same similarity, and so is an average of them", ", ".join(undefined)
        )


def _scored(scores: dict[str, StsScore]) -> dict[str, Any]:
    return {"scores": {task: score.as_dict() for task, score in scores.items()}, "average": average(scores)}


def _sizes(
    encoder: Encoder, tasks: Sequence[Task], vectors: dict[str, Tensor]
) -> dict[int, dict[str, float | None]] | None:
    """The scores over all pairs at each smaller size of the embedding, and their averages; None where it has none."""
    found: dict[int, dict[str, float | None]] = {}
    for size in _smaller(encoder):
        shorter = cut(vectors, size)
        scores = {task.name: score_task(task, shorter) for task in tasks}
        found[size] = {**{task: score.all for task, score in scores.items()}, "average": average(scores)}
    return found or None
