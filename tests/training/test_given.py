"""Nothing that is given is ignored: what is accepted is read and makes another run, what is refused changes nothing."""

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf
from pydantic import ValidationError

import otfkd.data.hub
import otfkd.data.mini
import otfkd.data.mteb
import otfkd.training.run
from otfkd.base.errors import UserError
from otfkd.config.composition import load_config, load_evaluate_config
from otfkd.config.given import unmet
from otfkd.config.groups import conf_dir, options
from otfkd.config.identity import config_hash
from otfkd.config.schema import Config, EvaluateConfig
from otfkd.config.terms import TermConfig
from otfkd.config.uses import SCORING, TRAINING, value_of
from otfkd.data.labelled import LEARNS_FROM, load_examples
from otfkd.data.sources import find_corpus
from otfkd.data.sts import load_suite
from otfkd.distill.schedule import make_plan
from otfkd.evaluation.scoring import make_scorer
from otfkd.training.train import train
from tests.support.config_keys import LEAVES
from tests.support.small_run import outcome, reads, small

__all__ = ["small"]

# Where and how to run, and what to call it: no part of what is computed.
MACHINE = {
    "name", "seed", "dry_run", "fresh", "resume", "paths.data_root", "paths.runs", "paths.cache", "logger.name",
    "logger.every", "logger.project", "logger.offline", "logger.tags", "trainer.on_nonfinite", "trainer.threads",
    "trainer.devices", "trainer.nodes", "trainer.fast_dev_run",
}  # fmt: skip
# In the hash by their contents.
PATHS = {
    "data.path",
    "evaluation.path",
    "evaluation.dev",
    "evaluation.test",
    "evaluation.queries",
    "evaluation.corpus",
    "evaluation.qrels",
    "evaluation.tasks",
    "model.path",
    "teacher.path",
}
# Every run reads these.
ALWAYS = {
    "name", "seed", "dry_run", "fresh", "resume", "model.path", "model.pooler", "model.layers", "model.head",
    "model.dropout", "model.attention_dropout",
    "data.source", "data.batch_size", "data.max_length", "student.init", "objective.supervised",
    "schedule.trigger", "optimizer.lr", "optimizer.decay", "optimizer.weight_decay", "optimizer.clip_norm",
    "precision.compute", "precision.tf32", "precision.deterministic", "trainer.max_steps", "trainer.accumulate",
    "trainer.accelerator", "trainer.checkpoint_every", "trainer.on_nonfinite", "trainer.chunk", "trainer.devices",
    "trainer.nodes", "trainer.threads", "trainer.callbacks", "trainer.patience", "trainer.overfit_batches",
    "trainer.fast_dev_run", "evaluation.suite", "evaluation.every",
    "evaluation.dev_compute", "evaluation.batch_size", "evaluation.max_length", "evaluation.extra", "evaluation.also",
    "logger.name", "logger.every", "paths.data_root", "paths.runs", "paths.cache",
}  # fmt: skip
# Refused by the schema itself, whoever gave it, or asked of the data.
ELSEWHERE = {"data.grade_scale"}

# Another value of each key that some runs have no use for.
OTHER: dict[str, Any] = {
    "teacher.source": "model", "teacher.path": "another", "teacher.weights": [0.2, 0.8], "teacher.pooler": "last",
    "teacher.layers": 3, "teacher.precomputed": True, "teacher.warmup_steps": 1, "teacher.after_warmup": "reinit",
    "objective.temperature": 0.3, "objective.mask_repeats": True, "objective.consistency_weight": 0.5,
    "objective.kd": "kl", "objective.kd_ramp": "first", "objective.kd_ramp_steps": 3,
    "objective.kd_ramp_shape": "sigmoid", "objective.lists": "two_views", "objective.temperature_student": 0.7,
    "objective.temperature_student_final": 0.9, "objective.temperature_teacher": 0.7,
    "objective.temperature_teacher_final": 0.9, "objective.margin": 0.9, "objective.group_p": 0.4,
    "objective.kd_weight": 0.7, "objective.dims": [4, 2], "objective.fn": "own:f",
    "objective.terms": [TermConfig(what="kl", weight=0.2), TermConfig(what="consistency")],
    "objective.group_size": 2, "objective.mlm_weight": 0.2, "objective.mlm_probability": 0.5, "schedule.every": 3,
    "schedule.at": [2, 3], "schedule.first": 3, "schedule.ratio": 1.5, "schedule.patience": 1, "schedule.start": 5,
    "schedule.max_rotations": 1, "schedule.gate": 0.0, "schedule.source": "average", "schedule.average_last": 1,
    "schedule.ema.decay": 0.5, "schedule.ema.shape": "cosine", "schedule.retain": "pool", "schedule.pool_size": 1,
    "schedule.aggregate": "sample", "schedule.on_rotation.student": "reinit",
    "schedule.on_rotation.optimizer": "reset", "schedule.on_rotation.lr": "restart", "schedule.cache_every": 1,
    "schedule.keep_snapshots": 1,
}  # fmt: skip

