"""Scoring any model on the suite that a config names."""

import logging
from collections.abc import Callable
from pathlib import Path

from otfkd.base.errors import DivergenceError, UserError
from otfkd.config.parts import fingerprints, with_sha256
from otfkd.config.schema import EvaluateConfig
from otfkd.config.sections import EvaluationConfig, Pooler
from otfkd.data import relatedness, senteval, transfer
from otfkd.data.retrieval import load_nano, load_retrieval
from otfkd.data.sts import load_own_tests, load_stsb, load_suite
from otfkd.data.transfer import TransferTask
from otfkd.evaluation.extra import make_evaluators
from otfkd.evaluation.mteb_tasks import find_tasks
from otfkd.evaluation.rows import (
    Origin,
    score_geometry,
    score_mteb,
    score_relatedness,
    score_retrieval,
    score_rows,
    score_tests,
    score_transfer,
)
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder, saved_pooler
from otfkd.models.saved import saved_prompts
from otfkd.runs.rows import Row, append_row

log = logging.getLogger("otfkd")


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
