"""How embeddings lie on the sphere, in four numbers that no Spearman shows (Wang & Isola 2020; Ethayarajh 2019).

f is the embedding scaled to unit length. The data are all sentences of a task's pairs, one as often as it occurs; the
positives are its pairs graded above 4 (Gao et al. 2021, sec. 5). Expectations over two sentences leave out i = j.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from otfkd.base.errors import UserError
from otfkd.data.sts import Task

POSITIVE = 4.0
# Rows that are compared with as many others at once, which takes some 100 MB: a user's own dev file may be long.
_BLOCK = 4096


@dataclass(frozen=True)
class Geometry:
    """The four numbers.

    Attributes:
        alignment: mean of ||f(x) - f(x+)||^2 over positives, 0 to 4; lower is closer.
        uniformity: log of the mean of exp(-2 ||f(x) - f(y)||^2), -8 to 0; lower is more spread out.
        anisotropy: mean cosine of two sentences; 0 where directions cancel, 1 where all are one.
        effective_rank: exp of the entropy of the squared singular values of the (n, d) matrix of f, not centred, as
            shares of their sum (Roy & Vetterli 2007 on the squares); 1 to min(n, d).
        sentences: n.
        positives: pairs graded above 4.
    """

    alignment: float
    uniformity: float
    anisotropy: float
    effective_rank: float
    sentences: int
    positives: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def geometry(task: Task, vectors: dict[str, Tensor]) -> Geometry:
    """The geometry of a task's sentences, from their embeddings.

    Raises:
        UserError: no pair is graded above 4.
    """
    pairs = [pair for subset in task.subsets for pair in subset.pairs]
    positives = [(left, right) for left, right, gold in pairs if gold > POSITIVE]
    if not positives:
        raise UserError(
            f"{task.name} has no pair graded above {POSITIVE:g}, so there is no alignment: use another task"
        )
    unit = _unit(vectors, list(task.sentences()))
    left, right = (_unit(vectors, [pair[side] for pair in positives]) for side in (0, 1))
    return Geometry(
        alignment(left, right), uniformity(unit), anisotropy(unit), effective_rank(unit), len(unit), len(positives)
    )


def _unit(vectors: dict[str, Tensor], sentences: list[str]) -> Tensor:
    return normalize(torch.stack([vectors[sentence] for sentence in sentences]).double(), dim=1)


def alignment(left: Tensor, right: Tensor) -> float:
    """Mean squared distance of each row to its partner, (n, d) and (n, d) (Wang & Isola 2020, eq. 3, alpha 2)."""
    return float((left - right).square().sum(1).mean())


def uniformity(unit: Tensor) -> float:
    """Log of the mean Gaussian potential of two rows, (n, d) of unit length, n > 1 (Wang & Isola 2020, eq. 4, t 2)."""
    blocks = torch.split(unit, _BLOCK)
    total = 0.0
    for number, block in enumerate(blocks):
        total += float(torch.pdist(block).square().mul(-2).exp().sum())
        for other in blocks[number + 1 :]:
            total += float(torch.cdist(block, other).square().mul(-2).exp().sum())
    return math.log(total / math.comb(len(unit), 2))


def anisotropy(unit: Tensor) -> float:
    """Mean cosine of two rows, (n, d) of unit length, n > 1 (Ethayarajh 2019, sec. 4.1, over all pairs)."""
    n = len(unit)
    return float((unit.sum(0).square().sum() - n) / (n * (n - 1)))


def effective_rank(rows: Tensor) -> float:
    """Exp of the entropy of squared singular values as shares, (n, d)."""
    energy = torch.linalg.svdvals(rows).square()
    shares = energy / energy.sum()
    return math.exp(float(torch.special.entr(shares).sum()))
