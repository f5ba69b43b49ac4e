"""Geometry against slow loops and closed forms."""

import math
from collections.abc import Iterator

import pytest
import torch
from scipy.special import gamma, iv
from torch import Tensor

import otfkd.evaluation.geometry
from otfkd.base.errors import UserError
from otfkd.data.sts import Subset, Task
from otfkd.evaluation.geometry import Geometry, alignment, anisotropy, effective_rank, geometry, uniformity

# "a" and "b" each occur twice; 4 itself is not above 4.
TASK = Task(
    "toy",
    (
        Subset("first", (("a", "b", 5.0), ("b", "c", 4.0), ("d", "e", 4.2))),
        Subset("second", (("f", "a", 1.0), ("g", "h", 4.5))),
    ),
)


def draw(n: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def unit(rows: Tensor) -> Tensor:
    rows = rows.double()
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def two_of(rows: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Every ordered pair of two different positions."""
    yield from ((x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j)


def slow(task: Task, vectors: dict[str, Tensor]) -> dict[str, float]:
    """The four numbers as their formulas read, a pair at a time."""
    f = {
        sentence: vector.double() / math.sqrt(float(vector.double() @ vector.double()))
        for sentence, vector in vectors.items()
    }
    pairs = [pair for subset in task.subsets for pair in subset.pairs]
    positive = [float(((f[a] - f[b]) ** 2).sum()) for a, b, gold in pairs if gold > 4]
    rows = [f[sentence] for a, b, _ in pairs for sentence in (a, b)]
    potentials = [math.exp(-2 * float(((x - y) ** 2).sum())) for x, y in two_of(rows)]
    cosines = [float(x @ y) for x, y in two_of(rows)]
    # Squared singular values are the eigenvalues of the Gram matrix.
    gram = torch.tensor([[float(x @ y) for y in rows] for x in rows], dtype=torch.float64)
    shares = [max(float(value), 0) / len(rows) for value in torch.linalg.eigvalsh(gram)]
    return {
        "alignment": sum(positive) / len(positive),
        "uniformity": math.log(sum(potentials) / len(potentials)),
        "anisotropy": sum(cosines) / len(cosines),
        "effective_rank": math.exp(-sum(share * math.log(share) for share in shares if share > 1e-12)),
        "sentences": 10,
        "positives": 3,
    }


def test_the_four_numbers_equal_slow_loops() -> None:
    vectors = {sentence: (1 + i) * row for i, (sentence, row) in enumerate(zip("abcdefgh", draw(8, 5), strict=True))}
    found = geometry(TASK, vectors)
    assert found.as_dict() == pytest.approx(slow(TASK, vectors), abs=1e-9)
    assert len({round(value, 3) for value in found.as_dict().values()}) == 6


def test_uniformity_block_by_block_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit(draw(11, 5))
    at_once = uniformity(rows)
    assert at_once == math.log(float(torch.pdist(rows).square().mul(-2).exp().mean()))  # to the bit
    for size in (1, 4, 10):
        monkeypatch.setattr(otfkd.evaluation.geometry, "_BLOCK", size)
        assert uniformity(rows) == pytest.approx(at_once, abs=1e-12)


def test_lengths_do_not_count() -> None:
    rows = draw(8, 5)
    plain, stretched = (dict(zip("abcdefgh", each, strict=True)) for each in (rows, 7 * rows))
    assert geometry(TASK, stretched).as_dict() == pytest.approx(geometry(TASK, plain).as_dict())


def test_embeddings_that_are_all_equal() -> None:
    same = draw(1, 16)[0]
    found = geometry(TASK, dict.fromkeys("abcdefgh", same))
    assert found.as_dict() == pytest.approx(Geometry(0, 0, 1, 1, 10, 3).as_dict(), abs=1e-9)


@pytest.mark.parametrize("n", [2, 7, 16])
def test_an_orthonormal_set(n: int) -> None:
    rows = torch.linalg.qr(draw(16, 16).double()).Q[:n]
    # Two of them are at a squared distance of 2.
    assert uniformity(rows) == pytest.approx(-4)
    assert anisotropy(rows) == pytest.approx(0, abs=1e-12)
    assert effective_rank(rows) == pytest.approx(n)
    assert alignment(rows, rows.roll(1, 0)) == pytest.approx(2)


def test_opposite_pairs() -> None:
    rows = unit(draw(6, 4))
    assert alignment(rows, -rows) == pytest.approx(4)
    assert alignment(rows, rows) == 0


@pytest.mark.parametrize("width", [3, 32])
def test_isotropic_gaussians(width: int) -> None:
    rows = unit(draw(3000, width))
    # exp(4 cos - 4) over the sphere is e^-4 times the normaliser of a von Mises-Fisher density at concentration 4.
    order = width / 2 - 1
    expected = -4 + math.log(gamma(width / 2) * (2 / 4) ** order * iv(order, 4))
    assert uniformity(rows) == pytest.approx(expected, abs=0.01)
    assert anisotropy(rows) == pytest.approx(0, abs=0.003)
    assert effective_rank(rows) == pytest.approx(width, rel=0.01)


def test_a_narrow_cone_is_anisotropic() -> None:
    rows = unit(draw(500, 16) + 10 * draw(1, 16, seed=1))
    assert anisotropy(rows) > 0.95
    assert effective_rank(rows) < 2


def test_a_task_without_positives_has_no_alignment() -> None:
    task = Task("flat", (Subset("only", (("a", "b", 4.0), ("c", "d", 1.0))),))
    with pytest.raises(UserError, match="flat has no pair graded above 4"):
        geometry(task, dict(zip("abcd", draw(4, 3), strict=True)))
