"""The losses against the papers' formulas written out in plain loops, closed forms and hand-computed values."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from otfkd.distill.losses import cosine, info_nce, off_diagonal, similarity_distillation

Divergence = Literal["ce", "kl"]
Rows = Sequence[Sequence[float]]

SHAPES = [(2, 1), (3, 3), (5, 16), (17, 8)]
TEMPERATURES = [0.0125, 0.05, 1.0, 7.0]
DIVERGENCES: list[Divergence] = ["ce", "kl"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def similarities(batch: int, seed: int) -> Tensor:
    return off_diagonal(cosine(random(batch, 6, seed=seed), random(batch, 6, seed=seed)))


def distil(
    student: Tensor, teacher: Tensor, divergence: Divergence = "kl", *, student_t: float = 0.05, teacher_t: float = 0.05
) -> Tensor:
    return similarity_distillation(
        student, teacher, temperature_student=student_t, temperature_teacher=teacher_t, divergence=divergence
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


def slow_distillation(
    student: Rows, teacher: Rows, student_t: float, teacher_t: float, divergence: Divergence
) -> float:
    total = 0.0
    for s_row, t_row in zip(student, teacher, strict=True):
        target, log_student = slow_softmax(t_row, teacher_t), slow_log_softmax(s_row, student_t)
        log_teacher = slow_log_softmax(t_row, teacher_t)
        for t, log_s, log_t in zip(target, log_student, log_teacher, strict=True):
            total -= t * log_s
            if divergence == "kl":
                total += t * log_t
    return total / len(student)


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
    assert distil(student, teacher, divergence) > distil(teacher, teacher, divergence) + 0.05
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
    ce, kl = (gradient_of(lambda leaf, d=d: distil(leaf, teacher, d), student) for d in DIVERGENCES)  # type: ignore[misc]
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


# Precision


@pytest.mark.parametrize("temperature", [0.0125, 0.05, 1.0])
def test_autocast_changes_nothing(awkward: Tensor, temperature: float) -> None:
    other = awkward + 0.1 * random(*awkward.shape, seed=9)

    def losses() -> list[Tensor]:
        matrices = [off_diagonal(cosine(rows, rows)) for rows in (awkward, other)]
        return [
            info_nce(awkward, other, temperature),
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
        return info_nce(leaf, leaf, temperature) + distil(student, teacher, student_t=temperature)

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
