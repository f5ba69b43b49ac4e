"""Matryoshka: losses over the first numbers of embeddings, and models whose embeddings may be cut to these."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss

import otfkd.evaluation.sts
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.composition import load_config
from otfkd.config.objective import ObjectiveConfig
from otfkd.config.schema import Config
from otfkd.data.sts import Suite
from otfkd.distill.embeddings import Projections
from otfkd.distill.losses import cosine, off_diagonal, similarity_distillation
from otfkd.distill.module import Distillation
from otfkd.distill.objective import Student, Terms, objective
from otfkd.distill.weighting import weighting
from otfkd.evaluation.encode import encode
from otfkd.evaluation.rows import Origin, score_rows
from otfkd.models.encoder import Head
from otfkd.models.registry import load_encoder
from otfkd.reporting.export import export
from otfkd.training.train import train
from tests.support.models import make_model
from tests.support.resuming import final, stop_after, unclocked
from tests.support.steps import make_step

Configure = Callable[..., Config]
DEFAULTS = load_config(["objective=distill", "teacher=minilm"]).objective
DIMS = [12, 7, 3]


def random(seed: int, width: int = 12) -> Tensor:
    return torch.randn(8, width, generator=torch.Generator().manual_seed(seed))


VIEW1, VIEW2, TEACHER, EMBEDDING = random(1), random(2), random(3), random(4)


def losses(teacher: Tensor = TEACHER, dims: list[int] = DIMS, view1: Tensor = VIEW1, **changes: Any) -> Terms:
    chosen = ObjectiveConfig(**(DEFAULTS.model_dump() | changes))
    sizes = [Student(view1[:, :size], VIEW2[:, :size], EMBEDDING[:, :size]) for size in dims]
    now = {term.name: weighting(term, 0, 1, first=0, latest=0) for term in chosen.all_terms}
    return objective(
        chosen, sizes, [teacher], [1.0], now, torch.Generator().manual_seed(0),
        projections=Projections(12, [teacher.shape[1]], 0),
    )  # fmt: skip


class Given(nn.Module):
    """A model of sentence-transformers whose embeddings are given."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return 12


def test_info_nce_is_the_mean_of_what_sentence_transformers_adds_up() -> None:
    model: Any = Given()
    ranking = MultipleNegativesRankingLoss(model, scale=1 / 0.05)
    reference = MatryoshkaLoss(model, ranking, DIMS, matryoshka_weights=[1 / 3] * 3)
    theirs, ours = VIEW1.clone().requires_grad_(), VIEW1.clone().requires_grad_()
    expected = reference([{"sentence_embedding": view} for view in (theirs, VIEW2)], torch.empty(0))
    found = losses(view1=ours).contrastive
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    gradients = torch.autograd.grad(expected, theirs)[0], torch.autograd.grad(found, ours)[0]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kd", ["ce", "kl"])
def test_every_size_learns_the_similarities_of_whole_teachers(kd: Any) -> None:
    target = off_diagonal(cosine(TEACHER, TEACHER))
    expected = [
        similarity_distillation(
            off_diagonal(cosine(VIEW1[:, :size], VIEW1[:, :size])), target, temperature_student=0.025,
            temperature_teacher=0.05, divergence=kd,
        )
        for size in DIMS
    ]  # fmt: skip
    torch.testing.assert_close(losses(kd=kd).added["kd"], sum(expected) / 3)


def test_a_ranking_is_shuffled_once_for_all_sizes() -> None:
    assert torch.equal(losses(group_p=0.3).added["kd"], losses(group_p=0.3, dims=[12, 7, 3]).added["kd"])
    alone = [losses(group_p=0.3, dims=[size]).added["kd"] for size in DIMS]
    torch.testing.assert_close(losses(group_p=0.3).added["kd"], torch.stack(alone).mean())


def test_vectors_are_matched_with_as_much_of_the_teachers() -> None:
    cosines = [1 - cosine_similarity(EMBEDDING[:, :size], TEACHER[:, :size]).mean() for size in DIMS]
    torch.testing.assert_close(losses(kd="cosine").added["kd"], sum(cosines) / 3)
    squares = [mse_loss(EMBEDDING[:, :size], TEACHER[:, :size]) for size in DIMS]
    torch.testing.assert_close(losses(kd="mse").added["kd"], sum(squares) / 3)


