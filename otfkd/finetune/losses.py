"""The losses of labelled examples as pure functions of embeddings, in float32 under every precision.

B is the batch, d the width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, mse_loss

from otfkd.distill.losses import cosine


def supervised_info_nce(anchor: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Contrastive loss with a hard negative for each anchor (Gao et al. 2021, eq. 5).

    Args:
        anchor: (B, d).
        positive: (B, d); an anchor's positive is the row of the same number, all other rows are its negatives.
        negative: (B, d), every row a negative of every anchor.
        temperature: divides the cosines.

    Returns:
        Mean over anchors, a scalar.
    """
    logits = torch.cat([cosine(anchor, positive), cosine(anchor, negative)], dim=1) / temperature
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def cosent(left: Tensor, right: Tensor, grades: Tensor, temperature: float) -> Tensor:
    """Rank pairs by their cosines as their grades do: log(1 + sum of exp((cos_j - cos_i) / temperature)).

    The sum is over all pairs i and j of the batch with grade_i above grade_j (Huang et al. 2024, CoSENT).

    Args:
        left: (B, d).
        right: (B, d).
        grades: (B,); only their order counts.
        temperature: divides the cosines.

    Returns:
        A scalar, 0 where no two grades differ.
    """
    scores = _paired_cosine(left, right) / temperature
    excess = scores[None, :] - scores[:, None]
    above = grades[:, None] > grades[None, :]
    return torch.cat([scores.new_zeros(1), excess[above]]).logsumexp(0)


def cosine_regression(left: Tensor, right: Tensor, grades: Tensor) -> Tensor:
    """Mean squared error of each pair's cosine against its grade (Reimers & Gurevych 2019, sec. 3).

    Args:
        left: (B, d).
        right: (B, d).
        grades: (B,) from 0 to 5, which stand for the cosines 0 to 1.
    """
    return mse_loss(_paired_cosine(left, right), grades / 5)


def classification(left: Tensor, right: Tensor, classes: Tensor, classifier: nn.Module) -> Tensor:
    """Cross-entropy of a linear classifier of (u, v, |u - v|) (Reimers & Gurevych 2019, sec. 3).

    Args:
        left: (B, d), u.
        right: (B, d), v.
        classes: (B,) positions.
        classifier: (B, 3d) to (B, number of classes).
    """
    with torch.autocast(left.device.type, enabled=False):
        u, v = left.float(), right.float()
        return cross_entropy(classifier(torch.cat([u, v, (u - v).abs()], dim=1)), classes.long())


def _paired_cosine(left: Tensor, right: Tensor) -> Tensor:
    """The cosine of each row with the row of the same number, (B,) float32."""
    return cosine_similarity(left.float(), right.float(), dim=-1)
