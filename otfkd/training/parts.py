"""The user's own parts of a run: checked while it is planned, and made in each of its processes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import lightning as L

from otfkd.base.errors import UserError
from otfkd.config.parts import fingerprints
from otfkd.config.schema import Config
from otfkd.distill.own_loss import ListLoss, check_own_loss, own_loss
from otfkd.distill.own_objective import WholeLoss, check_own_objective, own_objective
from otfkd.evaluation.also import check_also
from otfkd.evaluation.extra import Evaluator, check_evaluator, make_evaluators
from otfkd.training.callbacks import check_callback, make_callbacks

_CHECKS: dict[str, Callable[[str], None]] = {
    "objective.kd": check_own_loss, "objective.terms": partial(check_own_loss, key="objective.terms"),
    "trainer.callbacks": check_callback, "evaluation.extra": check_evaluator
}  # fmt: skip
_LOSSES = ("objective.kd", "objective.terms")


@dataclass(frozen=True)
class Parts:
    """What a run has of the user's own, its text aside.

    Attributes:
        objective: the whole loss.
        losses: of two lists of similarities, by their import paths.
        callbacks: which take part in training.
        evaluators: which score beside the suite.
    """

    objective: WholeLoss | None = None
    losses: Mapping[str, ListLoss] = field(default_factory=dict)
    callbacks: Sequence[L.Callback] = ()
    evaluators: Sequence[Evaluator] = ()


def check_parts(config: Config) -> dict[str, str]:
    """Check each part of a run that can be checked before there is a model, and the suites that it is reported on.

    Returns:
        The sha256 of their sources, by the keys that name them.

    Raises:
        UserError: one cannot be imported, or is not what its key needs.
    """
    if config.objective.fn is not None:
        check_own_objective(config.objective.fn, config.teacher.source)
    for key, paths in config.parts.items():
        for path in paths:
            if key in _CHECKS:
                _CHECKS[key](path)
    check_also(config)
    return fingerprints(config.parts)


def make_parts(config: Config, known: dict[str, str]) -> Parts:
    """Make the parts of a run, in each of its processes.

    Args:
        config: of the run.
        known: the sha256 of their sources as the run was planned.

    Raises:
        UserError: one cannot be made, or its source is another by now or in this process.
    """
    named = config.parts
    whole = None if config.objective.fn is None else own_objective(config.objective.fn)
    losses = {path: own_loss(path, key) for key in _LOSSES for path in named.get(key, ())}
    parts = Parts(whole, losses, make_callbacks(config.trainer.callbacks), make_evaluators(config.evaluation.extra))
    other = [key for key, sha256 in fingerprints(named).items() if known.get(key) != sha256]
    if other:
        paths = ", ".join(named[other[0]])
        raise UserError(f"{other[0]}={paths} was changed since the run was planned: give the command again")
    return parts
