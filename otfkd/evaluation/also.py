"""Suites that a finished run is reported on besides its own, `evaluation.also=[NAME,...]`: none of them selects."""

from pathlib import Path

import torch

from otfkd.base.hashing import sha256_bytes
from otfkd.base.progress import waiting
from otfkd.config.composition import load_evaluate_config
from otfkd.config.schema import Config
from otfkd.config.sections import EvaluationConfig
from otfkd.evaluation.rows import Origin
from otfkd.evaluation.scoring import make_scorer
from otfkd.models.registry import load_encoder
from otfkd.runs.folder import RunFolder
from otfkd.runs.rows import Row, read_rows, write_rows

# What a suite may be told on the run's own command line, where it has no file of its own that says so.
_TOLD = {
    "pairs": ("test",), "retrieval": ("queries", "corpus", "qrels"), "mteb": ("tasks",), "beir_nano": ("tasks",)
}  # fmt: skip
_SENTEVAL = ("sts", "supervised", "transfer", "geometry")  # these are read from one folder


def also_suites(config: Config) -> dict[str, EvaluationConfig]:
    """The further suites of a run, by the names of their choices.

    Raises:
        UserError: there is no such choice, or it does not compose.
    """
    return {
        name: _told(load_evaluate_config([f"evaluation={name}"]).evaluation, name, config)
        for name in config.evaluation.also
    }


def check_also(config: Config) -> None:
    """Read the data of the further suites, so that what is missing is found before training.

    Raises:
        UserError: it is missing or cannot be read.
    """
    for suite in also_suites(config).values():
        make_scorer(suite, config.paths.data_root, Path(config.paths.cache))


def score_also(config: Config, folder: RunFolder, device: torch.device) -> list[Row]:
    """Score a finished run's model on the further suites, each once.

    Args:
        config: of the run.
        folder: of the run.
        device: to compute on.

    Raises:
        UserError: as `check_also`, or the model's embeddings have no score.
    """
    found: list[Row] = []
    for name, suite in also_suites(config).items():
        file = folder.also_file(name, sha256_bytes([suite.model_dump_json().encode()])[:8])
        if not file.is_file():
            score = make_scorer(suite, config.paths.data_root, Path(config.paths.cache))
            encoder = load_encoder(folder.model).to(device)
            with waiting(f"scoring on {name}"):
                rows = score(encoder, _origin(folder), folder.model)
            write_rows(file, [row for row in rows if row.split == "test"] or rows)
        found += read_rows(file)
    return found


def _told(suite: EvaluationConfig, name: str, config: Config) -> EvaluationConfig:
    own = config.evaluation
    keys = [*_TOLD.get(name, ()), *(["path"] if {suite.suite, own.suite} <= {*_SENTEVAL} else [])]
    return suite.model_copy(update={key: getattr(own, key) for key in keys if getattr(suite, key) is None})


def _origin(folder: RunFolder) -> Origin:
    """Where the scored model comes from, as the run's own rows say it."""
    row = next(row for row in folder.read_rows() if row.checkpoint == "selected")
    return Origin(
        row.name, "selected", row.seed, row.step, row.generation, row.config_hash, row.teacher_sha256,
        row.corpus_sha256, row.cost, row.fine_tuned, row.skipped, row.parts,
    )  # fmt: skip
