"""What happens at which optimizer step: a pure function of the config, printed before training and followed by it.

"Every N" means after N, 2N, ... optimizer steps, once each, whatever the accumulation.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from otfkd.base.errors import UserError
from otfkd.config.schema import Config
from otfkd.config.sections import Schedule


@dataclass(frozen=True)
class Plan:
    """The steps after which something is due; step N is after the N-th optimizer step.

    Attributes:
        schedule: what the plan was made of.
        max_steps: optimizer steps of the run.
        evaluate: dev scores.
        cache: snapshots of the student.
        rotate: a snapshot becomes a teacher, or, where dev scores decide, may become one.
        checkpoint: resumable checkpoints.
        skipped: a rotation that would fall on the last step, where nothing learns from it any more.
        fills: the rotation that fills an empty slot, which nothing can refuse.
        anew: the rotation after which student, optimizer and learning rate begin again, whatever later ones do.
        follows: from this step on the teacher is the student's moving average after every step.
        patience: so many dev scores in a row without a new best end the run; those of a warm-up do not count.
    """

    schedule: Schedule
    max_steps: int
    evaluate: frozenset[int]
    cache: frozenset[int]
    rotate: frozenset[int]
    checkpoint: frozenset[int]
    skipped: frozenset[int]
    fills: int | None = None
    anew: int | None = None
    follows: int | None = None
    patience: int | None = None

    def decay(self, step: int, installed: int, *, restarts: bool) -> tuple[int, int]:
        """Between which steps the learning rate of the step after `step` decays.

        Args:
            step: optimizer steps done.
            installed: the step the latest teacher was installed after.
            restarts: whether each teacher's time has a decay of its own, as long as that teacher is sure to stay.
        """
        if self.anew is not None and step < self.anew:
            return 0, self.anew
        if not restarts:
            return self.anew or 0, self.max_steps
        if self.schedule.waits_for_dev:
            return installed, self.max_steps
        return installed, min((step for step in self.rotate if step > installed), default=self.max_steps)


def multiples(every: int | None, max_steps: int) -> set[int]:
    """N, 2N, ... up to and with `max_steps`."""
    return set(range(every, max_steps + 1, every)) if every else set()


def make_plan(config: Config) -> Plan:
    """The plan of a run.

    Raises:
        UserError: a schedule that never does what it says in so many steps.
    """
    return plan_schedule(
        config.schedule,
        config.trainer.max_steps,
        evaluate_every=config.evaluation.every,
        checkpoint_every=config.trainer.checkpoint_every,
        fills=config.teacher.warmup_steps if config.teacher.source == "self" else None,
        anew=config.distils and config.teacher.after_warmup == "reinit",
        patience=config.trainer.patience,
    )


def plan_schedule(
    schedule: Schedule,
    max_steps: int,
    *,
    evaluate_every: int | None = None,
    checkpoint_every: int | None = None,
    fills: int | None = None,
    anew: bool = False,
    patience: int | None = None,
) -> Plan:
    """The plan of a schedule.

    Args:
        schedule: when and what rotates.
        max_steps: optimizer steps of the run.
        evaluate_every: optimizer steps between dev scores; there is always one after the last step.
        checkpoint_every: optimizer steps between checkpoints; there is always one after the last step.
        fills: the step whose snapshot fills a slot that starts empty.
        anew: the student begins again then.
        patience: so many dev scores in a row without a new best end the run.

    Raises:
        UserError: a schedule that never does what it says in so many steps.

    Example::

        >>> import otfkd
        >>> plan = otfkd.plan_schedule(otfkd.Schedule(trigger="every", every=25), max_steps=100, evaluate_every=50)
        >>> sorted(plan.rotate), sorted(plan.evaluate), sorted(plan.skipped)
        ([25, 50, 75], [50, 100], [100])
    """
    evaluate = multiples(evaluate_every, max_steps) | {max_steps}
    cache = multiples(schedule.cache_every, max_steps) - {max_steps}
    if schedule.source == "best":
        evaluate |= cache  # a choice by dev score needs one of every candidate
    due = _limited(schedule, _due(schedule, max_steps, evaluate - {max_steps}, fills), fills)
    rotate = {step for step in due if step < max_steps}
    if due and not rotate:
        raise UserError(
            f"no rotation comes before the last step: the first is due after step {min(due)} of {max_steps}; "
            f"lower {'teacher.warmup_steps' if fills else _interval(schedule)} or raise trainer.max_steps"
        )
    if _caches_rotations(schedule):
        cache |= rotate
    if _scores_rotations(schedule):
        evaluate |= rotate
    if patience is not None:
        _check_patience(patience, evaluate, max_steps, fills or 0)
    return Plan(
        schedule,
        max_steps,
        evaluate=frozenset(evaluate),
        cache=frozenset(cache),
        rotate=frozenset(rotate),
        checkpoint=frozenset(multiples(checkpoint_every, max_steps) | {max_steps}),
        skipped=frozenset(due & {max_steps}),
        fills=fills,
        anew=fills if anew and fills in rotate else None,
        follows=_follows(schedule, max_steps, fills),
        patience=patience,
    )


def _check_patience(patience: int, evaluate: set[int], last: int, warm: int) -> None:
    """Refuse patience that no run can lose: the first dev score that counts is a new best."""
    counted = len([step for step in evaluate if warm < step < last])
    if counted <= patience:
        raise UserError(
            f"trainer.patience={patience} ends no run of which {counted} dev scores count before the last step, {last}"
            f"{f', and after the warm-up of {warm}' if warm else ''}: lower evaluation.every or trainer.patience"
        )


def _due(schedule: Schedule, last: int, evaluated: set[int], fills: int | None) -> set[int]:
    """The steps at which the trigger fires, once it may; `evaluated` are those with a dev score."""
    earliest = max(schedule.start, (fills or 0) + 1)
    due = {step for step in _named(schedule, last, evaluated, fills) if step >= earliest}
    if not due:
        _check_idle(schedule, last, fills)
    return due


def _named(schedule: Schedule, last: int, evaluated: set[int], fills: int | None) -> Iterable[int]:
    """The steps the trigger names, before any limit is put on them."""
    match schedule.trigger:
        case "never" | "follow":
            return ()
        case "every":
            assert schedule.every is not None
            return multiples(schedule.every, last) or {schedule.every}
        case "at":
            assert schedule.at is not None
            _check_named(schedule, schedule.at, last, fills)
            return schedule.at
        case "geometric":
            assert schedule.first is not None and schedule.ratio is not None
            return {schedule.first, *_geometric(schedule.first, schedule.ratio, last)}
        case "on_improvement" | "plateau":
            return evaluated


def _geometric(first: int, ratio: float, last: int) -> Iterator[int]:
    step = float(first)
    while step <= last:
        yield round(step)
        step = max(step * ratio, step + 1)


def _check_named(schedule: Schedule, steps: list[int], last: int, fills: int | None) -> None:
    beyond = [step for step in steps if step > last]
    if beyond:
        raise UserError(f"schedule.at names step {beyond[0]} of {last}: drop it or raise trainer.max_steps")
    earliest, key = max((fills or 0, "teacher.warmup_steps"), (schedule.start, "schedule.start"))
    before = [step for step in steps if step < earliest]
    if before:
        raise UserError(f"schedule.at names step {before[0]}, before {key}={earliest}: drop it or lower {key}")


def _check_idle(schedule: Schedule, last: int, fills: int | None) -> None:
    """Refuse a trigger that names no step; without dev scores the one that fills the slot may be all there is."""
    start = max(schedule.start, fills or 0)
    if schedule.asks_dev:
        raise UserError(
            f"schedule={schedule.trigger} asks dev scores, and none comes between step {start} "
            f"and the last, {last}: give a smaller evaluation.every, start earlier or raise trainer.max_steps"
        )
    if schedule.trigger not in ("never", "follow") and schedule.start > (fills or 0):
        raise UserError(
            f"no rotation comes between schedule.start={schedule.start} and the last step, {last}: "
            "lower schedule.start or raise trainer.max_steps"
        )


def _limited(schedule: Schedule, due: set[int], fills: int | None) -> set[int]:
    """The steps that are due, with the one that fills the slot, and no more than there may be."""
    if fills and schedule.trigger != "follow":
        due = due | {fills}
    if schedule.max_rotations and not schedule.waits_for_dev:
        return set(sorted(due)[: schedule.max_rotations])
    return due


def _caches_rotations(schedule: Schedule) -> bool:
    """Whether a snapshot is written where a rotation is due: elsewhere only one that does rotate is worth its file."""
    return schedule.source == "best" or not (schedule.waits_for_dev or schedule.source == "ema")


def _scores_rotations(schedule: Schedule) -> bool:
    """Whether a rotation asks the dev score of its step."""
    return schedule.source == "best" or schedule.gate is not None or schedule.aggregate == "dev_weighted"


def _follows(schedule: Schedule, last: int, fills: int | None) -> int | None:
    """The step from which on the teacher follows the student, where it does."""
    if schedule.trigger != "follow":
        return None
    follows = max(schedule.start, fills or 1)
    if follows >= last:
        raise UserError(
            f"the teacher would follow the student from step {follows} of {last}: "
            "lower teacher.warmup_steps and schedule.start, or raise trainer.max_steps"
        )
    return follows


def _interval(schedule: Schedule) -> str:
    """The key that says when the first rotation is due."""
    return {"at": "schedule.at", "geometric": "schedule.first"}.get(schedule.trigger, "schedule.every")
