"""Everything a run can be refused for, found out before it trains: its files, its schedule, its folder.

What finds it imports no torch, so that a mistake is answered, and a finished run found, at once.
"""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.base.hashing import derived_seed
from otfkd.config.identity import config_hash, resolve_precision
from otfkd.config.parts import fingerprints, with_sha256
from otfkd.config.schema import Config
from otfkd.data.corpus import Corpus
from otfkd.data.labelled import LEARNS_FROM, Examples, load_examples
from otfkd.data.sources import find_corpus
from otfkd.data.sts import Suite, load_suite
from otfkd.distill.schedule import Plan, make_plan
from otfkd.models.found import find_model, fingerprint_model
from otfkd.runs.folder import RunFolder, is_kept_aside, run_of
from otfkd.runs.rows import FineTuned
from otfkd.training.machine import check_logger, check_writable

if TYPE_CHECKING:
    import torch

    from otfkd.distill.mlm import MaskedLanguage
    from otfkd.models.encoder import Encoder


@dataclass(frozen=True)
class Run:
    """A run whose inputs have all been found, read and checked.

    Attributes:
        config: the run's config.
        plan: what is due when.
        model: the base encoder's folder.
        teachers: the folders of the initial teacher's members, none where the slot starts empty.
        data: the training text, or labelled examples.
        size: how many sentences or examples it has.
        suite: the dev and test tasks.
        fingerprints: content hashes of the above, and of the sources of the user's own parts.
    """

    config: Config
    plan: Plan
    model: Path
    teachers: tuple[Path, ...]
    data: Corpus | Examples
    size: int
    suite: Suite
    fingerprints: dict[str, str]

    @cached_property
    def hash(self) -> str:
        named = {**self.fingerprints, "model": _lineages([self.model], self.config.seed)}
        if self.teachers:
            named = {**named, "teacher": _lineages(self.teachers, self.config.seed)}
        return config_hash(self.config, named)

    @cached_property
    def fine_tuned(self) -> FineTuned | None:
        """What a fine-tuning learns from, for its rows; None for other runs."""
        objective = self.config.objective.supervised
        if objective is None or not isinstance(self.data, Examples):
            return None
        return FineTuned(
            objective=objective,
            data=self.data.name,
            examples=self.size,
            data_sha256=self.data.sha256,
            model=self.config.model.path,
            model_sha256=self.fingerprints["model"],
            trained_on=self.data.seen(self.suite.test),
        )

    @property
    def passes(self) -> float:
        """How often each sentence or example is read."""
        return self.config.total_batches * self.config.data.batch_size / self.size

    @property
    def own_parts(self) -> dict[str, str]:
        """The user's own parts with the sha256 of their sources."""
        return with_sha256(self.config.parts, self.fingerprints)

    @property
    def folder(self) -> RunFolder:
        """The run's own folder: the same command finds it again."""
        return RunFolder(Path(self.config.paths.runs) / self.config.name / self.hash / f"s{self.config.seed}")

    @property
    def cache(self) -> Path:
        return Path(self.config.paths.cache)

    @property
    def device(self) -> "torch.device":
        """Where models compute outside of Lightning's loop."""
        import torch

        gpu = torch.cuda.is_available() and self.config.trainer.accelerator != "cpu"
        return torch.device("cuda" if gpu else "cpu")

    @property
    def base_folder(self) -> Path:
        """Where the student's weights come from at step 0."""
        if self.config.student.init == "teacher":
            return self.teachers[0]
        return self.model

    def load_models(self) -> "Models":
        student = self.load_student()
        return Models(student, self.load_teachers(), self.load_mlm(student))

    def load_student(self) -> "Encoder":
        import torch

        from otfkd.models.registry import load_encoder

        model = self.config.model
        torch.manual_seed(derived_seed(self.config.seed, "head"))  # the pooler cls_head may start untrained
        dims = self.config.objective.dims or ()
        student = load_encoder(self.base_folder, model.pooler, model.layers, train=True, rates=model.rates, dims=dims)
        return self._checked(student)

    def load_mlm(self, student: "Encoder") -> "MaskedLanguage | None":
        objective = self.config.objective
        if not objective.predicts_tokens:
            return None
        from otfkd.distill.mlm import load_masked_language

        return load_masked_language(self.base_folder, student, objective.mlm_probability)

    def load_teachers(self) -> "list[Encoder]":
        from otfkd.models.registry import load_encoder

        teacher = self.config.teacher
        return [
            self._checked(load_encoder(folder, teacher.pooler, teacher.layers, section="teacher"))
            for folder in self.teachers
        ]

    def check_inputs(self) -> None:
        """A teacher that is an earlier run is known by its config; it may have been trained anew since.

        Raises:
            UserError: the folder's run was begun with other inputs.
        """
        before = self.folder.read_provenance()
        if before is not None and before.fingerprints != self.fingerprints:
            changed = [key for key, value in self.fingerprints.items() if before.fingerprints.get(key) != value]
            raise UserError(
                f"{self.folder} was begun with another {' and '.join(changed)} than there is now: "
                "start anew with fresh=true"
            )

    def _checked(self, encoder: "Encoder") -> "Encoder":
        length = self.config.data.max_length
        if length > encoder.positions:
            raise UserError(
                f"data.max_length={length} is more than the {encoder.positions} tokens that "
                f"{encoder.backbone.name_or_path} reads: lower it"
            )
        return encoder


