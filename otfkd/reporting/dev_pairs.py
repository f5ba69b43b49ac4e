"""What the dev pairs look like to the models of runs, and to the encoders that these started from."""

import logging
from collections.abc import Sequence
from pathlib import Path

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.data.sts import Task
from otfkd.evaluation.geometry import geometry
from otfkd.evaluation.sts import spearman
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, fingerprint_model, load_encoder
from otfkd.reporting.graded_pairs import cosines, embed_pairs, grades, read_suite, scored_model
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
    _refuse_unfinished(methods)
    runs = [(method.label, run) for method in methods for run in (method.runs if every_seed else method.runs[:1])]
    configs = [run.folder.read_config() for _, run in runs]
    suite = read_suite(configs[0])
    before: dict[str, DevPairs] = {}
    after = []
    for number, ((label, run), config) in enumerate(zip(runs, configs, strict=True), 1):
        if suite.checksum != run.provenance.fingerprints.get("suite"):
            raise UserError(f"the pairs that {run.folder} was selected on have changed: bring them back")
        log.info("[%d/%d] dev pairs of %s", number, len(runs), run.folder)
        model = scored_model(run.folder, _selected(run))
        name, base = _base(run, config)
        if name not in before:
            before[name] = _read(name, None, base, suite.dev, config)
        after.append(_read(label, run.seed, model, suite.dev, config))
    return [*before.values(), *after]


def _refuse_unfinished(methods: Sequence[Method[TrainedRun]]) -> None:
    for run in (run for method in methods for run in method.runs):
        if not run.folder.model.is_dir():
            raise UserError(f"{run.folder} is not finished and has no selected model yet: let the run go on")


def _selected(run: TrainedRun) -> set[str]:
    """The weights that its scores are of, none before it is finished."""
    return {row.weights_sha256 for row in run.folder.read_rows() if row.checkpoint == "selected"}


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
    vectors = embed_pairs(encoder, [dev], config)
    lying, seen, gold = geometry(dev, vectors), cosines(dev, vectors), grades(dev)
    return DevPairs(label, seed, lying.alignment, lying.uniformity, seen, gold, spearman(seen, gold))
