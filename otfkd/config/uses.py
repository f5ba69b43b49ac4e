"""When a key is read: the keys that some other choices have no use for, and what to take where one is wanted.

Keys that are not named here are read by every run.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from typing import Any


@dataclass(frozen=True)
class Needs:
    """What a key needs to be read.

    Attributes:
        blame: the other key whose value decides; a sentence shows it. Empty for a key of another command.
        holds: whether a config reads the key.
        take: what to give for it to be read, or the other command.
    """

    blame: str
    holds: Callable[[Any], bool]
    take: str

    def told(self, config: Any) -> tuple[str, str]:
        """The key to blame and what to take: several terms stand in the place of the keys of one."""
        if self.blame in ("objective.kd", "objective.kd_weight") and config.objective.terms is not None:
            return "objective.terms", "a term that reads it"
        return self.blame, self.take


def value_of(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), config)


def _rotates(config: Any) -> bool:
    """Whether a snapshot ever becomes a teacher; the one that fills an empty slot is one too."""
    trigger = config.schedule.trigger
    return trigger != "follow" and bool(trigger != "never" or config.teacher.source == "self")


def _asked(config: Any) -> bool:
    """Whether there is use for a teacher: one that is not learnt from may still be rotated, as a control."""
    return bool(config.distils or _rotates(config) or config.schedule.trigger == "follow")


def _caches(config: Any) -> bool:
    return bool(config.schedule.cache_every is not None)


def _several(config: Any) -> bool:
    """Whether there may be several initial teachers; how many a pattern matches is found out later."""
    paths = config.teacher.paths
    return len(paths) > 1 or any(map(has_magic, paths))


def _among(key: str, *values: Any, take: str) -> Needs:
    """Another key has one of these values."""
    return Needs(key, lambda config: value_of(config, key) in values, take)


def _but(key: str, *values: Any, take: str) -> Needs:
    """Another key has none of these values."""
    return Needs(key, lambda config: value_of(config, key) not in values, take)


def _trigger(*kinds: str) -> Needs:
    return _among("schedule.trigger", *kinds, take=f"schedule={_listed(kinds)}")


def _listed(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


_PLAIN = _among("objective.supervised", None, take="objective=simcse or distill")
_SINGLE = _among("objective.terms", None, take="objective.terms=null")
_DISTILS = Needs("objective.kd_weight", lambda config: config.distils, "objective=distill")
_PARTS = _among("objective.fn", None, take="objective.fn=null")  # what a whole loss of the user's own replaces
_ASKED = Needs("objective.kd_weight", _asked, "objective=distill")
_NAMED = Needs(  # where the student begins as the teacher, the teacher need not be asked
    "objective.kd_weight", lambda config: _asked(config) or config.student.init == "teacher", "objective=distill"
)
_MODEL = _among("teacher.source", "model", take="teacher=FOLDER_OR_HUB_ID")
_SELF = _among("teacher.source", "self", take="teacher=self")
_ROTATES = Needs("schedule.trigger", _rotates, "schedule=every")
_CHANGES = Needs(
    "schedule.trigger", lambda config: _rotates(config) or config.schedule.trigger == "follow", "schedule=every"
)
_DATED = _trigger("every", "at", "geometric", "on_improvement", "plateau")
_MOVES = _among("schedule.source", "ema", take="schedule.source=ema")
_WANDB = Needs("logger.name", lambda config: "wandb" in config.logger.names, "logger=wandb")
_PROJECT = Needs(
    "logger.name", lambda config: not {"wandb", "mlflow"}.isdisjoint(config.logger.names), "logger=wandb or mlflow"
)


def _kd(key: str, *kinds: str) -> tuple[Needs, ...]:
    """What a key of the teacher's terms needs, which only some kinds of them may read."""

    def is_lent(config: Any) -> bool:
        return bool(config.objective.terms is None or config.objective.is_lent(key))

    def is_read(config: Any) -> bool:
        return bool(config.objective.terms is not None or config.objective.kd in kinds)

    counts = Needs("objective.kd_weight", lambda config: config.objective.distils and is_lent(config), _DISTILS.take)
    of_kinds = [Needs("objective.kd", is_read, f"objective.kd={_listed(kinds)}")] if kinds else []
    return (_PARTS, counts, *of_kinds)


