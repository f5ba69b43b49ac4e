"""The losses as pure functions of embeddings and similarities, in float32 under every precision.

B is the batch, d the width. Similarity lists drop the diagonal, so a target can never land on it.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosines of every row with every row, (B, d) and (B, d) to (B, B) float32."""
    with torch.autocast(left.device.type, enabled=False):
        return normalize(left.float(), dim=-1) @ normalize(right.float(), dim=-1).T


def off_diagonal(matrix: Tensor) -> Tensor:
    """Each row without its diagonal entry, (B, B) to (B, B-1), the order kept."""
    size = len(matrix)
    return matrix.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)


def info_nce(view1: Tensor, view2: Tensor, temperature: float) -> Tensor:
    """Contrastive loss between two views of the same sentences (Gao et al. 2021, eq. 4).

    Args:
        view1: (B, d); row i's positive is row i of `view2`, its negatives the other rows.
        view2: (B, d).
        temperature: divides the cosines.

    Returns:
        Mean over anchors, a scalar.
    """
    logits = cosine(view1, view2) / temperature
    return cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def similarity_distillation(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature_student: float,
    temperature_teacher: float,
    divergence: Literal["ce", "kl"] = "ce",
) -> Tensor:
    """Match each sentence's distribution of similarities to the others (Xu et al. 2023, DistillCSE, eq. 3).

    No factor T^2: the two temperatures differ, and the papers use none.

    Args:
        student: (B, B-1) cosines, gradients flow.
        teacher: (B, B-1) cosines, a constant.
        temperature_student: divides the student's.
        temperature_teacher: divides the teacher's.
        divergence: `ce`, cross-entropy, or `kl`, which is it less the teacher's entropy: same gradient, 0 at a match.

    Returns:
        Mean over the B sentences, a scalar.
    """
    log_student = log_softmax(student / temperature_student, dim=-1)
    log_teacher = log_softmax(teacher.detach() / temperature_teacher, dim=-1)
    target = log_teacher.exp()
    reference = log_teacher if divergence == "kl" else 0.0
    return (target * (reference - log_student)).sum(-1).mean()
