"""What teacher and student make of one batch, as the distillation sees it: how far apart they are."""

from collections.abc import Sequence

import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax

from otfkd.distill.losses import cosine, off_diagonal, similarity_distillation
from otfkd.runs.rotations import Comparison


def compare(
    student: Tensor,
    members: Sequence[Tensor],
    weights: Sequence[float],
    *,
    temperature_student: float,
    temperature_teacher: float,
) -> Comparison:
    """Agreement of a student with its teacher on in-batch similarities.

    Args:
        student: (B, d) embeddings, as the loss sees them, without dropout.
        members: the teacher's, (B, d') each; with none, every value is None.
        weights: the members' shares.
        temperature_student: divides the student's cosines.
        temperature_teacher: divides the teacher's.

    Returns:
        Every value; among them the variance of the teacher's cosines, which DistillCSE blames for overfitting (Xu et
        al. 2023).
    """
    if not members:
        return Comparison(
            agreement=None, kl=None, kd_gradient=None, teacher_mean=None, teacher_variance=None, member_correlation=None
        )
    taught = [off_diagonal(cosine(member, member)) for member in members]
    target = sum((share * cosines for share, cosines in zip(weights, taught, strict=True)), torch.zeros(()))
    own = off_diagonal(cosine(student, student))
    gap = _probabilities(own, temperature_student) - _probabilities(target, temperature_teacher)
    distance = similarity_distillation(
        own, target, temperature_student=temperature_student, temperature_teacher=temperature_teacher, divergence="kl"
    )
    return Comparison(
        agreement=float(_pearson(_ranks(own), _ranks(target)).mean()),
        kl=float(distance),
        kd_gradient=float((gap / temperature_student).norm(dim=-1).mean()),
        teacher_mean=float(target.mean()),
        teacher_variance=float(target.var()),
        member_correlation=_between(taught),
    )


def _probabilities(cosines: Tensor, temperature: float) -> Tensor:
    return log_softmax(cosines / temperature, dim=-1).exp()


def _ranks(values: Tensor) -> Tensor:
    # Equals share a rank: where embeddings have collapsed, the order of equals would pass for agreement.
    return torch.from_numpy(rankdata(values.cpu().numpy(), axis=-1))


def _pearson(left: Tensor, right: Tensor) -> Tensor:
    left, right = left - left.mean(-1, keepdim=True), right - right.mean(-1, keepdim=True)
    return cosine_similarity(left, right, dim=-1)


def _between(taught: Sequence[Tensor]) -> float | None:
    pairs = [float(_pearson(left, right).mean()) for at, left in enumerate(taught) for right in taught[at + 1 :]]
    return sum(pairs) / len(pairs) if pairs else None