# To be read says nothing of these: runs look at them, load or compute with them where it makes no difference.
LOOKED_AT = {
    "teacher.source", "teacher.path", "teacher.weights", "teacher.pooler", "teacher.layers", "teacher.warmup_steps",
    "objective.kd_ramp_shape", "objective.temperature_student", "objective.temperature_teacher", "objective.mlm_weight",
    "objective.mlm_probability", "schedule.average_last", "schedule.ema.decay", "schedule.ema.shape",
    "schedule.pool_size", "schedule.on_rotation.lr", "schedule.cache_every",
}  # fmt: skip

SELF = {"teacher.source": "self", "teacher.warmup_steps": 2, "teacher.after_warmup": "continue"}
MODEL = {"teacher.source": "model", "teacher.path": "a"}
NEEDED: dict[str, dict[str, Any]] = {
    "every": {"schedule.every": 2}, "at": {"schedule.at": [2, 4]}, "geometric": {"schedule.first": 1},
    "plateau": {"evaluation.every": 1, "schedule.patience": 2},
}  # fmt: skip


def contexts() -> dict[str, tuple[tuple[str, ...], dict[str, Any]]]:
    """Choices of groups, and further values, for every choice of the groups that decide what a run reads."""
    found: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "simcse": ((), {}),
        "control": ((), {**MODEL, "teacher.path": ["a", "b"]}),
    }
    for choice in options("schedule"):
        needed = NEEDED.get(choice, {})
        found[f"schedule {choice}"] = (("objective/distill", f"schedule/{choice}"), {**SELF, **needed})
    idle: dict[str, Any] = {"schedule.cache_every": 2, "objective.mlm_weight": 0.1}
    for choice in sorted({*options("objective")} - {"custom"}):  # which needs a function
        distils = choice.startswith(("distill", "rankcse"))
        found[f"objective {choice}"] = ((f"objective/{choice}",), MODEL if distils else idle)
    for kind in ("kl", "js", "listmle", "rank_margin", "mse", "cosine"):
        found[f"kd {kind}"] = (("objective/distill",), {**MODEL, "objective.kd": kind})
    for source in ("average", "ema"):
        every = {**SELF, "schedule.every": 2, "schedule.source": source}
        found[f"source {source}"] = (("objective/distill", "schedule/every"), every)
    pool = {**MODEL, "schedule.every": 2, "schedule.retain": "pool"}
    found["pool"] = (("objective/distill", "schedule/every"), pool)
    found["several"] = (("objective/distill",), {**MODEL, "teacher.path": ["a", "b"], "objective.kd_ramp": "first",
                                                 "objective.kd_ramp_steps": 4})  # fmt: skip
    idle = {"objective.kd": "rank_margin", "objective.kd_ramp": "first", "objective.kd_ramp_steps": 4}
    found["unweighted"] = (("schedule/every",), {**SELF, **idle, "schedule.every": 2})
    idle = {"schedule.retain": "pool", "schedule.cache_every": 2}
    found["idle average"] = ((), {**idle, "schedule.source": "average"})
    found["idle ema"] = ((), {**idle, "schedule.source": "ema"})
    found["idle self"] = ((), SELF)
    found["starts"] = ((), {**MODEL, "student.init": "teacher"})
    several = [TermConfig(what="ce", temperature_teacher=0.2), TermConfig(what="rank_margin", weight=0.5)]
    found["terms"] = (("objective/distill",), {**MODEL, "objective.terms": several})
    found["terms of vectors"] = (("objective/distill",), {**MODEL, "objective.terms": [TermConfig(what="mse")]})
    alone = [TermConfig(what="mlm", weight=0.1)]
    found["terms of the student"] = ((), {"objective.terms": alone, "schedule.cache_every": 2})
    found["mlm"] = ((), {"objective.mlm_weight": 0.1})
    found["caches"] = ((), {"schedule.cache_every": 2})
    return found