def _from_hub(section: str, choice: str, *always: str) -> Needs:
    """What is asked of the hub where there is no folder of real data; some have theirs from there anyway."""
    return Needs(
        "paths.data_root",
        lambda config: config.paths.data_root is None or value_of(config, choice) in always,
        f"{section}.path=FOLDER",
    )


_DATA_REPO = (
    _but("data.source", "mini", "text", "custom", take="data=wiki1m"),
    Needs("data.path", lambda config: config.data.source == "hub" or config.data.path is None, "data.path=null"),
    _from_hub("data", "data.source", "hub", "csv"),
)
_SPLIT = Needs("data.source", lambda config: config.data.source == "hub" and config.data.file is None, "data=dataset")
_SUITE = _but("evaluation.suite", "mini", "pairs", "retrieval", take="evaluation=sts")
_TASKS = _among("evaluation.suite", "mteb", "beir_nano", take="evaluation=mteb or beir_nano")
_RETRIEVAL = _among("evaluation.suite", "retrieval", take="evaluation=retrieval")
_PAIRS = _among("evaluation.suite", "pairs", take="evaluation=pairs")
_PAIRS_TOO = Needs(
    "evaluation.suite",
    lambda config: config.evaluation.suite == "pairs" or "pairs" in config.evaluation.also,
    "evaluation=pairs or evaluation.also=[pairs]",
)
_RETRIEVAL_TOO = Needs(
    "evaluation.also", lambda config: "retrieval" in config.evaluation.also, "evaluation.also=[retrieval]"
)
_NO_FOLDER = _among("evaluation.path", None, take="evaluation.path=null")

# Keys of the other command.
_SCORED = Needs("", lambda config: False, "otfkd-eval")
_TRAINED = Needs("", lambda config: False, "otfkd-train")

_ANYWHERE: dict[str, tuple[Needs, ...]] = {
    "evaluation.path": (_SUITE,),
    "evaluation.repo": (_SUITE, _NO_FOLDER, _from_hub("evaluation", "evaluation.suite", "mteb", "beir_nano")),
    "evaluation.file": (
        _but("evaluation.suite", "mini", "mteb", "pairs", "retrieval", "beir_nano", take="evaluation=sts"),
        _NO_FOLDER,
        _from_hub("evaluation", "evaluation.suite"),
    ),
    "evaluation.dev": (_PAIRS,),
}