def test_the_first_numbers_go_through_their_part_of_the_map_to_a_whole_teacher_of_another_width() -> None:
    wide, layer = random(5, 20), Projections(12, [20], 0).maps[0]
    assert isinstance(layer, nn.Linear)
    mapped = [EMBEDDING[:, :size] @ layer.weight[:, :size].T + layer.bias for size in DIMS]
    expected = torch.stack([mse_loss(own, wide) for own in mapped]).mean()
    torch.testing.assert_close(losses(wide, kd="mse").added["kd"], expected)


def test_the_consistency_of_views_is_averaged_over_the_sizes_too() -> None:
    alone = [losses(consistency_weight=1.0, dims=[size]).added["consistency"] for size in DIMS]
    torch.testing.assert_close(losses(consistency_weight=1.0).added["consistency"], torch.stack(alone).mean())


def test_the_head_of_a_size_is_its_own_part_of_the_layer() -> None:
    head = Head(12)
    nn.init.normal_(head.dense.bias)
    expected = torch.tanh(VIEW1[:, :5] @ head.dense.weight[:5, :5].T + head.dense.bias[:5])
    torch.testing.assert_close(head(VIEW1[:, :5]), expected)
    assert torch.equal(head(VIEW1), torch.tanh(head.dense(VIEW1)))


# Runs. The tiny model has 32 numbers.

SHORT = ("trainer.max_steps=4", "evaluation.every=2")


@pytest.mark.parametrize("run", [("experiment=otfkd", "schedule.every=2"), ("experiment=otfkd", "schedule.every=2",
                                 "objective.kd=mse", "model.head=false")], ids=["lists", "vectors"])  # fmt: skip
def test_the_whole_embedding_alone_is_no_other_run_to_the_bit(configure: Configure, run: tuple[str, ...]) -> None:
    plain, whole = train(configure(*run, *SHORT)), train(configure(*run, *SHORT, "objective.dims=[32]"))
    assert whole.folder != plain.folder
    for key in ("weights", "optimizer", "best", "metrics", "rotations", "model", "snapshots"):
        assert final(whole.folder)[key] == final(plain.folder)[key], key
    assert [row.scores for row in whole.rows] == [row.scores for row in plain.rows]
    assert all(row.sizes is None for row in whole.rows)


def test_a_loss_at_a_size_depends_on_the_first_numbers_alone(configure: Configure, still: Path) -> None:
    """What is exported is before the head, so the head may not mix in what is cut off."""
    module, batch = make_step(configure("experiment=simcse", f"model={still}", "objective.dims=[16,8]"))
    assert module.head is not None
    loss = Distillation.training_step(module, batch, 0)
    pooled: Any = module.student.backbone  # whose last layer norm's bias is added to what is pooled
    (gradient,) = torch.autograd.grad(loss, pooled.encoder.layer[-1].output.LayerNorm.bias)
    assert gradient[:16].abs().min() > 0 and torch.equal(gradient[16:], torch.zeros(16))


@pytest.fixture
def sized(configure: Configure) -> Callable[..., Config]:
    return lambda *more: configure("experiment=otfkd", "schedule.every=2", *SHORT, "objective.dims=[32,16,8]", *more)


def test_a_models_scores_at_each_size_are_those_of_sentence_transformers(
    sized: Callable[..., Config], tiny_suite: Suite, tmp_path: Path
) -> None:
    result = train(sized())
    folder = result.folder / "model"
    whole = SentenceTransformer(str(folder), device="cpu")
    assert whole.encode(["the cat"]).shape == (1, 32)  # nobody gets less unasked
    export(str(result.folder), tmp_path / "out")
    for row, tasks in zip(result.rows[:2], ((tiny_suite.dev,), tiny_suite.test), strict=True):
        assert row.sizes is not None and list(row.sizes) == [16, 8]
        for size, scores in row.sizes.items():
            assert scores.keys() == {*(task.name for task in tasks), "average"}
            for task in tasks:
                left, right, gold = zip(*(pair for subset in task.subsets for pair in subset.pairs), strict=True)
                cut = SentenceTransformer(str(tmp_path / "out"), truncate_dim=size, device="cpu")
                one, other = (torch.from_numpy(np.asarray(cut.encode(list(side)))) for side in (left, right))
                assert one.shape[1] == size
                expected = 100 * spearmanr(cosine_similarity(one, other).numpy(), gold).statistic
                assert scores[task.name] == pytest.approx(expected, abs=0.01)
                assert scores[task.name] != row.scores[task.name]["all"]


