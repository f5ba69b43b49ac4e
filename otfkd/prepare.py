"""Everything a run can be refused for, found out before it trains: its files, its schedule, its folder, its plan."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from otfkd.config import Config
from otfkd.data.corpus import Corpus, find_corpus
from otfkd.data.sts import Suite, load_suite
from otfkd.distill.mlm import MaskedLanguage, load_masked_language
from otfkd.distill.schedule import Plan, make_plan
from otfkd.errors import UserError
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, fingerprint_model, load_encoder
from otfkd.provenance import config_hash, derived_seed, resolve_precision

RESULTS = "results.jsonl"
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Prepared:
    """A run whose inputs have all been found, read and checked.

    Attributes:
        config: the run's config.
        plan: what is due when.
        model: the base encoder's folder.
        teacher: the initial teacher's folder, None where the slot starts empty.
        corpus: the training text.
        sentences: how many it has.
        suite: the dev and test tasks.
        fingerprints: content hashes of the above.
    """

    config: Config
    plan: Plan
    model: Path
    teacher: Path | None
    corpus: Corpus
    sentences: int
    suite: Suite
    fingerprints: dict[str, str]

    @cached_property
    def hash(self) -> str:
        named = self.fingerprints if self.teacher is None else {**self.fingerprints, "teacher": self._lineage}
        return config_hash(self.config, named)

    @property
    def _lineage(self) -> str:
        """What the teacher is called in the hash: of an earlier run its config, so that seeds share a folder."""
        assert self.teacher is not None
        origin = read_provenance(self.teacher.parent)
        if origin is None:
            return self.fingerprints["teacher"]
        seed = "the same" if origin["seed"] == self.config.seed else origin["seed"]
        return f"run {origin['config_hash']}, seed {seed}"

    @property
    def folder(self) -> Path:
        """The run's own folder: the same command finds it again."""
        return Path(self.config.paths.runs) / self.config.name / self.hash / f"s{self.config.seed}"

    @property
    def cache(self) -> Path:
        return Path(self.config.paths.cache)

    @property
    def finished(self) -> bool:
        return (self.folder / RESULTS).is_file()

    @property
    def base_folder(self) -> Path:
        """Where the student's weights come from at step 0."""
        if self.config.student.init == "teacher":
            assert self.teacher is not None
            return self.teacher
        return self.model

    def load_student(self) -> Encoder:
        model = self.config.model
        torch.manual_seed(derived_seed(self.config.seed, "head"))  # the pooler cls_head may start untrained
        return load_encoder(self.base_folder, model.pooler, model.layers, train=True)

    def load_mlm(self, student: Encoder) -> MaskedLanguage | None:
        objective = self.config.objective
        if not objective.mlm_weight:
            return None
        return load_masked_language(self.base_folder, student, objective.mlm_probability)

    def load_teacher(self) -> Encoder | None:
        if self.teacher is None:
            return None
        return load_encoder(self.teacher, self.config.teacher.pooler, self.config.teacher.layers)


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """What a run's folder says of its origin; None for a folder that is no run's."""
    path = folder / PROVENANCE
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def prepare(config: Config) -> Prepared:
    """Find and check all a run needs.

    Raises:
        UserError: the first thing that is wrong.
    """
    config = resolve_precision(config)
    plan = make_plan(config)
    model = find_model(config.model.path)
    teacher = None
    if config.teacher.source == "model":
        if config.teacher.path is None:
            raise UserError("teacher.path must be given with teacher=custom: add teacher.path=FOLDER_OR_HUB_ID")
        teacher = find_model(config.teacher.path)
    cache = Path(config.paths.cache)
    corpus = find_corpus(config.data, cache)
    sentences = corpus.count()
    if sentences < config.data.batch_size:
        raise UserError(
            f"{corpus.path} has {sentences} sentences, fewer than data.batch_size={config.data.batch_size}: "
            "lower data.batch_size or give more text"
        )
    suite = load_suite(config.evaluation, config.paths.data_root, cache)
    _check_writable(Path(config.paths.runs))
    fingerprints = {"model": fingerprint_model(model), "corpus": corpus.sha256, "suite": suite.checksum}
    if teacher is not None:
        fingerprints["teacher"] = fingerprint_model(teacher)
    return Prepared(config, plan, model, teacher, corpus, sentences, suite, fingerprints)