TRAINING: Mapping[str, tuple[Needs, ...]] = {
    **_ANYWHERE,
    "evaluation.tasks": (
        Needs(
            "evaluation.also",
            lambda config: bool({"mteb", "beir_nano"} & {*config.evaluation.also}),
            "evaluation.also=[mteb] or [beir_nano]",
        ),
    ),
    "evaluation.protocol": (_SCORED,),
    "evaluation.split": (_SCORED,),
    "evaluation.test": (_PAIRS_TOO,),
    "evaluation.queries": (_RETRIEVAL_TOO,),
    "evaluation.corpus": (_RETRIEVAL_TOO,),
    "evaluation.qrels": (_RETRIEVAL_TOO,),
    "evaluation.select": (_but("evaluation.extra", [], take="evaluation.extra=[package.module:Class]"),),
    "data.path": (_but("data.source", "mini", "hub", take="data=text or labelled"),),
    "data.column": (_PLAIN, _among("data.source", "text", "hub", take="data=text or dataset")),
    "data.unique": (_PLAIN,),
    "data.subset": (_SPLIT,),
    "data.split": (_SPLIT,),
    "data.repo": _DATA_REPO,
    "data.file": _DATA_REPO,
    "teacher.source": (_NAMED,),
    "teacher.path": (_MODEL, _NAMED),
    "teacher.weights": (Needs("teacher.path", _several, "teacher=[A,B]"), _ASKED),
    "teacher.pooler": (_MODEL, _ASKED),
    "teacher.layers": (_MODEL, _ASKED),
    "teacher.precomputed": (_DISTILS,),
    "teacher.warmup_steps": (_SELF,),
    "teacher.after_warmup": (_SELF, _DISTILS),
    "objective.temperature": (
        _PARTS,
        _but("objective.supervised", "cosine_regression", "softmax", take="objective=supervised_simcse or cosent"),
    ),
    "objective.mask_repeats": (
        _PARTS,
        _PLAIN,
    ),
    "objective.consistency_weight": (
        _PARTS,
        _PLAIN,
    ),
    "objective.kd": (_PARTS, _SINGLE, _DISTILS),
    "objective.kd_weight": (
        _PARTS,
        _SINGLE,
    ),
    "objective.kd_ramp": (_PARTS, _SINGLE, _DISTILS),
    "objective.kd_ramp_steps": (_PARTS, _SINGLE, _DISTILS),
    "objective.kd_ramp_shape": (
        _PARTS,
        _SINGLE,
        _DISTILS,
        _but("objective.kd_ramp", None, take="objective.kd_ramp=first objective.kd_ramp_steps=N"),
    ),
    "objective.lists": _kd("lists"),
    "objective.temperature_student": _kd("temperature_student", "ce", "kl", "js", "listmle"),
    "objective.temperature_student_final": _kd("temperature_student_final"),
    "objective.temperature_teacher": _kd("temperature_teacher", "ce", "kl", "js"),
    "objective.temperature_teacher_final": _kd("temperature_teacher_final"),
    "objective.margin": _kd("margin", "rank_margin"),
    "objective.group_p": _kd("group_p"),
    "objective.group_size": _kd("group_size"),
    "objective.mlm_weight": (
        _PARTS,
        _PLAIN,
    ),
    "objective.mlm_probability": (
        _PARTS,
        _PLAIN,
        Needs("objective.mlm_weight", lambda config: config.objective.predicts_tokens, "objective.mlm_weight=0.1"),
    ),
    "objective.terms": (
        _PARTS,
        _PLAIN,
    ),
    "objective.fn": (_PLAIN,),
    "objective.dims": (
        _PARTS,
        _PLAIN,
    ),
    "schedule.every": (_trigger("every"),),
    "schedule.at": (_trigger("at"),),
    "schedule.first": (_trigger("geometric"),),
    "schedule.ratio": (_trigger("geometric"),),
    "schedule.patience": (_trigger("plateau"),),
    "schedule.start": (_but("schedule.trigger", "never", take="schedule=every"),),
    "schedule.max_rotations": (_DATED,),
    "schedule.gate": (_ROTATES,),
    "schedule.source": (_CHANGES,),
    "schedule.average_last": (_ROTATES, _among("schedule.source", "average", take="schedule.source=average")),
    "schedule.ema.decay": (_CHANGES, _MOVES),
    "schedule.ema.shape": (_CHANGES, _MOVES),
    "schedule.retain": (_DATED,),
    "schedule.pool_size": (_DATED, _but("schedule.retain", "replace", take="schedule.retain=pool")),
    "schedule.aggregate": (
        Needs(
            "schedule.retain",
            lambda config: _several(config) or (config.schedule.retain != "replace" and _DATED.holds(config)),
            "schedule=every schedule.retain=pool, or several teachers",
        ),
    ),
    "schedule.on_rotation.student": (_ROTATES,),
    "schedule.on_rotation.optimizer": (_ROTATES,),
    "schedule.on_rotation.lr": (_ROTATES,),
    "schedule.cache_every": (_PLAIN,),
    "schedule.keep_snapshots": (
        _PLAIN,
        Needs("schedule.trigger", lambda config: _rotates(config) or _caches(config), "schedule=every"),
        Needs(
            "schedule.source",
            lambda config: config.schedule.source != "ema" or _caches(config),
            "schedule.cache_every=N, for a moving average is all that is cached without",
        ),
    ),
    "logger.project": (_PROJECT,),
    "logger.offline": (_WANDB,),
    "logger.tags": (_WANDB,),
}

SCORING: Mapping[str, tuple[Needs, ...]] = {
    **_ANYWHERE,
    "evaluation.tasks": (_TASKS,),
    "evaluation.protocol": (_among("evaluation.suite", "transfer", take="evaluation=transfer"),),
    "evaluation.split": (
        _among(
            "evaluation.suite", "geometry", "retrieval", "beir_nano", take="evaluation=geometry, retrieval or beir_nano"
        ),
    ),
    "evaluation.queries": (_RETRIEVAL,),
    "evaluation.corpus": (_RETRIEVAL,),
    "evaluation.qrels": (_RETRIEVAL,),
    "model.head": (_TRAINED,),
    "model.dropout": (_TRAINED,),
    "model.attention_dropout": (_TRAINED,),
    "evaluation.extra": (_among("evaluation.suite", "mini", "sts", "mteb", take="evaluation=sts"),),
    "evaluation.select": (_TRAINED,),
    "evaluation.also": (_TRAINED,),
    "evaluation.every": (_TRAINED,),
    "evaluation.dev_compute": (_TRAINED,),
}
