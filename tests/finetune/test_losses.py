"""The supervised losses against slow references, closed forms and sentence-transformers."""

import math
from collections.abc import Callable

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, CosineSimilarityLoss
from torch import Tensor, nn

from otfkd.finetune.losses import classification, cosent, cosine_regression, supervised_info_nce

Rows = list[list[float]]


def embeddings(seed: int, size: int = 6, width: int = 5) -> Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed))


def slow_cosine(left: list[float], right: list[float]) -> float:
    norms = math.hypot(*left) * math.hypot(*right)
    return sum(a * b for a, b in zip(left, right, strict=True)) / norms


def slow_supervised(anchor: Rows, positive: Rows, negative: Rows, temperature: float) -> float:
    total = 0.0
    for i, own in enumerate(anchor):
        below = sum(math.exp(slow_cosine(own, other) / temperature) for other in positive + negative)
        total -= math.log(math.exp(slow_cosine(own, positive[i]) / temperature) / below)
    return total / len(anchor)


def slow_cosent(left: Rows, right: Rows, grades: list[float], temperature: float) -> float:
    cosines = [slow_cosine(*pair) for pair in zip(left, right, strict=True)]
    total = 1.0
    for i, above in enumerate(grades):
        for j, below in enumerate(grades):
            if above > below:
                total += math.exp((cosines[j] - cosines[i]) / temperature)
    return math.log(total)


GRADES = torch.tensor([5.0, 3.2, 3.2, 0.0, 1.0, 4.4])


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_supervised_simcse_is_equation_5(temperature: float) -> None:
    anchor, positive, negative = embeddings(0), embeddings(1), embeddings(2)
    slow = slow_supervised(anchor.tolist(), positive.tolist(), negative.tolist(), temperature)
    assert float(supervised_info_nce(anchor, positive, negative, temperature)) == pytest.approx(slow, rel=1e-5)


def test_supervised_simcse_has_a_closed_form_where_all_cosines_are_equal() -> None:
    same = torch.ones(4, 3)
    assert float(supervised_info_nce(same, same, same, 0.05)) == pytest.approx(math.log(8))


def test_the_hard_negative_of_another_anchor_counts_too() -> None:
    anchor, positive, negative = embeddings(0), embeddings(1), embeddings(2)
    before = supervised_info_nce(anchor, positive, negative, 0.05)
    negative[3] = 2 * anchor[0]
    assert float(supervised_info_nce(anchor, positive, negative, 0.05)) > float(before)


def test_which_hard_negative_stands_where_does_not_matter() -> None:
    anchor, positive, negative = embeddings(0), embeddings(1), embeddings(2)
    turned = supervised_info_nce(anchor, positive, negative.roll(1, 0), 0.05)
    assert float(turned) == pytest.approx(float(supervised_info_nce(anchor, positive, negative, 0.05)))
    moved = supervised_info_nce(anchor, positive.roll(1, 0), negative, 0.05)
    assert float(moved) != pytest.approx(float(supervised_info_nce(anchor, positive, negative, 0.05)))


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_cosent_is_its_double_sum(temperature: float) -> None:
    left, right = embeddings(0), embeddings(1)
    slow = slow_cosent(left.tolist(), right.tolist(), GRADES.tolist(), temperature)
    assert float(cosent(left, right, GRADES, temperature)) == pytest.approx(slow, rel=1e-5)


def test_cosent_equals_sentence_transformers_at_its_scale_with_gradients() -> None:
    ours, theirs = ([embeddings(seed).requires_grad_() for seed in (0, 1)] for _ in range(2))
    reference = CoSENTLoss(nn.Identity(), scale=20.0)
    loss, expected = cosent(ours[0], ours[1], GRADES, 0.05), reference.compute_loss_from_embeddings(theirs, GRADES)
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(ours, theirs, strict=True):
        (own,) = torch.autograd.grad(loss, mine, retain_graph=True)
        (their,) = torch.autograd.grad(expected, other, retain_graph=True)
        torch.testing.assert_close(own, their)


def test_cosent_of_equal_grades_is_nought_and_moves_nothing() -> None:
    left = embeddings(0).requires_grad_()
    loss = cosent(left, embeddings(1), torch.full((6,), 3.0), 0.05)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert left.grad is not None and not left.grad.any()


def test_cosent_reads_only_the_order_of_grades() -> None:
    left, right = embeddings(0), embeddings(1)
    assert float(cosent(left, right, GRADES, 0.05)) == float(cosent(left, right, GRADES**2 - 7, 0.05))
    assert float(cosent(left, right, -GRADES, 0.05)) != float(cosent(left, right, GRADES, 0.05))


def test_cosine_regression_equals_sentence_transformers() -> None:
    left, right = embeddings(0), embeddings(1)
    reference = CosineSimilarityLoss(nn.Identity())
    torch.testing.assert_close(
        cosine_regression(left, right, GRADES), reference.compute_loss_from_embeddings([left, right], GRADES / 5)
    )


def test_cosine_regression_is_nought_where_cosine_and_grade_agree() -> None:
    left = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    right = torch.tensor([[3.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
    assert float(cosine_regression(left, right, torch.tensor([5.0, 0.0, 3.0]))) == pytest.approx(0.0, abs=1e-12)
    assert float(cosine_regression(left, right, torch.tensor([0.0, 0.0, 3.0]))) == pytest.approx(1 / 3)


def test_classification_is_cross_entropy_of_u_v_and_their_distance() -> None:
    left, right, classes = embeddings(0, 3), embeddings(1, 3), torch.tensor([2.0, 0.0, 1.0])
    classifier = nn.Linear(15, 3)
    weight, bias = classifier.weight.tolist(), classifier.bias.tolist()
    slow = 0.0
    for u, v, target in zip(left.tolist(), right.tolist(), (2, 0, 1), strict=True):
        features = [*u, *v, *(abs(a - b) for a, b in zip(u, v, strict=True))]
        logits = [
            sum(w * f for w, f in zip(row, features, strict=True)) + b for row, b in zip(weight, bias, strict=True)
        ]
        slow += math.log(sum(map(math.exp, logits))) - logits[target]
    assert classification(left, right, classes, classifier).item() == pytest.approx(slow / 3, rel=1e-5)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "simcse": lambda a, b, c: supervised_info_nce(a, b, c, 0.05),
    "cosent": lambda a, b, c: cosent(a, b, GRADES, 0.05),
    "cosine_regression": lambda a, b, c: cosine_regression(a, b, GRADES),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32_under_autocast(name: str) -> None:
    a, b, c = (embeddings(seed).bfloat16() for seed in (0, 1, 2))
    plain = LOSSES[name](a.float(), b.float(), c.float())
    with torch.autocast("cpu", torch.bfloat16):
        lossy = LOSSES[name](a, b, c)
    assert lossy.dtype == torch.float32
    assert float(lossy) == float(plain)


def test_classification_is_float32_under_autocast() -> None:
    left, right, classifier = embeddings(0).bfloat16(), embeddings(1).bfloat16(), nn.Linear(15, 3)
    classes = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0])
    plain = classification(left.float(), right.float(), classes, classifier)
    with torch.autocast("cpu", torch.bfloat16):
        assert float(classification(left, right, classes, classifier)) == float(plain)
