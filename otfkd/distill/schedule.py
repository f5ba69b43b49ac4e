"""What happens at which optimizer step: a pure function of the config, printed before training and followed by it.

"Every N" means after N, 2N, ... optimizer steps, once each, whatever the accumulation.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from otfkd.config import Config
from otfkd.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The steps after which something is due; step N is after the N-th optimizer step.

    Attributes:
        max_steps: optimizer steps of the run.
        evaluate: dev scores.
        cache: snapshots of the student.
        rotate: a snapshot becomes the teacher.
        checkpoint: resumable checkpoints.
        skipped: a rotation that would fall on the last step, where nothing learns from it any more.
    """

    max_steps: int
    evaluate: frozenset[int]
    cache: frozenset[int]
    rotate: frozenset[int]
    checkpoint: frozenset[int]
    skipped: frozenset[int]


def multiples(every: int | None, max_steps: int) -> set[int]:
    """N, 2N, ... up to and with `max_steps`."""
    return set(range(every, max_steps + 1, every)) if every else set()


def make_plan(config: Config) -> Plan:
    """The plan of a run.

    Raises:
        UserError: a schedule that contradicts itself, or never does what it says.
    """
    last = config.trainer.max_steps
    _check_teacher(config)
    wanted = _wanted_rotations(config)
    rotate = {step for step in wanted if step < last}
    if wanted and not rotate:
        raise UserError(
            f"no rotation comes before the last step: the first is due after step {min(wanted)} of {last}; "
            f"{_lower(config)} or raise trainer.max_steps"
        )
    cache = (multiples(config.schedule.cache_every, last) - {last}) | rotate
    evaluate = multiples(config.evaluation.every, last) | {last}
    if config.schedule.source == "best":
        evaluate |= cache  # a choice by dev score needs one of every candidate
    checkpoint = multiples(config.trainer.checkpoint_every, last) | {last}
    due = [frozenset(steps) for steps in (evaluate, cache, rotate, checkpoint, wanted & {last})]
    return Plan(last, *due)


def _wanted_rotations(config: Config) -> set[int]:
    schedule, last = config.schedule, config.trainer.max_steps
    first = config.teacher.warmup_steps if config.teacher.source == "self" else None
    match schedule.trigger:
        case "never":
            due: Iterable[int] = ()
        case "every":
            if schedule.every is None:
                raise UserError("schedule.every must be given with schedule=every: add schedule.every=N")
            due = multiples(schedule.every, last) or {schedule.every}
        case "at":
            if not schedule.at:
                raise UserError("schedule.at must name steps with schedule=at: add schedule.at=[100,200]")
            beyond = [step for step in schedule.at if step > last]
            if beyond:
                raise UserError(f"schedule.at names step {beyond[0]} of {last}: drop it or raise trainer.max_steps")
            before = [step for step in schedule.at if first is not None and step < first]
            if before:
                raise UserError(
                    f"schedule.at names step {before[0]}, before teacher.warmup_steps={first}: "
                    "drop it or shorten the warm-up"
                )
            due = schedule.at
    steps = sorted({step for step in due if step > (first or 0)} | ({first} if first else set()))
    return set(steps[: schedule.max_rotations])


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
    if config.student.init == "teacher" and source != "model":
        raise UserError("student.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID")


def _lower(config: Config) -> str:
    return "lower teacher.warmup_steps" if config.teacher.source == "self" else "lower schedule.every or schedule.at"