CONTEXTS = contexts()


@pytest.fixture(scope="module")
def default() -> Config:
    """Six steps, each of which counts."""
    return load_config(["trainer.max_steps=6", "evaluation.every=2", "optimizer.lr=0.05", "model.head=false"])


def put(node: Any, key: str, value: Any) -> Any:
    """A config, or a section of one, with a value at a key, valid or not."""
    name, _, rest = key.partition(".")
    return node.model_copy(update={name: put(getattr(node, name), rest, value) if rest else value})


def another(config: Config, key: str) -> dict[str, Any]:
    """Another value of a key, with what it cannot be without."""
    match key:
        case "teacher.weights":
            return {key: OTHER[key][: max(1, len(config.teacher.paths))]}
        case "teacher.source":
            return {key: "none"} if config.teacher.source != "none" else MODEL
        case "objective.kd_ramp" | "objective.kd_ramp_steps":
            return {"objective.kd_ramp": "rotation", "objective.kd_ramp_steps": 3}
    return {key: OTHER[key]}


def with_values(config: Config, values: dict[str, Any]) -> Config:
    return Config.model_validate(
        functools.reduce(lambda one, key: put(one, key, values[key]), values, config).model_dump()
    )


@functools.cache
def scoring_config() -> EvaluateConfig:
    return load_evaluate_config([])


@functools.cache
def choice_of(name: str) -> dict[str, Any]:
    """The keys of a group's choice, as Hydra puts them together."""
    group, _, choice = name.partition("/")
    own: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{choice}.yaml"))
    before = [choice_of(f"{group}/{base}") for base in own.pop("defaults", [])]
    flat = {f"{group}.{key}": value for key, value in own.items() if not isinstance(value, dict)}
    parts = [(f"{group}.{at}", part) for at, part in own.items() if isinstance(part, dict)]
    nested = {f"{at}.{key}": value for at, part in parts for key, value in part.items()}
    return functools.reduce(lambda one, two: {**one, **two}, [*before, flat, nested], {})


def context(default: Config, name: str) -> Config:
    choices, values = CONTEXTS[name]
    return with_values(
        default, functools.reduce(lambda one, two: {**one, **two}, [*map(choice_of, choices), values], {})
    )


def test_a_choice_is_what_hydra_makes_of_it(default: Config) -> None:
    composed = load_config(["schedule=every", "objective=rankcse_listmle", "teacher=a"])
    values = {**choice_of("schedule/every"), **choice_of("objective/rankcse_listmle"), **MODEL}
    mine = with_values(default, values)
    assert (mine.schedule, mine.objective, mine.teacher) == (composed.schedule, composed.objective, composed.teacher)


def test_every_key_is_read_by_all_runs_or_says_when() -> None:
    assert set(LEAVES) == ALWAYS | TRAINING.keys() | ELSEWHERE
    assert not ALWAYS & TRAINING.keys()
    assert OTHER.keys() == {key for key in TRAINING if not key.startswith(("data.", "evaluation.", "logger."))}
    assert TRAINING.keys() | SCORING.keys() <= {*LEAVES}


def makes_another_plan(changed: Config, config: Config) -> bool:
    try:
        return replace(make_plan(changed), schedule=config.schedule) != make_plan(config)
    except UserError:
        return True  # it says why there is none


class Before(NamedTuple):
    """A context's run, and which keys were read in it."""

    config: Config
    outcome: dict[str, Any]
    seen: set[str]


Runs = Callable[[Config], dict[str, Any]]


