"""How a term is weighted and tempered at a step: pure functions of the config and of step numbers."""

import math
from dataclasses import dataclass
from typing import Literal

from otfkd.config.terms import Term, reads


@dataclass(frozen=True)
class Weighting:
    """What applies to a term at one step: its weight beside InfoNCE and the temperatures of both sides."""

    weight: float
    temperature_student: float
    temperature_teacher: float


def weighting(term: Term, step: int, max_steps: int, *, first: int | None, latest: int) -> Weighting:
    """The weighting of a term in the micro-batches of optimizer step `step` + 1.

    Args:
        term: start values, final ones and the ramps.
        step: optimizer steps done.
        max_steps: of the run.
        first: optimizer steps done when the slot was first filled; 0 for an initial teacher, None while it is empty.
        latest: when its teacher last changed.
    """
    weight = term.weight
    if term.ramp_steps is not None:
        began = {"run": 0, "first": first}.get(term.ramp or "", latest)
        weight *= ramp(0 if began is None else step - began, term.ramp_steps, term.ramp_shape)
    if term.fade_steps is not None:
        weight *= ramp(max_steps - 1 - step, term.fade_steps, term.ramp_shape)
    done = step / max(1, max_steps - 1)
    return Weighting(
        weight,
        _moved(term.temperature_student, term.temperature_student_final, done),
        _moved(term.temperature_teacher, term.temperature_teacher_final, done),
    )


def moving(term: Term) -> dict[str, str]:
    """Which of a term's values are not the same at every step, and what they are called in metrics."""
    by = {"weight": term.ramp or term.fade_steps}
    for name in ("temperature_student", "temperature_teacher"):
        by[name] = getattr(term, f"{name}_final") if reads(term.what, name) else None
    at = "" if term.name == "kd" else f"{term.name}/"
    called = {"weight": "kd_weight"} if term.name == "kd" else {}
    return {name: at + called.get(name, name) for name, how in by.items() if how is not None}


def ramp(since: int, steps: int, shape: Literal["linear", "sigmoid"]) -> float:
    """A factor that reaches 1 after `steps` steps.

    Args:
        since: steps since it began, or until a fall is over.
        steps: its length T.
        shape: `linear`, t/T, or `sigmoid`, exp(-5(1 - t/T)^2) (Tarvainen & Valpola 2017, Mean Teacher), which
            begins at 0.0067.
    """
    share = min(1.0, since / steps)
    return share if shape == "linear" else math.exp(-5 * (1 - share) ** 2)


def _moved(start: float, final: float | None, done: float) -> float:
    return start if final is None else start + (final - start) * done
