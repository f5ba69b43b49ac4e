"""Embedding distillation and its projections."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from otfkd.distill.embeddings import Projections, embedding_distillation

Metric = Literal["mse", "cosine"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_mse_is_the_mean_over_batch_and_width() -> None:
    student, teacher = random(5, 3, seed=1), random(5, 3, seed=2)
    expected = sum(
        (s - t) ** 2
        for row, other in zip(student.tolist(), teacher.tolist(), strict=True)
        for s, t in zip(row, other, strict=True)
    )
    assert embedding_distillation(student, teacher, "mse").item() == pytest.approx(expected / 15, rel=1e-5)


# Angles of 0, 90, 180 and 45 degrees.
def test_cosine_has_the_closed_form() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    teacher = torch.tensor([[5.0, 0.0]]).repeat(4, 1)
    expected = (0 + 1 + 2 + 1 - 0.5**0.5) / 4
    assert embedding_distillation(student, teacher, "cosine").item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_gradient_reaches_the_student_only_and_vanishes_at_a_match(metric: Metric) -> None:
    student, teacher = random(5, 3, seed=1).requires_grad_(), random(5, 3, seed=2).requires_grad_()
    loss = embedding_distillation(student, teacher, metric)
    to_student, to_teacher = torch.autograd.grad(loss, [student, teacher], allow_unused=True)
    assert to_student.abs().max() > 1e-2
    assert to_teacher is None
    match = embedding_distillation(student, student.detach(), metric)
    (gradient,) = torch.autograd.grad(match, student)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("metric", ["mse", "cosine"])
def test_autocast_changes_nothing(metric: Metric) -> None:
    projections = Projections(6, [10], 0)

    def loss() -> Tensor:
        (seen,) = projections(random(5, 6, seed=1), [random(5, 10, seed=2)])
        return embedding_distillation(seen, random(5, 10, seed=2), metric)

    plain = loss()
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss()
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_only_another_width_has_a_map_and_each_member_its_own() -> None:
    projections = Projections(6, [10, 6, 4, 10], 0)
    linears = [linear for linear in projections.maps if isinstance(linear, nn.Linear)]
    assert [linear.out_features for linear in linears] == [10, 4, 10]
    student, members = random(5, 6), [random(5, width) for width in (10, 6, 4, 10)]
    first, second, third, fourth = projections(student, members)
    assert torch.equal(second, student)
    for seen, linear in zip((first, third, fourth), linears, strict=True):
        torch.testing.assert_close(seen, student @ linear.weight.T + linear.bias)
    assert not torch.equal(first, fourth)


def test_a_snapshot_of_the_student_needs_no_map_wherever_it_stands() -> None:
    projections = Projections(6, [10], 0)
    student, wide = random(5, 6), random(5, 10)
    for seen in (projections(student, [wide, student])[1], *projections(student, [student])):
        assert torch.equal(seen, student)
    assert torch.equal(projections(student, [student], only=3)[0], student)


def test_a_member_that_is_asked_alone_has_the_map_it_has_among_others() -> None:
    projections = Projections(6, [10, 6, 10], 0)
    student, members = random(5, 6), [random(5, width) for width in (10, 6, 10)]
    for place, seen in enumerate(projections(student, members)):
        (alone,) = projections(student, [members[place]], only=place)
        assert torch.equal(alone, seen)


def test_maps_follow_their_seed_and_leave_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = Projections(6, [10], 1), Projections(6, [10], 1), Projections(6, [10], 2)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [next(iter(projections.parameters())) for projections in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