@pytest.fixture(scope="module")
def known() -> dict[str, Before]:
    return {}


@pytest.fixture
def run(small: None, tmp_path: Path) -> Runs:
    """What a config comes to, in a folder of its own."""
    numbers = itertools.count()

    def made(config: Config) -> dict[str, Any]:
        return outcome(config, make_plan(config), tmp_path / str(next(numbers)))

    return made


@pytest.fixture
def before(known: dict[str, Before], default: Config, small: None, tmp_path: Path) -> Callable[[str], Before]:
    """The run of a context, made once."""

    def made(name: str) -> Before:
        if name not in known:
            config = context(default, name)
            plan = make_plan(config)
            with reads() as seen:
                known[name] = Before(config, outcome(config, plan, tmp_path / "before"), seen)
        return known[name]

    return made


@pytest.mark.parametrize("name", CONTEXTS)
def test_what_is_accepted_is_read_and_what_is_refused_is_not(
    name: str, before: Callable[[str], Before], run: Runs
) -> None:
    """Of every key, with another value than it has; those that are refused are changed all at once."""
    config, usual, seen = before(name)

    def is_used(key: str, changed: Config) -> bool:
        if key in LOOKED_AT:
            return run(changed) != usual
        return key in seen or makes_another_plan(changed, config)

    refused = config
    for key in OTHER:
        values = another(config, key)
        try:
            changed = with_values(config, values)
        except ValidationError:
            continue  # the schema refuses it, by a sentence of its own
        if unmet(config, key) is not None:
            refused = functools.reduce(lambda one, at: put(one, at, values[at]), values, refused)
        elif changed != config:
            assert is_used(key, changed), f"{key} is accepted, and nobody reads it"
            assert key in PATHS or config_hash(changed, {}) != config_hash(config, {})
    assert refused != config
    assert run(refused) == usual


# Where each of the others makes another run; teacher.precomputed only says who computes.
HOMES = {
    "teacher.after_warmup": "schedule every", "objective.temperature": "simcse", "objective.mask_repeats": "simcse",
    "objective.consistency_weight": "simcse", "objective.kd": "several", "objective.kd_ramp": "objective distill",
    "objective.kd_ramp_steps": "several", "objective.lists": "several", "objective.kd_weight": "several",
    "objective.terms": "several", "objective.dims": "simcse", "objective.fn": "several",
    "objective.temperature_student_final": "several", "objective.temperature_teacher_final": "several",
    "objective.margin": "kd rank_margin", "objective.group_p": "several", "objective.group_size": "several",
    "schedule.every": "schedule every", "schedule.at": "schedule at", "schedule.first": "schedule geometric",
    "schedule.ratio": "schedule geometric", "schedule.patience": "schedule plateau",
    "schedule.start": "schedule every", "schedule.max_rotations": "schedule every", "schedule.gate": "schedule every",
    "schedule.source": "schedule every", "schedule.retain": "schedule every", "schedule.aggregate": "pool",
    "schedule.on_rotation.student": "schedule every", "schedule.on_rotation.optimizer": "schedule every",
    "schedule.keep_snapshots": "schedule every",
}  # fmt: skip


@pytest.mark.parametrize("key", HOMES)
def test_a_key_that_is_read_makes_another_run(key: str, before: Callable[[str], Before], run: Runs) -> None:
    config, usual, _ = before(HOMES[key])
    changed = with_values(config, another(config, key))
    assert unmet(config, key) is None and value_of(changed, key) != value_of(config, key)
    assert run(changed) != usual


def test_every_key_is_tried_where_it_counts() -> None:
    assert OTHER.keys() == HOMES.keys() | LOOKED_AT | {"teacher.precomputed"}


def test_every_run_reads_the_keys_that_need_nothing(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otfkd.training.run, "config_hash", lambda *_: "0123456789")  # it reads all there is
    with reads() as seen:
        train(configure("trainer.max_steps=1"))
    asked_late = {"resume", "evaluation.suite"}  # where something changed; the fixture has a suite of its own
    assert ALWAYS - seen == asked_late


