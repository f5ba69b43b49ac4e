"""What a card says of who taught: the initial teacher, each of its members, and the generations after it."""

from collections.abc import Sequence

from otfkd.config.sections import TeacherConfig
from otfkd.reporting.card.history import UNKNOWN, History
from otfkd.reporting.card.names import model_names
from otfkd.reporting.card.schedule import first_taught
from otfkd.runs.rotations import Follows, Refused, Rotated


def teachers(history: History) -> str:
    """Who taught first, who came after, and which generation had taught the exported model."""
    parts = [_initial(history), _generations(history), _selected(history)]
    return "\n\n".join(part for part in parts if part)


def _initial(history: History) -> str:
    match history.config.teacher:
        case None:
            return f"{UNKNOWN.capitalize()}: the run keeps no teacher that this version of otfkd can read."
        case TeacherConfig(source="none"):
            return "Initial teacher: none."
        case TeacherConfig(source="self") as teacher:
            return f"Initial teacher: {_begins_empty(history, teacher)}."
        case teacher:
            return _given(history, teacher)


def _begins_empty(history: History, teacher: TeacherConfig) -> str:
    schedule = history.config.schedule
    alone = f"none for {first_taught(schedule, teacher)} steps"
    if schedule is None:
        return f"{alone}; what was planned then is {UNKNOWN}"
    if schedule.trigger == "follow":
        return f"{alone}; then the student's moving average"
    return f"{alone}; then the student's first snapshot"


def _given(history: History, teacher: TeacherConfig) -> str:
    sha256s = history.teacher_sha256s
    names = model_names(teacher.paths, sha256s, history.plan)
    told = [
        f"{name}, sha256 of its files `{sha256}`"
        for name, sha256 in zip(names, sha256s or [UNKNOWN] * len(names), strict=True)
    ]
    lines = [_together(told, teacher.weights), _learnt(history.distils)]
    if history.distils and teacher.precomputed:
        lines.append("The teacher's embeddings of all sentences were computed once, before the first step.")
    return "\n\n".join(line for line in lines if line)


def _together(told: Sequence[str], weights: Sequence[float] | None) -> str:
    if len(told) == 1:
        return f"Initial teacher: {told[0]}."
    if weights is None or len(weights) != len(told):
        shares = "of equal weight" if weights is None else f"of weights {', '.join(f'{one:g}' for one in weights)}"
        return "\n".join(
            [f"Initial teacher: {len(told)} models together, {shares}.", "", *(f"- {one}" for one in told)]
        )
    members = [f"- {one}, weight {weight:g}" for one, weight in zip(told, weights, strict=True)]
    return "\n".join([f"Initial teacher: {len(told)} models together.", "", *members])


def _learnt(distils: bool | None) -> str:
    match distils:
        case None:
            return f"Whether anything was learnt from it is {UNKNOWN}."
        case False:
            return "Nothing was learnt from it."
        case True:
            return ""


def _generations(history: History) -> str:
    records = history.rotations
    if records is None:
        return f"Which snapshots taught is {UNKNOWN}." if _may_rotate(history) else ""
    rotated = [record for record in records if isinstance(record, Rotated)]
    follows = [record for record in records if isinstance(record, Follows)]
    refused = [record for record in records if isinstance(record, Refused)]
    parts = [_table(rotated), *map(_following, follows), _refusals(refused)]
    return "\n\n".join(part for part in parts if part) or ("No rotation took place." if _may_rotate(history) else "")


def _may_rotate(history: History) -> bool:
    """Whether a snapshot or an average may have taught: always, where the config does not say."""
    match history.config.teacher, history.config.schedule:
        case (TeacherConfig(source="none"), _):
            return False
        case TeacherConfig(source="model"), schedule if schedule is not None:
            return schedule.trigger != "never"
        case _:
            return True


def _table(rotated: Sequence[Rotated]) -> str:
    if not rotated:
        return ""
    head = [
        "| generation | teacher after step | snapshot of step | sha256 | dev | learning rate |",
        "|---|---|---|---|---|---|",
    ]
    several = max(record.members for record in rotated)
    beside = [] if several == 1 else ["", f"Up to {several} taught together: earlier ones beside the newest."]
    return "\n".join([*head, *map(_generation, rotated), *beside])


def _generation(record: Rotated) -> str:
    cells = (
        _known(record.generation), record.step, _known(record.snapshot_step), f"`{_known(record.sha256)}`",
        "not scored" if record.dev is None else f"{record.dev:.2f}", _known(record.lr),
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _known(value: float | str | None) -> float | str:
    return UNKNOWN if value is None else value


def _following(record: Follows) -> str:
    return (
        f"Generation {record.generation}, from step {record.step} on, is the student's moving average: another after "
        "every step, so it has no file and no sha256."
    )


def _refusals(refused: Sequence[Refused]) -> str:
    if not refused:
        return ""
    first = refused[0]
    count = "1 rotation that was due" if len(refused) == 1 else f"{len(refused)} rotations that were due"
    return f"{count} did not take place, the first after step {first.step}: {first.reason}."


def _selected(history: History) -> str:
    row = history.selected
    if row is None:
        return ""
    student = f"The model is the student after step {row.step}"
    if not history.distils:
        return f"{student}."
    if not history.taught:
        return f"{student}, before its first teacher came."
    average = any(isinstance(record, Follows) for record in history.rotations or ())
    if average and row.generation:
        return f"{student}; its teacher then was generation {row.generation}, the moving average."
    begin = "none" if history.config.teacher is None or history.config.teacher.source == "self" else "the initial one"
    return f"{student}; its teacher then was generation {row.generation} (0 is {begin})."
