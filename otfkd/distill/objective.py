"""The training objective: what the losses are made of and how they add up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from otfkd.config.objective import ObjectiveConfig
from otfkd.config.terms import Term
from otfkd.data.collate import Tokens
from otfkd.distill.embeddings import embedding_distillation
from otfkd.distill.losses import (
    consistency,
    cosine,
    info_nce,
    list_mle,
    off_diagonal,
    rank_margin,
    similarity_distillation,
)
from otfkd.distill.own_loss import ListLoss
from otfkd.distill.shuffling import group_p, group_size
from otfkd.distill.weighting import Weighting

_DIVERGENCES: dict[str, Literal["ce", "kl", "js"]] = {"ce": "ce", "kl": "kl", "js": "js"}


@dataclass(frozen=True)
class Student:
    """What a batch became in the student, whole or cut to a size d.

    Attributes:
        view1: (B, d), through the head where there is one.
        view2: the same sentences under other dropout.
        embedding: (B, d), view 1 before the head: what is exported, and what a teacher's embeddings, which have no
            head either, are matched with.
    """

    view1: Tensor
    view2: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Terms:
    """One batch's losses.

    Attributes:
        total: what is minimised.
        contrastive: InfoNCE.
        added: the other parts by their names, before weighting.
    """

    total: Tensor
    contrastive: Tensor
    added: Mapping[str, Tensor]


def objective(
    config: ObjectiveConfig,
    sizes: Sequence[Student],
    teachers: Sequence[Tensor],
    weights: Sequence[float],
    now: Mapping[str, Weighting],
    generator: torch.Generator,
    *,
    projections: Callable[[Tensor, Sequence[Tensor]], list[Tensor]] | None = None,
    repeats: Tensor | None = None,
    mlm: Tensor | None = None,
    own: Mapping[str, ListLoss] = MappingProxyType({}),
) -> Terms:
    """InfoNCE between the student's views, plus the weighted terms that the config asks for.

    Args:
        config: which terms, and what they are made of.
        sizes: the batch's embeddings: whole, or cut to each size that is to be one (Matryoshka, Kusupati et al. 2022).
            Every loss of embeddings is then its mean over the sizes, which the paper and sentence-transformers add up.
        teachers: each member's embeddings of the same sentences, (B, d_m) of any width; none while the slot is empty.
        weights: of the members, summing to 1.
        now: the weighting of each term at this step, by its name.
        generator: for shuffling the teachers' ranking.
        projections: for the kinds that compare embeddings, as `Projections`, where widths may differ.
        repeats: (B, B) bool, equal sentences other than a sentence itself, to be left out; None leaves nothing out.
        mlm: the masked language loss of the same sentences.
        own: the losses of the user's own, by their import paths.
    """
    contrastive = total = _mean([info_nce(one.view1, one.view2, config.temperature, repeats) for one in sizes])
    added: dict[str, Tensor] = {}
    for term in config.all_terms:
        if term.of_teacher and not teachers:
            continue
        if term.what == "mlm":
            assert mlm is not None
            value = mlm
        elif term.what == "consistency":
            value = _mean([consistency(one.view1, one.view2, config.temperature, repeats) for one in sizes])
        elif term.compares_embeddings:
            value = _mean([_embeddings(term, one.embedding, teachers, weights, projections) for one in sizes])
        else:
            value = _lists(term, sizes, teachers, weights, now[term.name], generator, repeats, own.get(term.what))
        added[term.name] = value
        total = total + now[term.name].weight * value
    return Terms(total, contrastive, added)


def repeated(tokens: Tokens) -> Tensor:
    """Which pairs of a batch are one sentence to the model, token for token, (B, B) bool, False on the diagonal."""
    ids = tokens.input_ids.masked_fill(tokens.attention_mask == 0, -1)
    kinds: Tensor = torch.unique(ids, dim=0, return_inverse=True)[1]
    return (kinds[:, None] == kinds).fill_diagonal_(False)


def _mean(of_sizes: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(of_sizes)).mean()


def _lists(
    term: Term,
    sizes: Sequence[Student],
    teachers: Sequence[Tensor],
    weights: Sequence[float],
    now: Weighting,
    generator: torch.Generator,
    repeats: Tensor | None,
    own_loss: ListLoss | None,
) -> Tensor:
    """The teachers' similarities, averaged (Xu et al. 2023, DistillCSE, eq. 7), into the student's at each size.

    The teachers' are those of whole embeddings: the best there are of what every size is to learn.
    """
    members = [weight * off_diagonal(cosine(member, member)) for member, weight in zip(teachers, weights, strict=True)]
    target = torch.stack(members).sum(0)
    kept = None if repeats is None else ~off_diagonal(repeats)
    if term.group_p is not None:
        target = group_p(target, term.group_p, generator, kept)
    if term.group_size is not None:
        target = group_size(target, term.group_size, generator, kept)

    def distance(student: Student) -> Tensor:
        own = off_diagonal(cosine(student.view1, student.view1 if term.lists == "one_view" else student.view2))
        if own_loss is not None:
            return own_loss(own, target)
        if term.what == "listmle":
            return list_mle(own, target, temperature=now.temperature_student, kept=kept)
        if term.what == "rank_margin":
            return rank_margin(own, target, margin=term.margin, kept=kept)
        return similarity_distillation(
            own, target, temperature_student=now.temperature_student, temperature_teacher=now.temperature_teacher,
            divergence=_DIVERGENCES[term.what], kept=kept,
        )  # fmt: skip

    return _mean([distance(student) for student in sizes])


def _embeddings(
    term: Term,
    embedding: Tensor,
    teachers: Sequence[Tensor],
    weights: Sequence[float],
    projections: Callable[[Tensor, Sequence[Tensor]], list[Tensor]] | None,
) -> Tensor:
    """The members' losses, averaged, each in its own space; one as wide as the student is cut as the student is."""
    assert projections is not None
    metric: Literal["mse", "cosine"] = "mse" if term.what == "mse" else "cosine"
    projected = projections(embedding, teachers)
    losses = [
        embedding_distillation(own, teacher[:, : own.shape[-1]], metric)
        for own, teacher in zip(projected, teachers, strict=True)
    ]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
