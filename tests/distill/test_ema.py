"""The moving average against a loop in float64, and its decay against the formulas it names."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from otfkd.distill.ema import Shadow

Shape = Literal["constant", "ramp", "cosine"]
SHAPES: tuple[Shape, ...] = ("constant", "ramp", "cosine")


class Student(nn.Module):
    """Floating weights of two precisions, a buffer and a counter."""

    mean: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 3))
        self.rough = nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("count", torch.tensor(0))


def moved(student: Student, step: int) -> Student:
    """The student after a step: other values each time, the same ones each run."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in (student.weight, student.rough, student.mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 10)
        student.count.fill_(step)
    return student


def decay(shape: Shape, alpha: float, step: int, steps: int) -> float:
    """Tarvainen & Valpola's code, and Grill et al. 2020, sec. 3.3."""
    if shape == "constant":
        return alpha
    if shape == "ramp":
        return alpha if step / (step + 1) > alpha else step / (step + 1)
    return 1 - (1 - alpha) * (math.cos(math.pi * step / steps) + 1) / 2


@pytest.mark.parametrize("alpha", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_average_is_that_of_a_slow_loop(shape: Shape, alpha: float) -> None:
    steps, student = 30, moved(Student(), 0)
    shadow = Shadow(alpha, shape, steps)
    shadow.start(student)
    slow = {name: tensor.double() for name, tensor in student.state_dict().items()}
    for step in range(1, steps + 1):
        shadow.update(moved(student, step), step)
        kept = decay(shape, alpha, step, steps)
        for name, tensor in student.state_dict().items():
            slow[name] = kept * slow[name] + (1 - kept) * tensor.double()
    for name in ("weight", "rough", "mean"):
        assert shadow.weights[name].dtype == torch.float32
        torch.testing.assert_close(shadow.weights[name].double(), slow[name], rtol=1e-5, atol=1e-5)
    assert shadow.weights["count"].dtype == torch.int64
    assert int(shadow.weights["count"]) == steps


@pytest.mark.parametrize(
    ("shape", "step", "value"),
    [
        ("constant", 1, 0.9), ("constant", 100, 0.9),
        ("ramp", 1, 0.5), ("ramp", 4, 0.8), ("ramp", 9, 0.9), ("ramp", 10, 0.9),
        ("cosine", 0, 0.9), ("cosine", 50, 0.95), ("cosine", 100, 1.0),
    ],
)  # fmt: skip
def test_the_decay_has_its_known_values(shape: Shape, step: int, value: float) -> None:
    assert Shadow(0.9, shape, 100).rate(step) == pytest.approx(value, abs=1e-12)


def test_small_steps_of_a_bfloat16_student_add_up() -> None:
    student = Student()
    shadow = Shadow(0.999, "constant", 10)
    shadow.start(student)
    with torch.no_grad():
        student.rough.fill_(1.0)
    for step in range(1, 101):
        shadow.update(student, step)
    # In bfloat16 the sum would stand still at once near 1; the closed form is 1 - 0.999^100.
    torch.testing.assert_close(shadow.weights["rough"], torch.full((5,), 1 - 0.999**100), rtol=1e-4, atol=0)


def test_the_average_is_no_alias_of_the_student_and_leaves_it_alone() -> None:
    student = moved(Student(), 1)
    shadow = Shadow(0.5, "constant", 10)
    shadow.start(student)
    before = {name: tensor.clone() for name, tensor in shadow.weights.items()}
    moved(student, 2)
    assert all(torch.equal(before[name], shadow.weights[name]) for name in before)
    after = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    shadow.update(student, 1)
    assert all(torch.equal(after[name], tensor) for name, tensor in student.state_dict().items())
    assert not any(tensor.requires_grad for tensor in shadow.weights.values())


def test_starting_anew_forgets() -> None:
    student = moved(Student(), 1)
    shadow = Shadow(0.9, "constant", 10)
    shadow.start(student)
    shadow.update(moved(student, 2), 1)
    shadow.start(moved(student, 3))
    assert torch.equal(shadow.weights["weight"], student.weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_resumed_average_goes_on_bit_for_bit(shape: Shape) -> None:
    whole, first, second = (Shadow(0.9, shape, 10) for _ in range(3))
    student = moved(Student(), 0)
    whole.start(student)
    first.start(student)
    for step in range(1, 6):
        for shadow in (whole, first):
            shadow.update(moved(student, step), step)
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    second.join(student)
    for step in range(6, 11):
        for shadow in (whole, second):
            shadow.update(moved(student, step), step)
    assert all(torch.equal(whole.weights[name], second.weights[name]) for name in whole.weights)


def test_a_resumed_average_goes_where_the_student_is() -> None:
    shadow = Shadow(0.9, "constant", 10)
    shadow.start(Student())
    shadow.join(Student().to("meta"))
    assert {tensor.device.type for tensor in shadow.weights.values()} == {"meta"}
