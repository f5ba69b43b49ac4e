"""The weight and the temperatures of the teacher's term, step by step, against values written out."""

import itertools
import math
from typing import Any

import pytest

from otfkd.config.composition import load_config
from otfkd.config.objective import ObjectiveConfig
from otfkd.config.terms import Term
from otfkd.distill.weighting import Weighting, moving, ramp, weighting

DEFAULTS = load_config(["objective=distill", "objective.kd_weight=2.0", "teacher=minilm"]).objective


def term(**changes: Any) -> Term:
    (only,) = ObjectiveConfig(**(DEFAULTS.model_dump() | changes)).all_terms
    return only


def weights(*installed: int, **changes: Any) -> list[float]:
    """The weight at each step of a run of 12 whose slot changed after the given steps."""
    first = min(installed)
    latest = {step: max((at for at in installed if at <= step), default=0) for step in range(12)}
    return [weighting(term(**changes), t, 12, first=first, latest=latest[t]).weight for t in range(first, 12)]


def test_by_default_nothing_moves() -> None:
    assert {weighting(term(), t, 12, first=3, latest=6) for t in range(12)} == {Weighting(2.0, 0.025, 0.05)}
    assert moving(term()) == {}


def test_a_warm_up_counts_from_the_first_teacher_and_passes_rotations() -> None:
    expected = [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert weights(3, 6, 9, kd_ramp="first", kd_ramp_steps=4) == pytest.approx(expected)


def test_a_ramp_begins_anew_at_each_rotation() -> None:
    expected = [0.0, 1.0, 2.0, 2.0, 0.0, 1.0, 2.0, 2.0, 0.0]
    assert weights(3, 7, 11, kd_ramp="rotation", kd_ramp_steps=2) == pytest.approx(expected)


def test_an_initial_teacher_is_ramped_from_the_start() -> None:
    assert weights(0, kd_ramp="rotation", kd_ramp_steps=4)[:6] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.0])


# 2 exp(-5), 2 exp(-5/4), 2.
def test_the_sigmoid_is_mean_teachers() -> None:
    actual = weights(0, kd_ramp="first", kd_ramp_steps=2, kd_ramp_shape="sigmoid")
    assert actual[:4] == pytest.approx([0.013475894, 0.573009594, 2.0, 2.0], abs=1e-8)


@pytest.mark.parametrize("shape", ["linear", "sigmoid"])
def test_a_ramp_rises_to_1_and_stays(shape: Any) -> None:
    values = [ramp(t, 50, shape) for t in range(80)]
    assert all(a < b for a, b in itertools.pairwise(values[:51]))
    assert values[50:] == [1.0] * 30
    assert values[25] == pytest.approx(0.5 if shape == "linear" else math.exp(-1.25))


def test_temperatures_move_linearly_and_arrive_at_the_last_step() -> None:
    moved = term(temperature_student_final=0.125, temperature_teacher=0.5, temperature_teacher_final=0.1)
    steps = [weighting(moved, t, 11, first=0, latest=0) for t in range(11)]
    assert [now.temperature_student for now in steps] == pytest.approx([0.025 + 0.01 * t for t in range(11)])
    assert [now.temperature_teacher for now in steps] == pytest.approx([0.5 - 0.04 * t for t in range(11)])
    assert {now.weight for now in steps} == {2.0}


def test_a_run_of_one_step_has_the_first_temperature() -> None:
    assert weighting(term(temperature_student_final=1.0), 0, 1, first=0, latest=0).temperature_student == 0.025


def test_what_moves_is_named() -> None:
    assert moving(term(kd_ramp="first", kd_ramp_steps=3)) == {"weight": "kd_weight"}
    both = term(temperature_student_final=0.1, temperature_teacher_final=0.1)
    assert moving(both) == {name: name for name in ("temperature_student", "temperature_teacher")}
