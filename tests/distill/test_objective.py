"""How the objective is put together."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.config.objective import ObjectiveConfig
from otfkd.data.collate import pad
from otfkd.distill.embeddings import Projections, embedding_distillation
from otfkd.distill.losses import (
    consistency,
    cosine,
    info_nce,
    list_mle,
    off_diagonal,
    rank_margin,
    similarity_distillation,
)
from otfkd.distill.objective import Student, Terms, objective, repeated
from otfkd.distill.shuffling import group_p, group_size
from otfkd.distill.weighting import Weighting, weighting

DEFAULTS = load_config(["objective=distill", "teacher=minilm"]).objective


def config(**changes: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**(DEFAULTS.model_dump() | changes))


def random(seed: int, width: int = 16) -> Tensor:
    return torch.randn(8, width, generator=torch.Generator().manual_seed(seed))


VIEW1, VIEW2, TEACHER, EMBEDDING = random(1), random(2), random(3), random(4)


def terms(
    views: tuple[Tensor, Tensor] = (VIEW1, VIEW2),
    teacher: Tensor | None = TEACHER,
    *,
    seed: int = 0,
    teachers: Sequence[Tensor] | None = None,
    weights: Sequence[float] = (1.0,),
    embedding: Tensor = EMBEDDING,
    repeats: Tensor | None = None,
    mlm: Tensor | None = None,
    **changes: Any,
) -> Terms:
    chosen = config(**changes)
    if teachers is None:
        teachers = [] if teacher is None else [teacher]
    return objective(
        chosen, [Student(*views, embedding)], teachers, weights if teachers else [],
        {term.name: weighting(term, 0, 1, first=0, latest=0) for term in chosen.all_terms},
        torch.Generator().manual_seed(seed),
        projections=Projections(16, [teacher.shape[-1] for teacher in teachers], 0), repeats=repeats, mlm=mlm,
    )  # fmt: skip


def distillation(**changes: Any) -> Tensor:
    return terms(**changes).added["kd"]


def lists(view: Tensor, other: Tensor | None = None) -> Tensor:
    return off_diagonal(cosine(view, view if other is None else other))


@pytest.mark.parametrize("weight", [0.1, 1.0, 5.0])
def test_total_is_contrastive_plus_weight_times_distillation(weight: float) -> None:
    parts = terms(kd_weight=weight)
    torch.testing.assert_close(parts.total, parts.contrastive + weight * parts.added["kd"])
    torch.testing.assert_close(parts.added["kd"], distillation(kd_weight=1.0))


def test_contrastive_term_is_info_nce_between_the_views() -> None:
    assert torch.equal(terms(temperature=0.07).contrastive, info_nce(VIEW1, VIEW2, 0.07))


@pytest.mark.parametrize("kd", ["ce", "kl", "js"])
def test_each_temperature_and_the_divergence_go_where_they_belong(kd: Any) -> None:
    expected = similarity_distillation(
        off_diagonal(cosine(VIEW1, VIEW1)), off_diagonal(cosine(TEACHER, TEACHER)),
        temperature_student=0.2, temperature_teacher=0.3, divergence=kd,
    )  # fmt: skip
    assert torch.equal(distillation(temperature_student=0.2, temperature_teacher=0.3, kd=kd), expected)


def test_without_a_teacher_there_is_only_the_contrastive_term() -> None:
    parts = terms(teacher=None)
    assert parts.added == {}
    assert torch.equal(parts.total, info_nce(VIEW1, VIEW2, 0.05))


def test_group_p_changes_the_target_and_nothing_else() -> None:
    target = group_p(off_diagonal(cosine(TEACHER, TEACHER)), 0.4, torch.Generator().manual_seed(5))
    expected = similarity_distillation(
        off_diagonal(cosine(VIEW1, VIEW1)), target, temperature_student=0.025, temperature_teacher=0.05
    )
    shuffled, plain = terms(group_p=0.4, seed=5), terms(seed=5)
    assert torch.equal(shuffled.added["kd"], expected)
    assert not torch.equal(expected, distillation())
    assert torch.equal(shuffled.contrastive, plain.contrastive)


def test_without_group_p_nothing_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    student = Student(VIEW1, VIEW2, EMBEDDING)
    objective(config(), [student], [TEACHER], [1.0], {"kd": Weighting(1.0, 0.05, 0.05)}, generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("width", [2, 16, 64])
def test_teacher_may_be_of_another_width(width: int) -> None:
    assert distillation(teacher=random(3, width)).isfinite()


def test_ranking_kinds_are_their_losses() -> None:
    mle = list_mle(lists(VIEW1), lists(TEACHER), temperature=0.2)
    assert torch.equal(distillation(kd="listmle", temperature_student=0.2), mle)
    hinge = rank_margin(lists(VIEW1), lists(TEACHER), margin=0.3)
    assert torch.equal(distillation(kd="rank_margin", margin=0.3), hinge)


def test_two_views_make_the_students_lists_and_leave_the_teachers_alone() -> None:
    expected = similarity_distillation(
        lists(VIEW1, VIEW2), lists(TEACHER), temperature_student=0.025, temperature_teacher=0.05
    )
    assert torch.equal(distillation(lists="two_views"), expected)
    assert not torch.equal(distillation(), expected)


def test_the_weighting_of_the_step_is_what_counts() -> None:
    student, now = Student(VIEW1, VIEW2, EMBEDDING), {"kd": Weighting(0.3, 0.2, 0.1)}
    parts = objective(config(), [student], [TEACHER], [1.0], now, torch.Generator())
    expected = similarity_distillation(lists(VIEW1), lists(TEACHER), temperature_student=0.2, temperature_teacher=0.1)
    torch.testing.assert_close(parts.added["kd"], expected)
    torch.testing.assert_close(parts.total, parts.contrastive + 0.3 * expected)


# Several teachers


def test_the_members_similarities_are_averaged_by_their_weights() -> None:
    members, weights = [random(3), random(5, 64), random(6, 4)], [0.5, 0.3, 0.2]
    target = torch.zeros(8, 7)
    for member, weight in zip(members, weights, strict=True):
        target += weight * lists(member)
    expected = similarity_distillation(lists(VIEW1), target, temperature_student=0.025, temperature_teacher=0.05)
    torch.testing.assert_close(distillation(teachers=members, weights=weights), expected)


@pytest.mark.parametrize("kd", ["ce", "kl", "js", "listmle", "rank_margin", "mse", "cosine"])
def test_the_same_member_twice_is_one(kd: str) -> None:
    twice = distillation(teachers=[TEACHER, TEACHER], weights=[0.25, 0.75], kd=kd)
    torch.testing.assert_close(twice, distillation(kd=kd))


@pytest.mark.parametrize("kd", ["mse", "cosine"])
def test_embedding_kinds_average_the_members_losses_each_through_its_own_map(kd: Any) -> None:
    members, weights = [random(5, 64), TEACHER, random(6, 64)], [0.5, 0.3, 0.2]
    maps = list(Projections(16, [64, 16, 64], 0).maps)
    seen = [maps[0](EMBEDDING), EMBEDDING, maps[2](EMBEDDING)]
    expected = sum(
        weight * embedding_distillation(own, member, kd).item()
        for own, member, weight in zip(seen, members, weights, strict=True)
    )
    assert distillation(teachers=members, weights=weights, kd=kd).item() == pytest.approx(expected, rel=1e-6)


def test_embedding_kinds_compare_what_is_exported() -> None:
    assert distillation(kd="mse").item() == pytest.approx(mse_loss(EMBEDDING, TEACHER).item())
    assert distillation(kd="mse", embedding=TEACHER).item() == 0


# Terms of the student alone


def test_consistency_is_weighed_and_needs_no_teacher() -> None:
    parts = terms(teacher=None, consistency_weight=0.7)
    expected = consistency(VIEW1, VIEW2, 0.05)
    assert torch.equal(parts.added["consistency"], expected)
    torch.testing.assert_close(parts.total, info_nce(VIEW1, VIEW2, 0.05) + 0.7 * expected)
    assert "consistency" not in terms().added


def test_all_terms_add_up() -> None:
    parts = terms(consistency_weight=0.5, kd_weight=2.0, mlm_weight=0.1, mlm=torch.tensor(3.0))
    expected = parts.contrastive + 0.5 * parts.added["consistency"] + 2.0 * parts.added["kd"] + 0.1 * 3.0
    torch.testing.assert_close(parts.total, expected)


# Repeated sentences


def test_repeated_finds_the_same_tokens_whatever_the_padding() -> None:
    tokens = pad([[2, 7, 3], [2, 7, 7, 3], [2, 7, 3], [2, 7, 3, 0], [2, 7, 3]], pad_id=0)
    expected = torch.zeros(5, 5, dtype=torch.bool)
    for i, j in [(0, 2), (0, 4), (2, 4)]:
        expected[i, j] = expected[j, i] = True
    assert torch.equal(repeated(tokens), expected)


REPEATS = torch.zeros(8, 8, dtype=torch.bool)
for i, j in [(1, 4), (4, 6), (1, 6), (0, 7)]:
    REPEATS[i, j] = REPEATS[j, i] = True
KEPT = ~off_diagonal(REPEATS)
LISTED = ["ce", "kl", "js", "listmle", "rank_margin"]


@pytest.mark.parametrize("shuffle", [{}, {"group_p": 0.4}, {"group_size": 3}])
@pytest.mark.parametrize("kd", LISTED)
def test_repeats_are_out_of_every_term(kd: Any, shuffle: dict[str, Any]) -> None:
    target = lists(TEACHER)
    if "group_p" in shuffle:
        target = group_p(target, 0.4, torch.Generator().manual_seed(0), KEPT)
    if "group_size" in shuffle:
        target = group_size(target, 3, torch.Generator().manual_seed(0), KEPT)
    losses = {
        "listmle": lambda: list_mle(lists(VIEW1), target, temperature=0.025, kept=KEPT),
        "rank_margin": lambda: rank_margin(lists(VIEW1), target, margin=0.05, kept=KEPT),
    }
    expected = losses.get(
        kd,
        lambda: similarity_distillation(
            lists(VIEW1), target, temperature_student=0.025, temperature_teacher=0.05, divergence=kd, kept=KEPT
        ),
    )()
    parts = terms(kd=kd, repeats=REPEATS, consistency_weight=1.0, **shuffle)
    assert torch.equal(parts.added["kd"], expected)
    assert torch.equal(parts.contrastive, info_nce(VIEW1, VIEW2, 0.05, REPEATS))
    assert torch.equal(parts.added["consistency"], consistency(VIEW1, VIEW2, 0.05, REPEATS))
    assert not torch.equal(parts.added["kd"], distillation(kd=kd, **shuffle))


@pytest.mark.parametrize("shuffle", [{}, {"group_p": 0.1}, {"group_size": 2}])
@pytest.mark.parametrize("kd", LISTED)
def test_a_batch_of_one_sentence_is_finite_and_teaches_nothing(kd: str, shuffle: dict[str, Any]) -> None:
    view1 = VIEW1.clone().requires_grad_()
    everything = ~torch.eye(8, dtype=torch.bool)
    total = terms((view1, VIEW2), kd=kd, repeats=everything, consistency_weight=1.0, **shuffle).total
    (gradient,) = torch.autograd.grad(total, view1)
    assert total.item() == 0
    assert (gradient == 0).all()


# What no config may ask for


def refusal(**changes: Any) -> str:
    given = [f"objective.{key}={'null' if value is None else value}" for key, value in changes.items()]
    with pytest.raises(UserError) as caught:
        load_config(["objective=distill", "teacher=minilm", *given])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_two_ways_to_shuffle_exclude_each_other() -> None:
    assert refusal(group_p=0.1, group_size=6) == (
        "objective.group_p and objective.group_size exclude each other: set one of them to null"
    )


@pytest.mark.parametrize("changes", [{"kd_ramp": "first"}, {"kd_ramp_steps": 10}])
def test_half_a_ramp_is_refused(changes: dict[str, Any]) -> None:
    assert refusal(**changes) == (
        "objective.kd_ramp and objective.kd_ramp_steps need each other: give both, or set both to null"
    )


@pytest.mark.parametrize(
    ("key", "value", "without"),
    [
        ("group_p", 0.1, {"mse", "cosine"}),
        ("group_size", 6, {"mse", "cosine"}),
        ("lists", "two_views", {"mse", "cosine"}),
        ("temperature_student_final", 0.1, {"mse", "cosine", "rank_margin"}),
        ("temperature_teacher_final", 0.1, {"mse", "cosine", "rank_margin", "listmle"}),
    ],
)
def test_what_a_kind_has_no_use_for_is_refused_only_with_it(key: str, value: Any, without: set[str]) -> None:
    for kd in [*LISTED, "mse", "cosine"]:
        if kd in without:
            message = refusal(kd=kd, **{key: value})
            assert message.startswith(
                f"objective.{key}={value} has no meaning with objective.kd={kd}: leave it out, or "
            )
        else:
            assert config(kd=kd, **{key: value}).kd == kd


@pytest.mark.parametrize(
    ("key", "value"),
    [("group_size", 1), ("kd_ramp_steps", 0), ("margin", -0.1), ("mlm_probability", 1.0), ("mlm_weight", -1)],
)
def test_impossible_values_are_refused(key: str, value: float) -> None:
    assert refusal(**{key: value}).startswith(f"objective.{key}={value} is not valid")


@pytest.mark.parametrize("name", ["rankcse_listnet", "rankcse_listmle"])
def test_rankcse_presets_have_its_lists_and_consistency(name: str) -> None:
    preset = load_config([f"objective={name}", "teacher=minilm"]).objective
    assert (preset.lists, preset.consistency_weight, preset.kd_weight) == ("two_views", 1.0, 1.0)
    assert (preset.temperature_student, preset.temperature_teacher) == (0.05, 0.025)
    assert preset.kd == ("ce" if name == "rankcse_listnet" else "listmle")


def test_distillation_looks_at_view_1_only() -> None:
    assert torch.equal(distillation(views=(VIEW1, random(9))), distillation())
    assert not torch.equal(distillation(views=(random(9), VIEW2)), distillation())


@pytest.mark.parametrize("part", ["total", "contrastive"])
def test_gradient_reaches_both_views_but_never_the_teacher(part: str) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in (VIEW1, VIEW2, TEACHER)]
    loss = getattr(terms((leaves[0], leaves[1]), leaves[2]), part)
    to_view1, to_view2, to_teacher = torch.autograd.grad(loss, leaves, allow_unused=True)
    assert to_view1.abs().max() > 1e-4
    assert to_view2.abs().max() > 1e-4
    assert to_teacher is None


def test_distillation_moves_the_student_towards_the_teacher() -> None:
    student = VIEW1.clone().requires_grad_()
    losses = []
    for _ in range(20):
        loss = distillation(views=(student, VIEW2), kd="kl", temperature_student=0.1, temperature_teacher=0.1)
        (gradient,) = torch.autograd.grad(loss, student)
        student = (student - 0.5 * gradient).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