def _check_writable(runs: Path) -> None:
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"paths.runs={runs} cannot be made ({error.strerror}): name a folder you may write to"
        ) from None


def describe(run: Prepared, student: Encoder, teacher: Encoder | None) -> str:
    """The plan in words: data, steps, what is due when, and what it will take."""
    config, plan = run.config, run.plan
    passes = config.total_batches * config.data.batch_size / run.sentences
    rotations = _steps(plan.rotate)
    if plan.skipped:
        rotations += f" (the one due at the last step, {plan.max_steps}, is skipped: nothing would learn from it)"
    state = "finished" if run.finished else "interrupted" if (run.folder / "checkpoints/last.ckpt").is_file() else "new"
    rows = [
        ("run", f"{run.folder} ({state})"),
        ("student", f"{run.base_folder}, pooler {student.pooler}, {_count(student):,} parameters"),
        ("teacher", _teacher_line(run, teacher)),
        ("corpus", f"{run.corpus.path}, {run.sentences:,} sentences, read {passes:.2f} times"),
        (
            "steps",
            f"{plan.max_steps} optimizer steps of {config.trainer.accumulate} x {config.data.batch_size} sentences",
        ),
        ("negatives", f"{config.negatives_per_anchor} per anchor (accumulation adds none)"),
        ("evaluate", f"{run.suite.dev.name} after {_steps(plan.evaluate)}"),
        ("cache", f"after {_steps(plan.cache)}"),
        ("rotate", f"after {rotations}" if plan.rotate else "never"),
        ("checkpoint", f"after {_steps(plan.checkpoint)}"),
        ("test", ", ".join(task.name for task in run.suite.test)),
        ("memory", f"about {_bytes(_memory(config, student, teacher))}"),
        ("disk", f"about {_bytes(_disk(config, student))}"),
    ]
    return "\n".join(f"{name:<11}{value}" for name, value in rows)


def _teacher_line(run: Prepared, teacher: Encoder | None) -> str:
    if teacher is not None:
        return f"{run.teacher}, pooler {teacher.pooler}, {_count(teacher):,} parameters"
    if run.config.teacher.source == "self":
        return f"none for {run.config.teacher.warmup_steps} steps of plain SimCSE, then the student's own snapshots"
    return "none"


def _steps(steps: Iterable[int]) -> str:
    ordered = sorted(steps)
    if not ordered:
        return "no step"
    if len(ordered) > 12:
        return f"{', '.join(map(str, ordered[:6]))}, ..., {ordered[-1]} ({len(ordered)} times)"
    return ", ".join(map(str, ordered))


def _bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _count(encoder: Encoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


def _memory(config: Config, student: Encoder, teacher: Encoder | None) -> float:
    """Bytes: weights, gradients and two moments in float32, the teacher, and activations.

    Activations by Korthikanti et al. 2022, eq. 2, s*b*h*(34 + 5*a*s/h) bytes a layer at 16 bits, for both views.
    """
    shape = student.backbone.config
    s, b, h = config.data.max_length, 2 * config.data.batch_size, shape.hidden_size
    layer = s * b * h * (34 + 5 * shape.num_attention_heads * s / h)
    width = 2 if config.precision.compute == "float32" else 1
    held = _count(teacher) if teacher is not None else _count(student) if config.teacher.source == "self" else 0
    return 16.0 * _count(student) + 4.0 * held + width * float(layer * shape.num_hidden_layers)


def _disk(config: Config, student: Encoder) -> float:
    """Bytes: snapshots, the resumable checkpoint (weights and two moments), the best and the exported model."""
    snapshots = config.schedule.keep + 1 if config.teacher.source != "none" else 0
    return 4.0 * _count(student) * (snapshots + 3 + 1 + 1)
