"""From a model and a suite to result rows, the same way for a run's model and for any other."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from torch import Tensor

from otfkd.base.errors import DivergenceError, UserError
from otfkd.base.hashing import hash_weights
from otfkd.base.provenance import environment
from otfkd.config.parts import fingerprints, with_sha256
from otfkd.config.schema import EvaluateConfig
from otfkd.config.sections import EvaluationConfig, Pooler
from otfkd.data import relatedness, retrieval, senteval, transfer
from otfkd.data.relatedness import RelatednessTask
from otfkd.data.retrieval import RetrievalTask, load_nano, load_retrieval
from otfkd.data.sts import REJOINED, Suite, Task, TestTask, checksum, load_own_tests, load_stsb, load_suite
from otfkd.data.transfer import TransferTask
from otfkd.evaluation.extra import Evaluator, extra_scores, make_evaluators
from otfkd.evaluation.geometry import geometry
from otfkd.evaluation.mteb_tasks import MtebTasks, evaluate_mteb, find_tasks
from otfkd.evaluation.mteb_tasks import protocol as mteb_protocol
from otfkd.evaluation.relatedness import PROTOCOL as SUPERVISED
from otfkd.evaluation.relatedness import evaluate_relatedness
from otfkd.evaluation.retrieval import PROTOCOL as RETRIEVAL
from otfkd.evaluation.retrieval import evaluate_retrieval
from otfkd.evaluation.sts import COLLAPSED, PROTOCOL, StsScore, average, cut, embed, score_task
from otfkd.evaluation.transfer import PROTOCOLS, evaluate_transfer
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder, saved_pooler
from otfkd.models.saved import saved_prompts
from otfkd.runs.rows import Cost, FineTuned, Row, append_row

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


def score_model(config: EvaluateConfig) -> list[Row]:
    """Score any model on a suite.

    Raises:
        UserError: the model or the data cannot be used, or the model's embeddings have no score.
    """
    # The data comes first: a missing file is found before a model is loaded.
    score = make_scorer(config.evaluation, config.paths.data_root, Path(config.paths.cache))
    folder = find_model(config.model.path, "model")
    announce_override(folder, config.model.pooler)
    encoder = load_encoder(folder, config.model.pooler, config.model.layers)
    try:
        rows = score(encoder, Origin(config.model.path, parts=_parts(config.evaluation)), folder)
    except DivergenceError as error:
        raise UserError(f"{folder} cannot be scored ({error}): its training diverged, take another model") from None
    if config.output is not None:
        for row in rows:
            append_row(Path(config.output).expanduser(), row)
    return rows


def _parts(config: EvaluationConfig) -> dict[str, str] | None:
    named = {"evaluation.extra": config.extra} if config.extra else {}
    return with_sha256(named, fingerprints(named)) or None


def make_scorer(
    config: EvaluationConfig, data_root: str | None, cache: Path
) -> Callable[[Encoder, Origin, Path], list[Row]]:
    """What makes the rows of a model that was loaded from a folder, its data read.

    Raises:
        UserError: data is missing or cannot be read, or an evaluator of the user's own cannot be made.
    """
    match config.suite:
        case "transfer":
            tasks = transfer_tasks(config, data_root, cache)
            return lambda encoder, origin, folder: [score_transfer(encoder, tasks, config, origin)]
        case "supervised":
            graded = relatedness.load_relatedness(senteval.find(config, data_root, cache))
            return lambda encoder, origin, folder: [score_relatedness(encoder, graded, config, origin)]
        case "geometry":
            task = load_stsb(senteval.find(config, data_root, cache), config.split or "dev")
            return lambda encoder, origin, folder: [score_geometry(encoder, task, config, origin)]
        case "mteb" if config.tasks is not None:
            named = find_tasks(config.tasks)
            return lambda encoder, origin, folder: [score_mteb(encoder, named, saved_prompts(folder), config, origin)]
        case "retrieval" | "beir_nano":
            found = load_nano(config) if config.suite == "beir_nano" else [load_retrieval(config)]
            return lambda encoder, origin, folder: [
                score_retrieval(encoder, found, saved_prompts(folder), config, origin)
            ]
        case "pairs" if config.dev is None:
            tests = load_own_tests(config)
            return lambda encoder, origin, folder: [score_tests(encoder, tests, config, origin)]
    evaluators = make_evaluators(config.extra)
    suite = load_suite(config, data_root, cache)
    return lambda encoder, origin, folder: score_rows(encoder, suite, config, origin, evaluators)


def transfer_tasks(config: EvaluationConfig, data_root: str | None, cache: Path) -> tuple[TransferTask, ...]:
    """The transfer tasks that a config names.

    Raises:
        UserError: their data is missing or cannot be read.
    """
    return transfer.load_transfer(Path(config.path or data_root or senteval.from_hub(config, cache)))


def announce_override(folder: Path, pooler: Pooler | None) -> None:
    """Warn where the pooler that is named is not the one that was saved with a model."""
    try:
        saved = saved_pooler(folder)
    except UserError:
        saved = None  # an unknown pooler is no obstacle where another is named
    if saved is not None and pooler is not None and pooler != saved:
        log.warning("pooler %s instead of %s, which was saved with %s", pooler, saved, folder)
