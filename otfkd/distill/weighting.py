"""How the teacher's term is weighted and tempered at a step: pure functions of the config and of step numbers."""

import math
from dataclasses import dataclass
from typing import Literal

from otfkd.config.sections import ObjectiveConfig


@dataclass(frozen=True)
class Weighting:
    """What applies at one step: the weight of the teacher's term and the temperatures of both sides."""

    kd_weight: float
    temperature_student: float
    temperature_teacher: float


def weighting(config: ObjectiveConfig, step: int, max_steps: int, *, first: int | None, latest: int) -> Weighting:
    """The weighting of the micro-batches of optimizer step `step` + 1.

    Args:
        config: start values, final ones and the ramp.
        step: optimizer steps done.
        max_steps: of the run.
        first: optimizer steps done when the slot was first filled; 0 for an initial teacher, None while it is empty.
        latest: when its teacher last changed.
    """
    weight = config.kd_weight
    if config.kd_ramp_steps is not None:
        began = first if config.kd_ramp == "first" else latest
        weight *= ramp(0 if began is None else step - began, config.kd_ramp_steps, config.kd_ramp_shape)
    done = step / max(1, max_steps - 1)
    return Weighting(
        weight,
        _moved(config.temperature_student, config.temperature_student_final, done),
        _moved(config.temperature_teacher, config.temperature_teacher_final, done),
    )


def moving(config: ObjectiveConfig) -> list[str]:
    """Which of a weighting's values are not the same at every step."""
    by = {
        "kd_weight": config.kd_ramp,
        "temperature_student": config.temperature_student_final,
        "temperature_teacher": config.temperature_teacher_final,
    }
    return [name for name, how in by.items() if how is not None]


def ramp(since: int, steps: int, shape: Literal["linear", "sigmoid"]) -> float:
    """A factor that reaches 1 after `steps` steps.

    Args:
        since: steps since it began.
        steps: its length T.
        shape: `linear`, t/T, or `sigmoid`, exp(-5(1 - t/T)^2) (Tarvainen & Valpola 2017, Mean Teacher), which
            begins at 0.0067.
    """
    share = min(1.0, since / steps)
    return share if shape == "linear" else math.exp(-5 * (1 - share) ** 2)


def _moved(start: float, final: float | None, done: float) -> float:
    return start if final is None else start + (final - start) * done