def test_sizes_are_scored_from_one_pass_logged_and_select_nothing(
    sized: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def counted(encoder: Any, sentences: Any, **how: Any) -> Tensor:
        passes.append(len(sentences))
        return encode(encoder, sentences, **how)

    monkeypatch.setattr(otfkd.evaluation.sts, "encode", counted)
    result = train(sized())
    assert len(passes) == 2 + 1 + (result.rows[0].step != 4)  # dev twice, then the final model or models
    lines = map(json.loads, (result.folder / "metrics.jsonl").read_text().splitlines())
    scored = [row for row in lines if "dev" in row]
    assert [row["step"] for row in scored] == [2, 4]
    assert all(row.keys() >= {"dev/16", "dev/8"} and "dev/32" not in row for row in scored)
    best = max(scored, key=lambda row: row["dev"])
    assert result.rows[0].step == best["step"] and result.rows[0].sizes is not None
    assert [scores["average"] for scores in result.rows[0].sizes.values()] == pytest.approx(
        [best["dev/16"], best["dev/8"]], abs=0.01
    )


def test_a_stopped_run_of_several_sizes_ends_with_the_same_bits(
    sized: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = make_model(tmp_path / "wide", width=48, seed=3)
    more = (f"teacher={wide}", "teacher.pooler=cls", "objective.terms=[{what: ce}, {what: mse, weight: 0.5}]")
    straight = train(sized(*more, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 3)
        with pytest.raises(Interrupted):
            train(sized(*more))
    resumed = train(sized(*more))
    assert resumed.folder != straight.folder
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)


def test_the_sizes_travel_with_a_model_and_are_told(
    sized: Callable[..., Config], tiny_suite: Suite, tmp_path: Path
) -> None:
    result, config = train(sized()), sized()
    export(str(result.folder), tmp_path / "out")
    again = load_encoder(tmp_path / "out")
    assert again.dims == (32, 16, 8)
    rows = score_rows(again, tiny_suite, config.evaluation, Origin("again"))
    assert [row.sizes for row in rows] == [row.sizes for row in result.rows[:2]]
    assert "truncate_dim" not in json.loads((tmp_path / "out/config_sentence_transformers.json").read_text())
    card = (tmp_path / "out/README.md").read_text()
    assert "their first 32, 16, 8 numbers (Matryoshka" in card and 'SentenceTransformer("out", truncate_dim=8)' in card
    assert f"| 8 | {rows[0].sizes[8]['average']:.2f} | {rows[1].sizes[8]['average']:.2f} |" in card  # type: ignore[index]
    assert "sizes      losses are means over the first 32, 16, 8 of 32 numbers of an embedding\n" in result.plan


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["objective.dims=[8,16]"], "objective.dims=[8,16] is no falling list of sizes: write the largest first, as "
                                    "[384,256,128,64]"),
        (["objective.dims=[8,8]"], "objective.dims=[8,8] is no falling list"),
        (["objective.dims=[]"], "objective.dims=[] is no falling list"),
        (["objective.dims=[8,0]"], "objective.dims.1=0 is not valid: it must be greater than 0"),
        (["experiment=finetune_nli", "objective.dims=[8]"], "objective.dims=[8] is not read with "),
    ],
)  # fmt: skip
def test_sizes_that_make_no_sense_are_refused(given: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config(given)
    assert str(refused.value).startswith(sentence)


def test_sizes_above_the_embeddings_are_refused_before_training(configure: Configure) -> None:
    with pytest.raises(UserError) as refused:
        train(configure("experiment=simcse", "objective.dims=[64,16]", "dry_run=true"))
    assert str(refused.value) == (
        "objective.dims=[64,16] has sizes above the 32 numbers of an embedding: leave them out"
    )
