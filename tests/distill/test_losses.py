"""The losses against the papers' formulas written out in plain loops, closed forms and hand-computed values."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from otfkd.distill.losses import (
    consistency,
    cosine,
    info_nce,
    list_mle,
    off_diagonal,
    rank_margin,
    similarity_distillation,
)

Divergence = Literal["ce", "kl", "js"]
Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Rows = Sequence[Sequence[float]]

SHAPES = [(2, 1), (3, 3), (5, 16), (17, 8)]
TEMPERATURES = [0.0125, 0.05, 1.0, 7.0]
DIVERGENCES: list[Divergence] = ["ce", "kl", "js"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def similarities(batch: int, seed: int) -> Tensor:
    return off_diagonal(cosine(random(batch, 6, seed=seed), random(batch, 6, seed=seed)))


def distil(
    student: Tensor,
    teacher: Tensor,
    divergence: Divergence = "kl",
    *,
    student_t: float = 0.05,
    teacher_t: float = 0.05,
    kept: Tensor | None = None,
) -> Tensor:
    return similarity_distillation(
        student, teacher, temperature_student=student_t, temperature_teacher=teacher_t, divergence=divergence, kept=kept
    )


def slow_cosine(left: Rows, right: Rows) -> list[list[float]]:
    def length(row: Sequence[float]) -> float:
        return math.sqrt(math.fsum(x * x for x in row))

    return [
        [math.fsum(x * y for x, y in zip(a, b, strict=True)) / (length(a) * length(b)) for b in right] for a in left
    ]


def slow_softmax(row: Sequence[float], temperature: float) -> list[float]:
    top = max(row)
    weights = [math.exp((x - top) / temperature) for x in row]
    return [weight / math.fsum(weights) for weight in weights]


def slow_log_softmax(row: Sequence[float], temperature: float) -> list[float]:
    top = max(row)
    total = math.log(math.fsum(math.exp((x - top) / temperature) for x in row))
    return [(x - top) / temperature - total for x in row]


def slow_info_nce(view1: Rows, view2: Rows, temperature: float) -> float:
    cosines = slow_cosine(view1, view2)
    return -math.fsum(slow_log_softmax(row, temperature)[i] for i, row in enumerate(cosines)) / len(cosines)


def slow_jensen_shannon(p: Sequence[float], q: Sequence[float]) -> float:
    """As entropies: H((p + q) / 2) - (H(p) + H(q)) / 2."""

    def entropy(distribution: Sequence[float]) -> float:
        return -math.fsum(x * math.log(x) for x in distribution if x > 0)

    return entropy([(x + y) / 2 for x, y in zip(p, q, strict=True)]) - (entropy(p) + entropy(q)) / 2


def slow_distillation(
    student: Rows, teacher: Rows, student_t: float, teacher_t: float, divergence: Divergence
) -> float:
    total = 0.0
    for s_row, t_row in zip(student, teacher, strict=True):
        target, log_student = slow_softmax(t_row, teacher_t), slow_log_softmax(s_row, student_t)
        if divergence == "js":
            total += slow_jensen_shannon(target, slow_softmax(s_row, student_t))
            continue
        log_teacher = slow_log_softmax(t_row, teacher_t)
        for t, log_s, log_t in zip(target, log_student, log_teacher, strict=True):
            total -= t * log_s
            if divergence == "kl":
                total += t * log_t
    return total / len(student)


def slow_list_mle(student: Rows, teacher: Rows, temperature: float) -> float:
    """Place the sentences one by one in the teacher's order, each time with the student's odds among those left."""
    rows = []
    for s_row, t_row in zip(student, teacher, strict=True):
        left = sorted(range(len(t_row)), key=lambda place: -t_row[place])
        surprises = []
        while left:
            surprises.append(-slow_log_softmax([s_row[place] for place in left], temperature)[0])
            left = left[1:]
        rows.append(math.fsum(surprises) / len(surprises))
    return math.fsum(rows) / len(rows)


def slow_rank_margin(student: Rows, teacher: Rows, margin: float) -> float:
    rows = []
    for s_row, t_row in zip(student, teacher, strict=True):
        pairs = [(j, k) for j in range(len(t_row)) for k in range(len(t_row)) if t_row[j] > t_row[k]]
        hinges = [max(0.0, margin - (s_row[j] - s_row[k])) for j, k in pairs]
        rows.append(math.fsum(hinges) / max(1, len(hinges)))
    return math.fsum(rows) / len(rows)


def finite_differences(function: Callable[[Rows], float], at: Tensor, step: float = 1e-5) -> Tensor:
    rows: list[list[float]] = at.double().tolist()
    gradient = torch.zeros(at.shape, dtype=torch.double)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            row[j] = value + step
            above = function(rows)
            row[j] = value - step
            gradient[i, j] = (above - function(rows)) / (2 * step)
            row[j] = value
    return gradient


def gradient_of(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    return gradient


@pytest.fixture(params=["distinct", "duplicates", "all identical", "one zero row"])
def awkward(request: pytest.FixtureRequest) -> Tensor:
    rows = random(64, 8)
    if request.param == "duplicates":
        rows[1] = rows[2] = rows[0]
    elif request.param == "all identical":
        rows = rows[:1].repeat(64, 1)
    elif request.param == "one zero row":
        rows[5] = 0
    return rows


# Cosines


@pytest.mark.parametrize("shape", SHAPES)
def test_cosine_is_the_formula(shape: tuple[int, int]) -> None:
    left, right = random(*shape, seed=1), random(*shape, seed=2) * 30
    expected = torch.tensor(slow_cosine(left.tolist(), right.tolist()))
    torch.testing.assert_close(cosine(left, right), expected, atol=2e-6, rtol=0)


def test_cosine_of_row_i_with_row_j_stands_at_i_j() -> None:
    left, right = torch.eye(3), torch.eye(3)[[2, 0, 1]]
    assert cosine(left, right).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_cosine_ignores_length(scale: float) -> None:
    rows = random(6, 8)
    torch.testing.assert_close(cosine(rows * scale, rows), cosine(rows, rows), atol=1e-6, rtol=0)


def test_cosine_has_the_oracle_gradient() -> None:
    left, right, weights = random(4, 3, seed=1), random(4, 3, seed=2), random(4, 4, seed=3)

    def slow(rows: Rows) -> float:
        cosines = slow_cosine(rows, right.tolist())
        return math.fsum(
            w * c for ws, cs in zip(weights.tolist(), cosines, strict=True) for w, c in zip(ws, cs, strict=True)
        )

    actual = gradient_of(lambda leaf: (cosine(leaf, right) * weights).sum(), left)
    torch.testing.assert_close(actual.double(), finite_differences(slow, left), atol=1e-5, rtol=1e-4)


# Without the diagonal


@pytest.mark.parametrize("size", [2, 3, 4, 9])
def test_off_diagonal_drops_the_diagonal_and_keeps_the_order(size: int) -> None:
    matrix = torch.arange(size * size).view(size, size)
    expected = [[i * size + j for j in range(size) if j != i] for i in range(size)]
    assert off_diagonal(matrix).tolist() == expected


def test_off_diagonal_reads_rows_of_a_transposed_matrix() -> None:
    matrix = torch.arange(16).view(4, 4)
    assert torch.equal(off_diagonal(matrix.T), off_diagonal(matrix.T.contiguous()))


def test_off_diagonal_passes_gradients() -> None:
    assert torch.autograd.gradcheck(off_diagonal, torch.randn(4, 4, dtype=torch.double, requires_grad=True))


# InfoNCE


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_info_nce_is_the_formula(shape: tuple[int, int], temperature: float) -> None:
    view1, view2 = random(*shape, seed=1), random(*shape, seed=2)
    expected = slow_info_nce(view1.tolist(), view2.tolist(), temperature)
    assert info_nce(view1, view2, temperature).item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [2, 8, 64])
def test_info_nce_of_identical_rows_is_log_batch(batch: int, temperature: float) -> None:
    rows = random(1, 8).repeat(batch, 1)
    assert info_nce(rows, rows, temperature).item() == pytest.approx(math.log(batch), abs=1e-5)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_info_nce_of_orthonormal_views_is_its_closed_form(temperature: float) -> None:
    expected = math.log1p(7 * math.exp(-1 / temperature))
    assert info_nce(torch.eye(8), torch.eye(8), temperature).item() == pytest.approx(expected, abs=1e-6)


# Every anchor has the cosines .6 with its positive, 0 and .8 with the others: log(1 + e^(-.6/T) + e^(.2/T)).
@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 1.018924716), (0.05, 4.018150038)])
def test_info_nce_has_the_hand_computed_value(temperature: float, expected: float) -> None:
    view2 = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [0.8, 0.0, 0.6]])
    assert info_nce(torch.eye(3), view2, temperature).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("view", [0, 1])
def test_info_nce_has_the_oracle_gradient_in_both_views(view: int, temperature: float) -> None:
    views = [random(4, 3, seed=1), random(4, 3, seed=2)]

    def slow(rows: Rows) -> float:
        both: list[Rows] = [v.tolist() for v in views]
        both[view] = rows
        return slow_info_nce(both[0], both[1], temperature)

    def fast(leaf: Tensor) -> Tensor:
        both = [*views]
        both[view] = leaf
        return info_nce(both[0], both[1], temperature)

    expected = finite_differences(slow, views[view])
    torch.testing.assert_close(gradient_of(fast, views[view]).double(), expected, atol=1e-4, rtol=1e-3)


def test_info_nce_of_a_batch_repeated_is_log_2_more() -> None:
    view1, view2 = random(8, 16, seed=1), random(8, 16, seed=2)
    once, twice = info_nce(view1, view2, 0.05), info_nce(view1.repeat(2, 1), view2.repeat(2, 1), 0.05)
    assert twice.item() - once.item() == pytest.approx(math.log(2), abs=1e-5)


def test_info_nce_falls_as_the_positive_comes_nearer() -> None:
    view1, view2 = random(8, 16, seed=1), random(8, 16, seed=2)
    losses = [info_nce(view1, torch.lerp(view2, view1, nearer), 0.05).item() for nearer in (0.0, 0.5, 1.0)]
    assert losses[0] > losses[1] > losses[2]


# Distillation


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("student_t", "teacher_t"), [(0.025, 0.0125), (0.05, 0.05), (1.0, 2.0), (7.0, 0.05)])
@pytest.mark.parametrize("batch", [2, 3, 8, 33])
def test_distillation_is_the_formula(batch: int, student_t: float, teacher_t: float, divergence: Divergence) -> None:
    student, teacher = similarities(batch, 1), similarities(batch, 2)
    expected = slow_distillation(student.tolist(), teacher.tolist(), student_t, teacher_t, divergence)
    actual = distil(student, teacher, divergence, student_t=student_t, teacher_t=teacher_t)
    assert actual.item() == pytest.approx(expected, rel=2e-5, abs=1e-5)


# Two neighbours each, so the distributions are sigmoids of differences: for ce, the mean over rows of
# q log(1 + e^-x) + (1 - q) log(1 + e^x), q = 1 / (1 + e^-y), x and y the differences of student and teacher over T.
@pytest.mark.parametrize(
    ("divergence", "temperature", "expected"),
    [("ce", 1.0, 0.692523805), ("ce", 0.05, 0.590113894), ("kl", 1.0, 0.000831775), ("kl", 0.05, 0.210646582)],
)
def test_distillation_has_the_hand_computed_value(divergence: Divergence, temperature: float, expected: float) -> None:
    student = torch.tensor([[1.0, 0.5, 0.4], [0.5, 1.0, 0.45], [0.4, 0.45, 1.0]])  # differences .1, .05, -.05
    teacher = torch.tensor([[1.0, 0.3, 0.2], [0.3, 1.0, 0.35], [0.2, 0.35, 1.0]])  # differences .1, -.05, -.15
    loss = distil(
        off_diagonal(student), off_diagonal(teacher), divergence, student_t=temperature, teacher_t=temperature
    )
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [2, 8, 64])
def test_kl_of_a_match_is_zero(batch: int, temperature: float) -> None:
    matrix = similarities(batch, 1)
    assert distil(matrix, matrix, student_t=temperature, teacher_t=temperature).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_ce_of_a_match_is_the_teachers_entropy(temperature: float) -> None:
    matrix = similarities(8, 1)
    entropies = [
        -math.fsum(p * math.log(p) for p in slow_softmax(row, temperature) if p > 0) for row in matrix.tolist()
    ]
    loss = distil(matrix, matrix, "ce", student_t=temperature, teacher_t=temperature)
    assert loss.item() == pytest.approx(sum(entropies) / len(entropies), abs=1e-5)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_vanishes_at_a_match(divergence: Divergence) -> None:
    matrix = similarities(8, 1)
    assert gradient_of(lambda leaf: distil(leaf, matrix, divergence), matrix).abs().max() < 1e-6


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_student_away_from_the_teacher_pays_more_and_is_pulled(divergence: Divergence) -> None:
    teacher = similarities(8, 1)
    student = teacher + 0.1 * random(8, 7, seed=2)
    assert distil(student, teacher, divergence) > distil(teacher, teacher, divergence) + 0.02
    assert gradient_of(lambda leaf: distil(leaf, teacher, divergence), student).abs().max() > 1e-2


def test_similarities_all_equal_give_the_log_of_their_number_whatever_the_temperatures() -> None:
    matrix = torch.full((8, 7), 0.3)
    assert distil(matrix, matrix, "ce", student_t=0.025, teacher_t=0.0125).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_distillation_passes_gradcheck(divergence: Divergence) -> None:
    student, teacher = similarities(5, 1).double().requires_grad_(), similarities(5, 2).double()
    assert torch.autograd.gradcheck(lambda leaf: distil(leaf, teacher, divergence), student)


def test_ce_and_kl_have_the_same_gradient() -> None:
    student, teacher = similarities(8, 1), similarities(8, 2)
    ce = gradient_of(lambda leaf: distil(leaf, teacher, "ce"), student)
    kl = gradient_of(lambda leaf: distil(leaf, teacher, "kl"), student)
    torch.testing.assert_close(ce, kl, atol=1e-7, rtol=1e-6)
    assert ce.abs().max() > 1e-2


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradient_reaches_the_student_only(divergence: Divergence) -> None:
    student, teacher = similarities(8, 1).requires_grad_(), similarities(8, 2).requires_grad_()
    to_student, to_teacher = torch.autograd.grad(
        distil(student, teacher, divergence), [student, teacher], allow_unused=True
    )
    assert to_student.abs().max() > 1e-2
    assert to_teacher is None


def test_loss_is_a_mean_over_sentences() -> None:
    student, teacher = similarities(8, 1), similarities(8, 2)
    twice = distil(student.repeat(2, 1), teacher.repeat(2, 1))
    assert twice.item() == pytest.approx(distil(student, teacher).item(), rel=1e-6)


def test_kl_keeps_its_scale_when_every_neighbour_is_doubled() -> None:
    student, teacher = similarities(8, 1), similarities(8, 2)
    twice = distil(student.repeat(1, 2), teacher.repeat(1, 2))
    assert twice.item() == pytest.approx(distil(student, teacher).item(), rel=1e-5)


# Jensen-Shannon, between student and teacher and between the views


def test_js_is_symmetric_and_at_most_log_2() -> None:
    student, teacher = similarities(16, 1), similarities(16, 2)
    there = distil(student, teacher, "js", student_t=0.02, teacher_t=0.3).item()
    back = distil(teacher, student, "js", student_t=0.3, teacher_t=0.02).item()
    assert there == pytest.approx(back, rel=1e-5)
    assert 0.1 < there < math.log(2)


def test_js_of_distributions_without_overlap_is_log_2() -> None:
    student, teacher = torch.tensor([[1.0, -1.0]]), torch.tensor([[-1.0, 1.0]])
    assert distil(student, teacher, "js").item() == pytest.approx(math.log(2), abs=1e-6)


# p = (3/4, 1/4) and q = (1/4, 3/4): log 2 less the entropy of (3/4, 1/4), which is log 4 - 3/4 log 3.
def test_js_has_the_closed_form_of_two_coins() -> None:
    student, teacher = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, math.log(3)]])
    expected = math.log(2) - (math.log(4) - 0.75 * math.log(3))
    assert distil(student, teacher, "js", student_t=1.0, teacher_t=1.0).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_consistency_is_the_formula(shape: tuple[int, int], temperature: float) -> None:
    view1, view2 = random(*shape, seed=1), random(*shape, seed=2)
    forth = slow_cosine(view1.tolist(), view2.tolist())
    back = slow_cosine(view2.tolist(), view1.tolist())
    expected = [
        slow_jensen_shannon(slow_softmax(p, temperature), slow_softmax(q, temperature))
        for p, q in zip(forth, back, strict=True)
    ]
    actual = consistency(view1, view2, temperature)
    assert actual.item() == pytest.approx(math.fsum(expected) / len(expected), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("rows", [torch.eye(6), torch.ones(6, 3), random(6, 3)])
def test_consistency_of_a_view_with_itself_is_zero_whatever_its_entropy(rows: Tensor) -> None:
    assert consistency(rows, rows, 0.05).item() == pytest.approx(0, abs=1e-6)
    assert gradient_of(lambda leaf: consistency(leaf, leaf, 0.05), rows).abs().max() < 1e-5


def test_consistency_pulls_both_views() -> None:
    view1, view2 = random(8, 6, seed=1).requires_grad_(), random(8, 6, seed=2).requires_grad_()
    for gradient in torch.autograd.grad(consistency(view1, view2, 0.5), [view1, view2]):
        assert gradient.abs().max() > 1e-4


# Ranking losses


def mle(student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> Tensor:
    return list_mle(student, teacher, temperature=0.05, kept=kept)


def hinge(student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> Tensor:
    return rank_margin(student, teacher, margin=0.1, kept=kept)


LISTS: dict[str, Loss] = {
    **{name: lambda s, t, kept, d=name: distil(s, t, d, student_t=0.025, kept=kept) for name in DIVERGENCES},  # type: ignore[misc]
    "listmle": mle,
    "rank_margin": hinge,
}
each_list_loss = pytest.mark.parametrize("loss", LISTS.values(), ids=LISTS.keys())


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [2, 3, 8, 33])
def test_list_mle_is_the_formula(batch: int, temperature: float) -> None:
    student, teacher = similarities(batch, 1), similarities(batch, 2)
    expected = slow_list_mle(student.tolist(), teacher.tolist(), temperature)
    actual = list_mle(student, teacher, temperature=temperature)
    assert actual.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("others", [1, 4, 63])
def test_list_mle_of_an_undecided_student_is_log_of_the_orders_over_the_length(others: int) -> None:
    loss = mle(torch.full((3, others), 0.3), random(3, others))
    assert loss.item() == pytest.approx(math.lgamma(others + 1) / others, abs=1e-5)


def test_list_mle_is_least_in_the_teachers_order_and_vanishes_with_the_temperature() -> None:
    teacher = similarities(8, 1)
    right, wrong = (list_mle(order, teacher, temperature=1e-4) for order in (teacher, -teacher))
    assert right < 1e-2 < 1 < wrong


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("batch", [2, 3, 8, 33])
def test_rank_margin_is_the_formula(batch: int, margin: float) -> None:
    student, teacher = similarities(batch, 1), similarities(batch, 2)
    expected = slow_rank_margin(student.tolist(), teacher.tolist(), margin)
    assert rank_margin(student, teacher, margin=margin).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_rank_margin_is_nought_when_all_is_told_apart_and_the_margin_when_nothing_is() -> None:
    teacher = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.5, 0.7]])
    student = torch.tensor([[-0.5, 0.0, 0.5], [0.5, -0.5, 0.0]])
    assert rank_margin(student, teacher, margin=0.5).item() == 0
    assert rank_margin(torch.zeros(2, 3), teacher, margin=0.5).item() == pytest.approx(0.5)


def test_rank_margin_has_no_pair_of_equals() -> None:
    assert rank_margin(random(4, 5), torch.full((4, 5), 0.3), margin=1.0).item() == 0


@pytest.mark.parametrize("loss", [mle, hinge])
def test_ranking_losses_look_at_the_teachers_order_only(loss: Loss) -> None:
    student, teacher = similarities(8, 1), similarities(8, 2)
    assert torch.equal(loss(student, teacher, None), loss(student, torch.exp(7 * teacher), None))
    assert not torch.equal(loss(student, teacher, None), loss(student, -teacher, None))


@pytest.mark.parametrize("loss", [mle, hinge])
def test_ranking_losses_pass_gradcheck(loss: Loss) -> None:
    student, teacher = similarities(5, 1).double().requires_grad_(), similarities(5, 2).double()
    assert torch.autograd.gradcheck(lambda leaf: loss(leaf, teacher, None), student)


@pytest.mark.parametrize("batch", [9, 65])
def test_list_mle_stands_beside_cross_entropy_at_any_batch_size(batch: int) -> None:
    student, teacher = similarities(batch, 1), similarities(batch, 2)
    cross_entropy = distil(student, teacher, "ce", student_t=1.0, teacher_t=1.0)
    assert 0.5 < list_mle(student, teacher, temperature=1.0) / cross_entropy < 1


# Entries that do not count


def ragged(loss: Loss, student: Tensor, teacher: Tensor, kept: Tensor) -> float:
    """The loss of each list by itself, what is left out of it really cut out."""
    rows = [
        loss(s[None, k], t[None, k], None).item() for s, t, k in zip(student, teacher, kept, strict=True) if k.any()
    ]
    return math.fsum(rows) / len(rows)


@each_list_loss
def test_what_is_left_out_might_as_well_not_be_there(loss: Loss) -> None:
    student, teacher = similarities(12, 1), similarities(12, 2)
    kept = random(12, 11, seed=5) > -0.3
    kept[3] = False
    kept[4, 1:] = False
    assert loss(student, teacher, kept).item() == pytest.approx(ragged(loss, student, teacher, kept), rel=1e-4)
    assert loss(student, teacher, kept).item() != pytest.approx(loss(student, teacher, None).item(), rel=1e-3)


@each_list_loss
def test_what_is_left_out_has_no_influence_and_no_gradient(loss: Loss) -> None:
    student, teacher = similarities(12, 1), similarities(12, 2)
    kept = random(12, 11, seed=5) > 0
    other = loss(student.where(kept, -student), teacher.where(kept, 0.9), kept)
    assert torch.equal(loss(student, teacher, kept), other)
    gradient = gradient_of(lambda leaf: loss(leaf, teacher, kept), student)
    assert gradient.isfinite().all()
    assert gradient[~kept].abs().max() == 0 < gradient[kept].abs().max()


@each_list_loss
def test_nothing_left_costs_nothing(loss: Loss) -> None:
    student, teacher = similarities(6, 1), similarities(6, 2)
    nothing = torch.zeros(6, 5, dtype=torch.bool)
    assert loss(student, teacher, nothing).item() == 0
    assert (gradient_of(lambda leaf: loss(leaf, teacher, nothing), student) == 0).all()


@each_list_loss
def test_leaving_nothing_out_changes_nothing(loss: Loss) -> None:
    student, teacher = similarities(6, 1), similarities(6, 2)
    everything = loss(student, teacher, torch.ones(6, 5, dtype=torch.bool))
    torch.testing.assert_close(everything, loss(student, teacher, None))


@each_list_loss
def test_list_losses_reach_the_student_only(loss: Loss) -> None:
    student, teacher = similarities(8, 1).requires_grad_(), similarities(8, 2).requires_grad_()
    to_student, to_teacher = torch.autograd.grad(loss(student, teacher, None), [student, teacher], allow_unused=True)
    assert to_student.abs().max() > 1e-4
    assert to_teacher is None


@pytest.mark.parametrize("loss", [info_nce, consistency])
def test_repeats_are_no_negatives(loss: Callable[..., Tensor]) -> None:
    """Sentences 1 and 4 are the same and no negatives of each other; the others have both."""
    view1, view2 = random(5, 6, seed=1), random(5, 6, seed=2)
    repeats = torch.zeros(5, 5, dtype=torch.bool)
    repeats[1, 4] = repeats[4, 1] = True
    expected = 0.0
    for i in range(5):
        shown = [i, *(j for j in range(5) if j != i and not repeats[i, j])]
        forth = slow_cosine(view1[i : i + 1].tolist(), view2[shown].tolist())[0]
        back = slow_cosine(view2[i : i + 1].tolist(), view1[shown].tolist())[0]
        if loss is info_nce:
            expected -= slow_log_softmax(forth, 0.5)[0] / 5
        else:
            expected += slow_jensen_shannon(slow_softmax(forth, 0.5), slow_softmax(back, 0.5)) / 5
    assert loss(view1, view2, 0.5, repeats).item() == pytest.approx(expected, rel=1e-4)
    assert loss(view1, view2, 0.5).item() != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", [info_nce, consistency])
def test_a_batch_of_one_sentence_has_nothing_to_learn(loss: Callable[..., Tensor]) -> None:
    repeats = ~torch.eye(6, dtype=torch.bool)
    view2 = random(6, 4, seed=2)
    assert loss(random(6, 4), view2, 0.05, repeats).item() == 0
    assert (gradient_of(lambda leaf: loss(leaf, view2, 0.05, repeats), random(6, 4)) == 0).all()


# Precision


@pytest.mark.parametrize("temperature", [0.0125, 0.05, 1.0])
def test_autocast_changes_nothing(awkward: Tensor, temperature: float) -> None:
    other = awkward + 0.1 * random(*awkward.shape, seed=9)

    def losses() -> list[Tensor]:
        matrices = [off_diagonal(cosine(rows, rows)) for rows in (awkward, other)]
        return [
            info_nce(awkward, other, temperature),
            consistency(awkward, other, temperature),
            *(loss(matrices[0], matrices[1], None) for loss in LISTS.values()),
            *(distil(matrices[0], matrices[1], d, student_t=temperature, teacher_t=temperature) for d in DIVERGENCES),
        ]

    plain = losses()
    with torch.autocast("cpu", torch.bfloat16):
        cast = losses()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in cast)
    assert plain == cast


def test_embeddings_in_bfloat16_are_compared_in_float32() -> None:
    low = random(8, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cosine(low, low), cosine(low.float(), low.float()))


@pytest.mark.parametrize("temperature", [0.0125, 0.05])
def test_gradients_of_awkward_batches_are_finite(awkward: Tensor, temperature: float) -> None:
    teacher = off_diagonal(cosine(awkward, awkward)).roll(1, -1)

    def loss(leaf: Tensor) -> Tensor:
        student = off_diagonal(cosine(leaf, leaf))
        lists = sum(loss(student, teacher, None) for loss in LISTS.values())
        views = info_nce(leaf, leaf, temperature) + consistency(leaf, leaf, temperature)
        return views + lists + distil(student, teacher, student_t=temperature)

    with torch.autocast("cpu", torch.bfloat16):
        assert gradient_of(loss, awkward).isfinite().all()


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("temperature", [0.0125, 0.05, 1.0])
def test_kl_is_never_below_zero(awkward: Tensor, temperature: float, noise: float) -> None:
    teacher = off_diagonal(cosine(awkward, awkward))
    student = teacher + noise * random(*teacher.shape, seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        assert distil(student, teacher, student_t=temperature, teacher_t=temperature) >= -1e-6


@pytest.mark.parametrize("width", [2, 32, 100])
def test_teacher_may_have_any_width(width: int) -> None:
    student, teacher = random(8, 16), random(8, width, seed=1)
    assert distil(off_diagonal(cosine(student, student)), off_diagonal(cosine(teacher, teacher))) > 0.1


def test_length_of_the_teachers_embeddings_does_not_matter() -> None:
    student, teacher = similarities(8, 1), normalize(random(8, 6, seed=2))
    losses = [distil(student, off_diagonal(cosine(scale * teacher, teacher))).item() for scale in (1, 50)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
