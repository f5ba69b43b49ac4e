"""What a card says of how a run's teacher changes: by the schedule, whatever came of it."""

from otfkd.config.sections import OnRotationConfig, Schedule, TeacherConfig
from otfkd.reporting.card.history import UNKNOWN


def exchange(
    schedule: Schedule | None, teacher: TeacherConfig | None, *, members: int, compared: str
) -> list[str]:  # fmt: skip
    """Who replaces the teacher, when and under what conditions, in sentences.

    Args:
        schedule: of the run; None where it is unknown.
        teacher: the initial one; None where it is unknown.
        members: how many the initial teacher has.
        compared: what of those who teach together is put together; empty where the loss itself is given all of it.
    """
    match schedule, teacher:
        case None, _:
            return [f"Whether the teacher changes is {UNKNOWN}."]
        case Schedule(trigger="never"), TeacherConfig(source="self", warmup_steps=steps):
            return [
                f"The teacher is a snapshot of the student itself, cached after step {steps}; it stays.",
                *_after_warmup(teacher),
                *_begun_anew(schedule.on_rotation),
            ]
        case Schedule(trigger="never"), _:
            stays = "The teachers are" if members > 1 else "The teacher is"
            return [f"{stays} the same throughout.", *([_together(schedule, compared)] if members > 1 else [])]
        case Schedule(trigger="follow"), _:
            return [_follows(schedule, teacher), *([_together(schedule, compared)] if members > 1 else [])]
        case _:
            several = members > 1 or schedule.retain != "replace"
            return [
                "On the fly: cached snapshots of the student itself rotate into the teacher's place (Zhu 2024).",
                _rule(schedule, teacher),
                *_conditions(schedule),
                *([_together(schedule, compared)] if several else []),
                *_after_warmup(teacher),
                *_begun_anew(schedule.on_rotation),
            ]


def restarts(schedule: Schedule | None, teacher: TeacherConfig) -> list[str]:
    """What begins anew and when, of a run whose rotations are good for that alone."""
    begun = [] if schedule is None else _begun_anew(schedule.on_rotation)
    match schedule, teacher.source:
        case (None, _) | (Schedule(trigger="never"), "model"):
            return []
        case Schedule(trigger="never"), _:
            return begun
        case _:
            return [_rule(schedule, teacher), *begun] if begun else []


def first_taught(schedule: Schedule | None, teacher: TeacherConfig) -> int:
    """The step after which a slot that begins empty is filled, or an average takes over."""
    start = schedule.start if schedule is not None and schedule.trigger == "follow" else 0
    return max(start, teacher.warmup_steps or 1)


def _follows(schedule: Schedule, teacher: TeacherConfig | None) -> str:
    step = UNKNOWN if teacher is None else first_taught(schedule, teacher)
    cached = (
        "nothing is cached"
        if schedule.cache_every is None
        else f"snapshots of the student, cached after every {schedule.cache_every} steps, do not teach"
    )
    return (
        f"From step {step} on the teacher is {_average(schedule)}, anew after every step (Mean Teacher, Tarvainen & "
        f"Valpola 2017); {cached}."
    )


def _rule(schedule: Schedule, teacher: TeacherConfig | None) -> str:
    return f"{_when(schedule, teacher)} {_source(schedule)} {_place(schedule, teacher)}."


def _average(schedule: Schedule) -> str:
    return f"the moving average of the student's weights (decay {schedule.ema.decay:g}, {schedule.ema.shape})"


def _when(schedule: Schedule, teacher: TeacherConfig | None) -> str:
    match schedule:
        case Schedule(trigger="every"):
            when = f"after every {schedule.every} optimizer steps"
        case Schedule(trigger="at"):
            steps = schedule.at or []
            when = f"after step{'s' * (len(steps) > 1)} {', '.join(map(str, steps))}"
        case Schedule(trigger="geometric"):
            when = f"after step {schedule.first}, then each time {schedule.ratio:g} times as late,"
        case Schedule(trigger="on_improvement"):
            when = "after each evaluation that is the run's best on dev so far"
        case Schedule(trigger="plateau"):
            when = (
                f"whenever dev has not improved on its best since the last rotation for {schedule.patience} "
                "evaluations in a row,"
            )
        case _:
            when = f"at {UNKNOWN} steps"
    if schedule.start:
        when += f" from step {schedule.start} on"
    if teacher is not None and teacher.source == "self":
        when = f"first after step {teacher.warmup_steps}, then {when}"
    return f"{when[0].upper()}{when[1:]}"


def _source(schedule: Schedule) -> str:
    match schedule.source:
        case "current":
            return "the student as it then is"
        case "best":
            return "the best snapshot by dev since the last rotation"
        case "ema":
            return _average(schedule)
        case "average":
            return f"the mean of the weights of the last {schedule.average_last} snapshots"


def _place(schedule: Schedule, teacher: TeacherConfig | None) -> str:
    match schedule.retain, teacher:
        case "replace", _:
            return "takes the teacher's place"
        case "pool", TeacherConfig(source="model"):
            return f"joins a pool of the last {schedule.pool_size}, which takes the initial teacher's place"
        case "pool", _:
            return f"joins a pool of the last {schedule.pool_size}"
        case _, TeacherConfig(source="self"):
            return f"joins the first snapshot, which stays, and a pool of the last {schedule.pool_size}"
        case _:
            return f"joins the initial teacher, which stays, and a pool of the last {schedule.pool_size}"


def _conditions(schedule: Schedule) -> list[str]:
    said = []
    if schedule.gate is not None:
        said.append(f"It does so only where its dev score is at most {schedule.gate:g} below the teacher's.")
    if schedule.max_rotations is not None:
        said.append(f"Snapshots come in at most {schedule.max_rotations} times in all.")
    return said


def _together(schedule: Schedule, compared: str) -> str:
    """How those who teach at the same time are put together."""
    match schedule.aggregate:
        case "mean" | "dev_weighted" if not compared:
            return "The loss is given the share of each of those who teach together."
        case "mean":
            return f"The {compared} are averaged."
        case "dev_weighted":
            return f"The {compared} are averaged, weighted by the softmax of their dev scores."
        case "sample":
            return "Of those who teach together one is drawn for each batch."


def _after_warmup(teacher: TeacherConfig | None) -> list[str]:
    if teacher is None or teacher.source != "self" or teacher.after_warmup != "reinit":
        return []
    return [
        "Once its first snapshot teaches, the student begins again from the base encoder, and with it the optimizer "
        "and the learning rate."
    ]


def _begun_anew(again: OnRotationConfig) -> list[str]:
    begun = [
        text
        for text, wanted in (
            ("the student begins again from where it started", again.student == "reinit"),
            ("the optimizer forgets", again.optimizer == "reset"),
            ("the learning rate begins a decay of its own", again.lr == "restart"),
        )
        if wanted
    ]
    if not begun:
        return []
    *others, last = begun
    together = f"{', '.join(others)} and " if others else ""
    return [f"After each rotation {together}{last}."]