class Asked(Exception):
    """The hub was asked for something."""


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> Any:
        raise Asked

    monkeypatch.setattr(otfkd.data.hub, "download", ask)
    monkeypatch.setattr(otfkd.data.mteb, "pairs", ask)
    for name in ("corpus", "pairs", "triplets"):
        monkeypatch.setattr(otfkd.data.mini, name, lambda *_: ())


SOURCES = [
    (None, "mini"), (None, "text"), (None, "custom"), (None, "hub"), ("cosent", "csv"), ("cosent", "mini"),
    ("cosent", "stsb"), ("cosent", "sick"), ("simcse", "csv"), ("simcse", "mini"), ("softmax", "csv"),
    ("softmax", "sick"),
]  # fmt: skip
PLACES = [(path, root) for path in (None, "/nowhere") for root in (None, "/root-of-data")]


@pytest.mark.parametrize(("path", "root"), PLACES)
@pytest.mark.parametrize(("supervised", "source"), SOURCES)
def test_data_is_looked_for_where_the_keys_say(
    supervised: str | None,
    source: str,
    path: str | None,
    root: str | None,
    default: Config,
    no_hub: None,
    tmp_path: Path,
) -> None:
    given = {"source": source, "path": path, "repo": "org/name", "file": "file"}
    values = {f"data.{key}": value for key, value in given.items()}
    config = with_values(default, {"objective.supervised": supervised, "paths.data_root": root, **values})
    with reads() as seen, contextlib.suppress(UserError, Asked):
        if supervised is None:
            find_corpus(config.data, tmp_path)
        else:
            load_examples(config.data, LEARNS_FROM[supervised], root, tmp_path)
    for key in ("data.path", "data.repo", "data.file"):
        assert (unmet(config, key) is None) == (key in seen), key


def test_all_sources_of_data_are_tried() -> None:
    assert {source for _, source in SOURCES} == {
        choice_of(f"data/{choice}")["data.source"] for choice in options("data")
    }


@pytest.mark.parametrize(("path", "root"), PLACES)
@pytest.mark.parametrize("suite", ["mini", "sts", "mteb", "pairs", "retrieval", "geometry", "supervised", "transfer"])
def test_suites_are_looked_for_where_the_keys_say(
    suite: str, path: str | None, root: str | None, default: Config, no_hub: None, tmp_path: Path
) -> None:
    scoring = scoring_config()
    for config in (default, scoring) if suite in ("mini", "sts", "mteb", "pairs") else (scoring,):
        values = {"suite": suite, "path": path, "repo": "org/name", "file": "file", "dev": "/nowhere", "queries": "/no"}
        for key, value in values.items():
            config = put(config, f"evaluation.{key}", value)
        config = put(config, "paths.data_root", root)
        with reads() as seen, contextlib.suppress(UserError, Asked):
            load_suite(config.evaluation, root, tmp_path) if config.uses is TRAINING else make_scorer(
                config.evaluation, root, tmp_path
            )
        for name in ("path", "repo", "file", "dev", "queries"):
            assert (unmet(config, f"evaluation.{name}") is None) == (f"evaluation.{name}" in seen), name


def test_how_a_suite_is_scored_is_read_where_it_is_scored(default: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    scoring = scoring_config()
    for suite in ("mini", "transfer", "geometry", "retrieval"):
        config = put(scoring, "evaluation.suite", suite)
        read = {key for key in ("evaluation.protocol", "evaluation.split") if unmet(config, key) is None}
        split = {"evaluation.split"}
        assert read == {"transfer": {"evaluation.protocol"}, "geometry": split, "retrieval": split}.get(suite, set())
        assert unmet(put(default, "evaluation.suite", suite), "evaluation.protocol") is not None


@pytest.mark.parametrize("name", ["none", "csv", "tensorboard", "wandb", "mlflow", ["csv", "wandb"], ["csv", "mlflow"]])
def test_what_is_said_to_wandb_is_for_wandb(name: str | list[str], default: Config) -> None:
    config = put(default, "logger.name", name)
    names = {name} if isinstance(name, str) else {*name}
    for key in ("logger.project", "logger.offline", "logger.tags"):
        readers = {"wandb", "mlflow"} if key == "logger.project" else {"wandb"}
        assert (unmet(config, key) is None) == bool(names & readers)
