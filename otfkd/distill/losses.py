"""The losses as pure functions of embeddings and similarities, in float32 under every precision.

B is the batch, d the width, N = B-1 the length of a sentence's list of similarities to the others: lists drop the
diagonal, so a target can never land on it. `kept`, (B, N) bool, says which entries of the lists count; None is all.
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

# A logit of zero probability. Finite, so that 0 times its logarithm is 0.
MASKED = -1e9


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosines of every row with every row, (B, d) and (B, d) to (B, B) float32."""
    with torch.autocast(left.device.type, enabled=False):
        return normalize(left.float(), dim=-1) @ normalize(right.float(), dim=-1).T


def off_diagonal(matrix: Tensor) -> Tensor:
    """Each row without its diagonal entry, (B, B) to (B, B-1), the order kept."""
    size = len(matrix)
    return matrix.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


def info_nce(view1: Tensor, view2: Tensor, temperature: float, repeats: Tensor | None = None) -> Tensor:
    """Contrastive loss between two views of the same sentences (Gao et al. 2021, eq. 4).

    Args:
        view1: (B, d); row i's positive is row i of `view2`, its negatives the other rows.
        view2: (B, d).
        temperature: divides the cosines.
        repeats: (B, B) bool, which other rows are no negatives; never the diagonal.

    Returns:
        Mean over anchors, a scalar.
    """
    logits = _between(view1, view2, temperature, repeats)
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def consistency(view1: Tensor, view2: Tensor, temperature: float, repeats: Tensor | None = None) -> Tensor:
    """RankCSE's ranking consistency: JS(P(1 -> 2), P(2 -> 1)) between the views (Liu et al. 2023, sec. 4).

    A public implementation clamps the mixture's logarithm from below at 1e-7 and so rewards entropy instead.

    Args:
        view1: (B, d), gradients flow through both views; the distributions are those of InfoNCE, positives included.
        view2: (B, d).
        temperature: divides the cosines.
        repeats: as InfoNCE's; symmetric.

    Returns:
        Mean over the B sentences, a scalar from 0 to log 2.
    """
    logits = _between(view1, view2, temperature, repeats)
    return _jensen_shannon(log_softmax(logits, dim=-1), log_softmax(logits.T, dim=-1)).sum(-1).mean()


def similarity_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature_student: float,
    temperature_teacher: float,
    divergence: Literal["ce", "kl", "js"] = "ce",
    kept: Tensor | None = None,
) -> Tensor:
    """Match each sentence's distribution of similarities to the others (Xu et al. 2023, DistillCSE, eq. 3).

    No factor T^2: the two temperatures differ, and the papers use none.

    Args:
        student: (B, N) cosines, gradients flow.
        teacher: (B, N) cosines, a constant.
        temperature_student: divides the student's.
        temperature_teacher: divides the teacher's.
        divergence: `ce`, cross-entropy, which is also ListNet's top-one loss (Cao et al. 2007); `kl`, which is it
            less the teacher's entropy: same gradient, 0 at a match; `js`, Jensen-Shannon, at most log 2.
        kept: (B, N).

    Returns:
        Mean over the sentences that have a list, a scalar.
    """
    log_student = log_softmax(_logits(student, temperature_student, kept), dim=-1)
    log_teacher = log_softmax(_logits(teacher.detach(), temperature_teacher, kept), dim=-1)
    if divergence == "js":
        return _mean(_jensen_shannon(log_teacher, log_student).sum(-1), kept)
    target = log_teacher.exp()
    reference = log_teacher if divergence == "kl" else 0.0
    return _mean((target * (reference - log_student)).sum(-1), kept)


def list_mle(student: Tensor, teacher: Tensor, *, temperature: float, kept: Tensor | None = None) -> Tensor:
    """Negative log-likelihood of the teacher's order under the student (ListMLE, Xia et al. 2008).

    Args:
        student: (B, N) cosines, gradients flow.
        teacher: (B, N) cosines, of which the order alone counts; equal ones keep their places' order.
        temperature: divides the student's.
        kept: (B, N).

    Returns:
        Mean over a list's places, not their sum, then over sentences: so a weight means the same for any batch size
        and stands beside the other losses'. A scalar.
    """
    order = _hide(teacher.detach(), kept).sort(dim=-1, descending=True, stable=True).indices
    ranked = _logits(student, temperature, kept).gather(-1, order)
    below = ranked.flip(-1).logcumsumexp(-1).flip(-1)  # log of the mass not yet placed, rank by rank
    return _mean(_mean_of(below - ranked, None if kept is None else kept.gather(-1, order)), kept)


def rank_margin(student: Tensor, teacher: Tensor, *, margin: float, kept: Tensor | None = None) -> Tensor:
    """Hinge on every pair (j, k) that the teacher orders: max(0, margin - (s_j - s_k)) where t_j > t_k.

    Args:
        student: (B, N) cosines, gradients flow.
        teacher: (B, N) cosines, of which the order alone counts; equal ones are no pair. Costs B N^2 memory.
        margin: by how much the student is to tell them apart.
        kept: (B, N).

    Returns:
        Mean over a sentence's pairs, then over sentences, a scalar.
    """
    teacher = teacher.detach()
    ordered = teacher[:, :, None] > teacher[:, None, :]
    if kept is not None:
        ordered = ordered & kept[:, :, None] & kept[:, None, :]
    hinges = (margin - (student[:, :, None] - student[:, None, :])).clamp(min=0)
    return _mean(_mean_of(hinges.flatten(1), ordered.flatten(1)), kept)


def _between(view1: Tensor, view2: Tensor, temperature: float, repeats: Tensor | None) -> Tensor:
    return _logits(cosine(view1, view2), temperature, None if repeats is None else ~repeats)


def _logits(similarities: Tensor, temperature: float, kept: Tensor | None) -> Tensor:
    return _hide(similarities / temperature, kept)


def _hide(values: Tensor, kept: Tensor | None) -> Tensor:
    return values if kept is None else values.masked_fill(~kept, MASKED)


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The summands of JS(p, q) = (KL(p, m) + KL(q, m)) / 2, m the mean of both."""
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_p.exp() * (log_p - log_mixture) + log_q.exp() * (log_q - log_mixture)) / 2


def _mean_of(rows: Tensor, counted: Tensor | None) -> Tensor:
    """Each row's mean over the entries that count, 0 where none does."""
    if counted is None:
        return rows.mean(-1)
    return rows.where(counted, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)


def _mean(losses: Tensor, kept: Tensor | None) -> Tensor:
    """The mean over the sentences with an entry that is kept, 0 where there is none."""
    return _mean_of(losses, None if kept is None else kept.any(-1))