@dataclass
class Models:
    """What a run loads.

    Attributes:
        student: it trains.
        teachers: members of the initial teacher, until they are handed over.
        mlm: the head of SimCSE's auxiliary loss, where the objective has one.
    """

    student: "Encoder"
    teachers: "list[Encoder]"
    mlm: "MaskedLanguage | None"

    def hand_over_teachers(self) -> "list[Encoder]":
        """Give the teachers away: where their embeddings are precomputed nobody keeps them, as large as they are."""
        teachers, self.teachers = self.teachers, []
        return teachers


def prepare(config: Config) -> Run:
    """Find and check all a run needs.

    Raises:
        UserError: the first thing that is wrong.
    """
    check_logger(config.logger)
    config = resolve_precision(config)
    plan = make_plan(config)
    parts = _check_parts(config)
    model = find_model(config.model.path, "model")
    teachers = _find_teachers(config) if config.teacher.source == "model" else ()
    cache = Path(config.paths.cache)
    suite = load_suite(config.evaluation, config.paths.data_root, cache)
    data, name, size = _find_data(config, suite, cache)
    if size < config.data.batch_size:
        raise UserError(
            f"{name}, fewer than data.batch_size={config.data.batch_size}: lower data.batch_size or give more text"
        )
    for key in ("runs", "cache"):
        check_writable(f"paths.{key}", Path(getattr(config.paths, key)))
    read = {"model": fingerprint_model(model), "corpus": data.sha256, "suite": suite.checksum, **parts}
    if teachers:
        read["teacher"] = "+".join(fingerprint_model(folder) for folder in teachers)
    return Run(config, plan, model, teachers, data, size, suite, read)


def _check_parts(config: Config) -> dict[str, str]:
    """The sha256 of the user's own parts, once they and further suites are checked, which needs torch."""
    if not config.parts and not config.evaluation.also:
        return {}
    from otfkd.training.parts import check_parts

    return check_parts(config)


@dataclass(frozen=True)
class Identity:
    """What a run is known by, apart from its seed.

    Attributes:
        hash: of its config and of all that it reads.
        corpus_sha256: of what it learns from.
        suite: what it is selected and tested on.
    """

    hash: str
    corpus_sha256: str
    suite: Suite


def identify(config: Config, earlier: Mapping[str, str]) -> Identity:
    """What `prepare` would call a run, although the earlier runs that it starts from need not be here.

    Args:
        config: the run's.
        earlier: the hashes of runs of its own seed, by the config group that they fill in: `teacher`, `model`.

    Raises:
        UserError: what it reads besides is missing.
    """
    config = resolve_precision(config)
    cache = Path(config.paths.cache)
    suite = load_suite(config.evaluation, config.paths.data_root, cache)
    data, _, _ = _find_data(config, suite, cache)
    named = {"corpus": data.sha256, "suite": suite.checksum, **fingerprints(config.parts)}
    named |= {group: _lineage(of, "the same") for group, of in earlier.items()}
    if "model" not in named:
        named["model"] = _lineages([find_model(config.model.path, "model")], config.seed)
    if "teacher" not in named and config.teacher.source == "model":
        named["teacher"] = _lineages(_find_teachers(config), config.seed)
    return Identity(config_hash(config, named), data.sha256, suite)


def _lineages(models: Sequence[Path], seed: int) -> str:
    """What models are called in the hash of a run: earlier runs by their configs, so that seeds share a folder."""
    runs = [run_of(folder) for folder in models]
    origins = [None if run is None else run.read_provenance() for run in runs]
    seeds = {origin.seed for origin in origins if origin is not None}
    own = seeds == {seed}  # each seed has models of its own, rather than all seeds the same several
    return "; ".join(
        _lineage(origin.config_hash, "the same" if own else origin.seed)
        if origin is not None
        else fingerprint_model(folder)
        for folder, origin in zip(models, origins, strict=True)
    )


def _lineage(of: str, seed: object) -> str:
    return f"run {of}, seed {seed}"


def _find_data(config: Config, suite: Suite, cache: Path) -> tuple[Corpus | Examples, str, int]:
    """What the objective learns from, what to call it in a message, and how many there are."""
    objective = config.objective.supervised
    if objective is None:
        corpus = find_corpus(config.data, cache)
        count = corpus.count()
        return corpus, f"{corpus.name} has {count} sentences", count
    if config.processes > 1:
        raise UserError("fine-tuning runs in one process: leave trainer.devices=1 and trainer.nodes=1")
    if config.teacher.source != "none":
        raise UserError(f"the objective {objective} learns from labels and has no teacher: leave teacher=none")
    examples = load_examples(config.data, LEARNS_FROM[objective], config.paths.data_root, cache).without(suite.dev)
    return examples, f"{examples.name} has {len(examples)} examples", len(examples)


def _find_teachers(config: Config) -> tuple[Path, ...]:
    """The folders of all members; a pattern such as runs/simcse/*/s* names one for each folder it matches."""
    teacher = config.teacher
    if not teacher.paths:
        raise UserError("teacher.path must be given with teacher=custom: add teacher.path=FOLDER_OR_HUB_ID")
    found: list[Path] = []
    for path in teacher.paths:
        matched = _matches(path)
        if not matched:
            raise UserError(f"teacher.path={path} matches no folder: correct the pattern")
        found += [find_model(one, "teacher") for one in matched]
    if teacher.weights is not None and len(teacher.weights) != len(found):
        raise UserError(
            f"teacher.weights has {len(teacher.weights)} numbers for {len(found)} teachers: give one for each"
        )
    return tuple(found)


def _matches(path: str) -> list[str]:
    pattern = Path(path).expanduser()
    if not glob.has_magic(path) or pattern.exists():
        return [path]
    found = sorted(glob.glob(str(pattern)))  # noqa: PTH207  Path.glob takes no absolute pattern
    return [folder for folder in found if not is_kept_aside(Path(folder))]
