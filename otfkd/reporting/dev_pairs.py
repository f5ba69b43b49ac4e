"""What the dev pairs look like to the models of runs, and to the encoders that these started from."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from otfkd.base.errors import UserError
from otfkd.base.hashing import hash_weights
from otfkd.config.schema import Config
from otfkd.data.sts import Task, load_suite
from otfkd.evaluation.encode import encode
from otfkd.evaluation.geometry import geometry
from otfkd.evaluation.sts import similarities, spearman
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, fingerprint_model, load_encoder
from otfkd.reporting.methods import Method, TrainedRun
from otfkd.reporting.space import DevPairs

log = logging.getLogger("otfkd")


def read_dev(methods: Sequence[Method[TrainedRun]], *, every_seed: bool) -> list[DevPairs]:
    """Embed the dev pairs with each encoder that the runs started from, then with the models that dev chose.

    Args:
        methods: finished runs.
        every_seed: the models of all seeds, or only of each method's first.

    Raises:
        UserError: a run is not finished, or its config, data, encoder or model is not what it was.
    """
    for method in methods:
        for run in method.runs:
            if not run.folder.model.is_dir():
                raise UserError(f"{run.folder} is not finished and has no selected model yet: let the run go on")
    runs = [(method.label, run) for method in methods for run in (method.runs if every_seed else method.runs[:1])]
    configs = [run.folder.read_config() for _, run in runs]
    evaluation, paths = configs[0].evaluation, configs[0].paths
    suite = load_suite(evaluation, paths.data_root, Path(paths.cache))
    before: dict[str, DevPairs] = {}
    after = []
    for number, ((label, run), config) in enumerate(zip(runs, configs, strict=True), 1):
        if suite.checksum != run.provenance.fingerprints.get("suite"):
            raise UserError(f"the pairs that {run.folder} was selected on have changed: bring them back")
        log.info("[%d/%d] dev pairs of %s", number, len(runs), run.folder)
        model = _selected(run)
        name, base = _base(run, config)
        if name not in before:
            before[name] = _read(name, None, base, suite.dev, config)
        after.append(_read(label, run.seed, model, suite.dev, config))
    return [*before.values(), *after]


def _selected(run: TrainedRun) -> Encoder:
    encoder = load_encoder(find_model(str(run.folder.model)))
    scored = {row.weights_sha256 for row in run.folder.read_rows() if row.checkpoint == "selected"}
    if scored and hash_weights(encoder) not in scored:
        raise UserError(f"{run.folder.model} is not the model that was scored there: run it again")
    return encoder


def _base(run: TrainedRun, config: Config) -> tuple[str, Encoder]:
    """What the student was at step 0, and a name for it."""
    source = "teacher" if config.student.init == "teacher" else "model"
    path = config.teacher.paths[0] if source == "teacher" else config.model.path
    folder = find_model(path)
    if fingerprint_model(folder) != run.provenance.fingerprints.get(source):
        raise UserError(f"{folder}, which {run.folder} started from, has changed: bring it back")
    encoder = load_encoder(folder, config.model.pooler, config.model.layers)
    layers = "" if config.model.layers is None else f", {config.model.layers} layers"
    return f"{Path(path).name}, {encoder.pooler}{layers}", encoder


def _read(label: str, seed: int | None, encoder: Encoder, dev: Task, config: Config) -> DevPairs:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sentences = list(dict.fromkeys(dev.sentences()))
    embedded = encode(
        encoder.to(device), sentences,
        batch_size=config.evaluation.batch_size, max_length=config.evaluation.max_length,
    )  # fmt: skip
    vectors = dict(zip(sentences, embedded, strict=True))
    left, right, grades = zip(*(pair for subset in dev.subsets for pair in subset.pairs), strict=True)
    pairs = [torch.stack([vectors[text] for text in side]) for side in (left, right)]
    cosines, gold = similarities(*pairs), np.array(grades)
    lying = geometry(dev, vectors)
    return DevPairs(label, seed, lying.alignment, lying.uniformity, cosines, gold, spearman(cosines, gold))
