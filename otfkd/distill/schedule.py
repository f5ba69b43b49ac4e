"""What happens at which optimizer step: a pure function of the config, printed before training and followed by it.

"Every N" means after N, 2N, ... optimizer steps, once each, whatever the accumulation.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from otfkd.base.errors import UserError
from otfkd.config.schema import Config, Schedule


@dataclass(frozen=True)
class Plan:
    """The steps after which something is due; step N is after the N-th optimizer step.

    Attributes:
        schedule: what it follows.
        max_steps: optimizer steps of the run.
        evaluate: dev scores.
        cache: snapshots of the student.
        rotate: a snapshot becomes a teacher, or, where dev scores decide, may become one.
        checkpoint: resumable checkpoints.
        skipped: a rotation that would fall on the last step, where nothing learns from it any more.
        waits_for_dev: whether dev scores decide if a rotation takes place.
        fills: the rotation that fills an empty slot, which nothing can refuse.
        anew: the rotation after which student, optimizer and learning rate begin again, whatever later ones do.
        follows: from this step on the teacher is the student's moving average after every step.
    """

    schedule: Schedule
    max_steps: int
    evaluate: frozenset[int]
    cache: frozenset[int]
    rotate: frozenset[int]
    checkpoint: frozenset[int]
    skipped: frozenset[int]
    waits_for_dev: bool = False
    fills: int | None = None
    anew: int | None = None
    follows: int | None = None

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
        if self.waits_for_dev:
            return installed, self.max_steps
        return installed, min((step for step in self.rotate if step > installed), default=self.max_steps)


def multiples(every: int | None, max_steps: int) -> set[int]:
    """N, 2N, ... up to and with `max_steps`."""
    return set(range(every, max_steps + 1, every)) if every else set()


def make_plan(config: Config) -> Plan:
    """The plan of a run.

    Raises:
        UserError: a schedule that contradicts itself, or never does what it says.
    """
    _check_teacher(config)
    return plan_schedule(
        config.schedule,
        config.trainer.max_steps,
        evaluate_every=config.evaluation.every,
        checkpoint_every=config.trainer.checkpoint_every,
        fills=config.teacher.warmup_steps if config.teacher.source == "self" else None,
        anew=config.distils and config.teacher.after_warmup == "reinit",
    )


def plan_schedule(
    schedule: Schedule,
    max_steps: int,
    *,
    evaluate_every: int | None = None,
    checkpoint_every: int | None = None,
    fills: int | None = None,
    anew: bool = False,
) -> Plan:
    """The plan of a schedule.

    Args:
        schedule: when and what rotates.
        max_steps: optimizer steps of the run.
        evaluate_every: optimizer steps between dev scores; there is always one after the last step.
        checkpoint_every: optimizer steps between checkpoints; there is always one after the last step.
        fills: the step whose snapshot fills a slot that starts empty.
        anew: the student begins again then.

    Raises:
        UserError: a schedule that contradicts itself, or never does what it says.
    """
    _check_follow(schedule)
    evaluate = multiples(evaluate_every, max_steps) | {max_steps}
    cache = multiples(schedule.cache_every, max_steps) - {max_steps}
    if schedule.source == "best":
        evaluate |= cache  # a choice by dev score needs one of every candidate
    earliest = max(schedule.start, (fills or 0) + 1)
    due = {step for step in _due(schedule, max_steps, evaluate - {max_steps}, fills) if step >= earliest}
    if not due:
        _check_idle(schedule, max_steps, fills)
    if fills and schedule.trigger != "follow":
        due |= {fills}
    if schedule.max_rotations and not schedule.waits_for_dev:
        due = set(sorted(due)[: schedule.max_rotations])
    rotate = {step for step in due if step < max_steps}
    if due and not rotate:
        raise UserError(
            f"no rotation comes before the last step: the first is due after step {min(due)} of {max_steps}; "
            f"lower {'teacher.warmup_steps' if fills else _interval(schedule)} or raise trainer.max_steps"
        )
    if schedule.source == "best" or not (schedule.waits_for_dev or schedule.source == "ema"):
        cache |= rotate  # elsewhere only a snapshot that does rotate is worth its file
    if schedule.source == "best" or schedule.gate is not None or schedule.aggregate == "dev_weighted":
        evaluate |= rotate
    follows = max(schedule.start, fills or 1) if schedule.trigger == "follow" else None
    if follows is not None and follows >= max_steps:
        raise UserError(
            f"the teacher would follow the student from step {follows} of {max_steps}: "
            "lower teacher.warmup_steps and schedule.start, or raise trainer.max_steps"
        )
    return Plan(
        schedule,
        max_steps,
        evaluate=frozenset(evaluate),
        cache=frozenset(cache),
        rotate=frozenset(rotate),
        checkpoint=frozenset(multiples(checkpoint_every, max_steps) | {max_steps}),
        skipped=frozenset(due & {max_steps}),
        waits_for_dev=schedule.waits_for_dev,
        fills=fills,
        anew=fills if anew and fills in rotate else None,
        follows=follows,
    )


def _due(schedule: Schedule, last: int, evaluated: set[int], fills: int | None) -> Iterable[int]:
    """The steps the trigger names, before any limit is put on them."""
    match schedule.trigger:
        case "never" | "follow":
            return ()
        case "every":
            if schedule.every is None:
                raise UserError("schedule.every must be given with schedule=every: add schedule.every=N")
            return multiples(schedule.every, last) or {schedule.every}
        case "at":
            return _named_steps(schedule, last, fills)
        case "geometric":
            if schedule.first is None or schedule.ratio is None:
                raise UserError(
                    "schedule.first and schedule.ratio must be given with schedule=geometric: "
                    "add schedule.first=N schedule.ratio=R"
                )
            return {schedule.first, *_geometric(schedule.first, schedule.ratio, last)}
        case "on_improvement" | "plateau":
            if schedule.trigger == "plateau" and schedule.patience is None:
                raise UserError("schedule.patience must be given with schedule=plateau: add schedule.patience=N")
            return evaluated


def _geometric(first: int, ratio: float, last: int) -> Iterator[int]:
    step = float(first)
    while step <= last:
        yield round(step)
        step = max(step * ratio, step + 1)


def _named_steps(schedule: Schedule, last: int, fills: int | None) -> Iterable[int]:
    if not schedule.at:
        raise UserError("schedule.at must name steps with schedule=at: add schedule.at=[100,200]")
    beyond = [step for step in schedule.at if step > last]
    if beyond:
        raise UserError(f"schedule.at names step {beyond[0]} of {last}: drop it or raise trainer.max_steps")
    earliest, key = max((fills or 0, "teacher.warmup_steps"), (schedule.start, "schedule.start"))
    before = [step for step in schedule.at if step < earliest]
    if before:
        raise UserError(f"schedule.at names step {before[0]}, before {key}={earliest}: drop it or lower {key}")
    return schedule.at


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


def _check_follow(schedule: Schedule) -> None:
    if schedule.trigger != "follow":
        return
    if schedule.source != "ema" or schedule.retain != "replace" or schedule.gate is not None:
        raise UserError(
            "schedule=follow keeps one teacher, the student's moving average: "
            "leave schedule.source=ema, schedule.retain=replace and schedule.gate=null, or choose another schedule"
        )
    again = schedule.on_rotation
    if schedule.max_rotations is not None or (again.student, again.optimizer, again.lr) != (
        "continue",
        "keep",
        "continue",
    ):
        raise UserError(
            "schedule=follow has no rotations, whose number schedule.max_rotations limits and after which "
            "schedule.on_rotation lets something begin again: leave both, or choose another schedule"
        )


def _check_teacher(config: Config) -> None:
    source, rotates = config.teacher.source, config.schedule.trigger != "never"
    if source == "none" and config.distils:
        raise UserError(
            "objective.kd_weight is above 0 but teacher=none: "
            "give teacher=FOLDER_OR_HUB_ID or teacher=self, or objective=simcse"
        )
    if source == "none" and rotates:
        raise UserError("schedule rotates teachers but teacher=none: give teacher=self or teacher=FOLDER_OR_HUB_ID")
    if source == "self" and config.teacher.warmup_steps is None:
        raise UserError("teacher=self needs to know when SimCSE ends and teaching begins: add teacher.warmup_steps=N")
    if source == "self" and config.teacher.after_warmup == "reinit" and config.schedule.trigger == "follow":
        raise UserError(
            "teacher.after_warmup=reinit begins the student again when a snapshot first teaches, and schedule=follow "
            "has no snapshots: set teacher.after_warmup=continue"
        )
    if config.schedule.aggregate == "sample" and config.objective.compares_embeddings:
        raise UserError(
            f"objective.kd={config.objective.kd} maps the student to each teacher's space, but "
            "schedule.aggregate=sample asks one teacher at a time: take schedule.aggregate=mean"
        )
    if config.teacher.precomputed:
        _check_precomputed(config)
    if config.student.init == "teacher" and source != "model":
        raise UserError("student.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID")
    if config.student.init == "teacher" and len(config.teacher.paths) > 1:
        raise UserError("student.init=teacher needs one teacher, not several: give teacher=FOLDER_OR_HUB_ID")


def _check_precomputed(config: Config) -> None:
    schedule = config.schedule
    if config.teacher.source != "model" or schedule.trigger != "never":
        raise UserError(
            "teacher.precomputed=true embeds the corpus once, which is for a teacher that stays: "
            "give teacher=FOLDER_OR_HUB_ID and schedule=never, or leave teacher.precomputed=false"
        )
    if schedule.gate is not None or schedule.aggregate == "dev_weighted":
        raise UserError(
            "teacher.precomputed=true keeps a teacher's embeddings of the corpus alone, and schedule.gate and "
            "schedule.aggregate=dev_weighted score it on dev: leave both, or leave teacher.precomputed=false"
        )


def _interval(schedule: Schedule) -> str:
    """The key that says when the first rotation is due."""
    return {"at": "schedule.at", "geometric": "schedule.first"}.get(schedule.trigger, "schedule.every")
