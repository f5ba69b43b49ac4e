"""How the objective is put together."""

from typing import Any

import pytest
import torch
from torch import Tensor

from otfkd.config import ObjectiveConfig
from otfkd.distill.losses import cosine, info_nce, off_diagonal, similarity_distillation
from otfkd.distill.objective import Terms, objective
from otfkd.distill.shuffling import group_p


def config(**changes: Any) -> ObjectiveConfig:
    values: dict[str, Any] = {
        "temperature": 0.05, "kd": "ce", "kd_weight": 1.0, "temperature_student": 0.025, "temperature_teacher": 0.0125,
        "group_p": None,
    }  # fmt: skip
    return ObjectiveConfig(**(values | changes))


def random(seed: int, width: int = 16) -> Tensor:
    return torch.randn(8, width, generator=torch.Generator().manual_seed(seed))


VIEW1, VIEW2, TEACHER = random(1), random(2), random(3)


def terms(
    views: tuple[Tensor, Tensor] = (VIEW1, VIEW2), teacher: Tensor | None = TEACHER, *, seed: int = 0, **changes: Any
) -> Terms:
    return objective(config(**changes), views, teacher, torch.Generator().manual_seed(seed))


def distillation(**changes: Any) -> Tensor:
    term = terms(**changes).distillation
    assert term is not None
    return term


@pytest.mark.parametrize("weight", [0.1, 1.0, 5.0])
def test_total_is_contrastive_plus_weight_times_distillation(weight: float) -> None:
    parts = terms(kd_weight=weight)
    assert parts.distillation is not None
    torch.testing.assert_close(parts.total, parts.contrastive + weight * parts.distillation)
    torch.testing.assert_close(parts.distillation, distillation(kd_weight=1.0))


def test_contrastive_term_is_info_nce_between_the_views() -> None:
    assert torch.equal(terms(temperature=0.07).contrastive, info_nce(VIEW1, VIEW2, 0.07))


@pytest.mark.parametrize("kd", ["ce", "kl"])
def test_each_temperature_and_the_divergence_go_where_they_belong(kd: Any) -> None:
    expected = similarity_distillation(
        off_diagonal(cosine(VIEW1, VIEW1)), off_diagonal(cosine(TEACHER, TEACHER)),
        temperature_student=0.2, temperature_teacher=0.3, divergence=kd,
    )  # fmt: skip
    assert torch.equal(distillation(temperature_student=0.2, temperature_teacher=0.3, kd=kd), expected)


def test_without_a_teacher_there_is_only_the_contrastive_term() -> None:
    parts = terms(teacher=None)
    assert parts.distillation is None
    assert torch.equal(parts.total, info_nce(VIEW1, VIEW2, 0.05))


def test_group_p_changes_the_target_and_nothing_else() -> None:
    target = group_p(off_diagonal(cosine(TEACHER, TEACHER)), 0.4, torch.Generator().manual_seed(5))
    expected = similarity_distillation(
        off_diagonal(cosine(VIEW1, VIEW1)), target, temperature_student=0.025, temperature_teacher=0.0125
    )
    shuffled, plain = terms(group_p=0.4, seed=5), terms(seed=5)
    assert shuffled.distillation is not None
    assert torch.equal(shuffled.distillation, expected)
    assert not torch.equal(expected, distillation())
    assert torch.equal(shuffled.contrastive, plain.contrastive)


def test_without_group_p_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    objective(config(), (VIEW1, VIEW2), TEACHER, generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("width", [2, 16, 64])
def test_teacher_may_be_of_another_width(width: int) -> None:
    assert distillation(teacher=random(3, width)).isfinite()


def test_distillation_looks_at_view_1_only() -> None:
    assert torch.equal(distillation(views=(VIEW1, random(9))), distillation())
    assert not torch.equal(distillation(views=(random(9), VIEW2)), distillation())


@pytest.mark.parametrize("part", ["total", "contrastive"])
def test_gradient_reaches_both_views_but_never_the_teacher(part: str) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in (VIEW1, VIEW2, TEACHER)]
    loss = getattr(terms((leaves[0], leaves[1]), leaves[2]), part)
    to_view1, to_view2, to_teacher = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert to_view1.abs().max() > 1e-4
    assert to_view2.abs().max() > 1e-4
    assert to_teacher is None


def test_distillation_moves_the_student_towards_the_teacher() -> None:
    student = VIEW1.clone().requires_grad_()
    losses = []
    for _ in range(20):
        loss = distillation(views=(student, VIEW2), kd="kl", temperature_student=0.1, temperature_teacher=0.1)
        (gradient,) = torch.autograd.grad(loss, student)
        student = (student - 0.5 * gradient).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
