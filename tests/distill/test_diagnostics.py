"""What is said of student and teacher, against scipy, numpy, autograd and a loop over sentences."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from otfkd.distill.diagnostics import compare

TEMPERATURES = {"temperature_student": 0.05, "temperature_teacher": 0.02}


def vectors(seed: int, rows: int = 7, width: int = 5) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def similar(embeddings: Tensor) -> list[list[float]]:
    """Each sentence's cosines with the others, one at a time and in double precision."""
    rows = embeddings.double().tolist()
    return [[cosine(left, right) for at, right in enumerate(rows) if at != i] for i, left in enumerate(rows)]


def cosine(left: list[float], right: list[float]) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))


def softmax(values: list[float], temperature: float) -> list[float]:
    top = max(values)
    exponentials = [math.exp((value - top) / temperature) for value in values]
    return [one / sum(exponentials) for one in exponentials]


def target_of(members: list[Tensor], shares: list[float]) -> list[list[float]]:
    each = [similar(member) for member in members]
    size = len(each[0])
    return [
        [sum(share * one[i][j] for share, one in zip(shares, each, strict=True)) for j in range(size - 1)]
        for i in range(size)
    ]


CASES = [([1], [1.0]), ([1, 2], [0.5, 0.5]), ([1, 2, 3], [0.2, 0.3, 0.5])]


@pytest.mark.parametrize(("seeds", "shares"), CASES)
def test_agreement_is_scipys_spearman_a_sentence(seeds: list[int], shares: list[float]) -> None:
    student, members = vectors(0), [vectors(seed, width=3 + seed) for seed in seeds]
    expected = [
        spearmanr(own, taught).statistic
        for own, taught in zip(similar(student), target_of(members, shares), strict=True)
    ]
    found = compare(student, members, shares, **TEMPERATURES)["agreement"]
    assert found == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_agreement_shares_the_ranks_of_equals_as_scipy_does() -> None:
    # Rows at right angles or alike: most cosines are 0 or 1 exactly.
    student = torch.eye(3)[[0, 0, 1, 1, 2]]
    member = torch.eye(4)[[0, 1, 1, 2, 2]]
    expected = [spearmanr(own, taught).statistic for own, taught in zip(similar(student), similar(member), strict=True)]
    defined = [0.0 if math.isnan(one) else one for one in expected]
    assert compare(student, [member], [1.0], **TEMPERATURES)["agreement"] == pytest.approx(np.mean(defined), abs=1e-6)


def test_collapsed_embeddings_do_not_pass_for_agreement() -> None:
    collapsed = torch.eye(4)[:1].expand(6, 4)
    assert compare(collapsed, [collapsed], [1.0], **TEMPERATURES)["agreement"] == 0.0


@pytest.mark.parametrize(("seeds", "shares"), CASES)
def test_kl_is_that_of_a_loop(seeds: list[int], shares: list[float]) -> None:
    student, members = vectors(0), [vectors(seed) for seed in seeds]
    total = 0.0
    for own, taught in zip(similar(student), target_of(members, shares), strict=True):
        p, q = softmax(taught, 0.02), softmax(own, 0.05)
        total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)
    assert compare(student, members, shares, **TEMPERATURES)["kl"] == pytest.approx(total / len(student), rel=1e-4)


@pytest.mark.parametrize(("seeds", "shares"), CASES)
def test_kd_gradient_is_autograds(seeds: list[int], shares: list[float]) -> None:
    student, members = vectors(0), [vectors(seed) for seed in seeds]
    norms = []
    for own, taught in zip(similar(student), target_of(members, shares), strict=True):
        cosines = torch.tensor(own, dtype=torch.float64, requires_grad=True)
        target = torch.tensor(softmax(taught, 0.02), dtype=torch.float64)
        loss = -(target * (cosines / 0.05).softmax(0).log()).sum()
        (gradient,) = torch.autograd.grad(loss, cosines)
        norms.append(float(gradient.norm()))
    found = compare(student, members, shares, **TEMPERATURES)["kd_gradient"]
    assert found == pytest.approx(np.mean(norms), rel=1e-4)


@pytest.mark.parametrize(("seeds", "shares"), CASES)
def test_the_teachers_moments_are_numpys(seeds: list[int], shares: list[float]) -> None:
    members = [vectors(seed) for seed in seeds]
    target = np.array(target_of(members, shares))
    found = compare(vectors(0), members, shares, **TEMPERATURES)
    assert found["teacher_mean"] == pytest.approx(target.mean(), abs=1e-6)
    assert found["teacher_variance"] == pytest.approx(target.var(ddof=1), rel=1e-5)


@pytest.mark.parametrize(("seeds", "shares"), CASES)
def test_member_correlation_is_numpys_over_pairs_of_members(seeds: list[int], shares: list[float]) -> None:
    members = [vectors(seed) for seed in seeds]
    each = [similar(member) for member in members]
    pairs = [
        float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(left, right, strict=True)]))
        for at, left in enumerate(each)
        for right in each[at + 1 :]
    ]
    found = compare(vectors(0), members, shares, **TEMPERATURES)["member_correlation"]
    assert found == (pytest.approx(np.mean(pairs), abs=1e-6) if pairs else None)


def test_a_teacher_that_is_the_student_agrees_and_has_no_gradient_left() -> None:
    student = vectors(0)
    found = compare(student, [student * 3], [1.0], temperature_student=0.05, temperature_teacher=0.05)
    assert found["agreement"] == pytest.approx(1.0, abs=1e-12)
    assert found["kl"] == pytest.approx(0.0, abs=1e-6)
    assert found["kd_gradient"] == pytest.approx(0.0, abs=1e-4)


def test_an_opposite_teacher_disagrees() -> None:
    angles = torch.tensor([0.0, 0.3, 0.9])
    student = torch.stack([angles.cos(), angles.sin()], 1)
    mirrored = torch.tensor([[1.0, 0.0, 0.0], [-0.2, 1.0, 0.0], [0.5, 0.1, 1.0]])
    found = compare(student, [mirrored], [1.0], **TEMPERATURES)["agreement"]
    expected = [
        spearmanr(own, taught).statistic for own, taught in zip(similar(student), similar(mirrored), strict=True)
    ]
    assert found == pytest.approx(np.mean(expected), abs=1e-6)
    assert found is not None
    assert found < 0.5


def test_an_empty_slot_says_nothing() -> None:
    found = compare(vectors(0), [], [], **TEMPERATURES)
    assert found == dict.fromkeys(
        ("agreement", "kl", "kd_gradient", "teacher_mean", "teacher_variance", "member_correlation")
    )
