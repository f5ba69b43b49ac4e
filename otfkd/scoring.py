"""From a model and a suite to result rows, the same way for a run's model and for any other."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from otfkd.config import EvaluateConfig, EvaluationConfig
from otfkd.data.sts import Suite, from_hub, load_suite
from otfkd.data.transfer import TransferTask, checksum, load_transfer
from otfkd.errors import UserError
from otfkd.evaluation.sts import PROTOCOL, StsScore, average, evaluate
from otfkd.evaluation.transfer import PROTOCOLS, evaluate_transfer
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder, saved_pooler
from otfkd.provenance import environment, hash_weights
from otfkd.results import Cost, Row, append_row

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


def dev_score(encoder: Encoder, suite: Suite, config: EvaluationConfig) -> float:
    """The number that selects checkpoints: Spearman x 100 over all pairs of the suite's dev task."""
    scores = evaluate(encoder, (suite.dev,), batch_size=config.batch_size, max_length=config.max_length)
    return scores[suite.dev.name].all


def score_rows(encoder: Encoder, suite: Suite, config: EvaluationConfig, origin: Origin) -> list[Row]:
    """Score an encoder on a suite: its dev row and its test row."""
    tasks = (suite.dev, *suite.test)
    scores = evaluate(encoder, tasks, batch_size=config.batch_size, max_length=config.max_length)
    dev = {suite.dev.name: scores.pop(suite.dev.name)}

    def row(split: Literal["dev", "test"], split_scores: dict[str, StsScore]) -> Row:
        return Row(
            **asdict(origin),
            split=split,
            pooler=encoder.pooler,
            scores={task: score.as_dict() for task, score in split_scores.items()},
            average=average(split_scores),
            protocol=f"{PROTOCOL}, {config.max_length} tokens",
            suite=suite.name,
            suite_sha256=suite.checksum,
            weights_sha256=hash_weights(encoder),
            environment=environment(),
        )

    return [row("dev", dev), row("test", scores)]


def score_transfer(encoder: Encoder, tasks: Sequence[TransferTask], config: EvaluationConfig, origin: Origin) -> Row:
    """Score an encoder on transfer tasks: their test row."""
    protocol = config.protocol or "full"
    scores = evaluate_transfer(encoder, tasks, protocol, batch_size=config.batch_size, max_length=config.max_length)
    return Row(
        **asdict(origin),
        split="test",
        pooler=encoder.pooler,
        scores={task: score.as_dict() for task, score in scores.items()},
        average=fmean(round(score.accuracy, 2) for score in scores.values()),
        protocol=f"{PROTOCOLS[protocol].description}, {config.max_length} tokens",
        suite="transfer",
        suite_sha256=checksum(tasks),
        weights_sha256=hash_weights(encoder),
        environment=environment(),
    )


def score_model(config: EvaluateConfig) -> list[Row]:
    """Score any model on a suite.

    Raises:
        UserError: the model or the data cannot be used.
    """
    evaluation, root, cache = config.evaluation, config.paths.data_root, Path(config.paths.cache)
    transfer = evaluation.suite == "transfer"
    # The data comes first: a missing file is found before a model is loaded.
    tasks = load_transfer(Path(evaluation.path or root or from_hub(evaluation, cache))) if transfer else ()
    suite = None if transfer else load_suite(evaluation, root, cache)
    folder = find_model(config.model.path)
    _announce_override(folder, config)
    encoder, origin = load_encoder(folder, config.model.pooler, config.model.layers), Origin(config.model.path)
    if suite is None:
        rows = [score_transfer(encoder, tasks, evaluation, origin)]
    else:
        rows = score_rows(encoder, suite, evaluation, origin)
    if config.output is not None:
        for row in rows:
            append_row(Path(config.output), row)
    return rows


def _announce_override(folder: Path, config: EvaluateConfig) -> None:
    try:
        saved = saved_pooler(folder)
    except UserError:
        saved = None  # an unknown pooler is no obstacle where another is named
    if saved is not None and config.model.pooler is not None and config.model.pooler != saved:
        log.warning("pooler %s instead of %s, which was saved with %s", config.model.pooler, saved, folder)
