"""Several terms at once: each is its own loss, and a single one is what the shorthand keys give, to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax

from otfkd.base.errors import Interrupted
from otfkd.config.composition import load_config
from otfkd.config.objective import ObjectiveConfig
from otfkd.config.schema import Config
from otfkd.distill.embeddings import Projections
from otfkd.distill.objective import Student, Terms, objective
from otfkd.distill.weighting import weighting
from otfkd.runs.folder import RunFolder
from otfkd.training.train import train
from tests.support.json_lines import metrics
from tests.support.masked_models import make_masked_model
from tests.support.models import make_model
from tests.support.resuming import final, stop_after

Configure = Callable[..., Config]
KINDS = ("ce", "kl", "js", "listmle", "rank_margin", "mse", "cosine")
DEFAULTS = load_config(["objective=distill", "teacher=minilm"]).objective


def config(**changes: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**(DEFAULTS.model_dump() | changes))


def random(seed: int, width: int = 6) -> Tensor:
    return torch.randn(5, width, generator=torch.Generator().manual_seed(seed))


VIEW1, VIEW2, TEACHER, EMBEDDING = random(1), random(2), random(3), random(4)


def losses(chosen: ObjectiveConfig, view1: Tensor = VIEW1, *, step: int = 0, mlm: Tensor | None = None) -> Terms:
    """The losses of a batch in step `step` of ten, taught since the first."""
    now = {term.name: weighting(term, step, 10, first=0, latest=0) for term in chosen.all_terms}
    return objective(
        chosen, [Student(view1, VIEW2, EMBEDDING)], [TEACHER], [1.0], now, torch.Generator().manual_seed(0),
        projections=Projections(6, [6], 0), mlm=mlm,
    )  # fmt: skip


def slow_list(left: Tensor, right: Tensor, row: int) -> list[float]:
    """A sentence's cosines with the others, one by one."""
    return [float(cosine_similarity(left[row], right[other], dim=0)) for other in range(5) if other != row]


def slow_cross_entropy(others: Tensor, student: float, teacher: float) -> float:
    total = 0.0
    for row in range(5):
        own = log_softmax(torch.tensor(slow_list(VIEW1, others, row)) / student, dim=0)
        target = (torch.tensor(slow_list(TEACHER, TEACHER, row)) / teacher).softmax(0)
        total -= float((target * own).sum()) / 5
    return total


def test_each_of_several_terms_is_its_own_loss_with_its_own_settings_and_weight() -> None:
    chosen = config(
        terms=[
            {"what": "ce", "weight": 2.0, "temperature_student": 0.3, "temperature_teacher": 0.2},
            {"what": "ce", "name": "views", "lists": "two_views", "weight": 0.25},
            {"what": "cosine", "weight": 0.5},
            {"what": "mlm", "weight": 0.125},
        ],
        temperature_student=0.7,
        temperature_teacher=0.9,
    )
    parts = losses(chosen, mlm=torch.tensor(3.0))
    vectors = sum(1 - float(cosine_similarity(EMBEDDING[row], TEACHER[row], dim=0)) for row in range(5)) / 5
    expected = {
        "term/ce": slow_cross_entropy(VIEW1, 0.3, 0.2),
        "term/views": slow_cross_entropy(VIEW2, 0.7, 0.9),
        "term/cosine": vectors,
        "term/mlm": 3.0,
    }
    assert {name: value.item() for name, value in parts.added.items()} == pytest.approx(expected, rel=1e-5)
    weights = (2.0, 0.25, 0.5, 0.125)
    summed = sum(weight * value for weight, value in zip(weights, expected.values(), strict=True))
    assert parts.total.item() == pytest.approx(parts.contrastive.item() + summed, rel=1e-5)


@pytest.mark.parametrize("kd", KINDS)
@pytest.mark.parametrize("step", [0, 3])
def test_a_single_term_is_the_shorthand_to_the_bit(kd: str, step: int) -> None:
    settings: dict[str, Any] = {"margin": 0.3} if kd == "rank_margin" else {}
    if kd in ("ce", "kl", "js"):
        settings = {"temperature_student": 0.1, "temperature_teacher": 0.2, "group_p": 0.4}
    short = config(
        kd=kd, kd_weight=0.3, kd_ramp="first", kd_ramp_steps=7, kd_ramp_shape="sigmoid", consistency_weight=0.2,
        mlm_weight=0.1, **settings,
    )  # fmt: skip
    ramp = {"ramp": "first", "ramp_steps": 7, "ramp_shape": "sigmoid"}
    listed = config(
        terms=[{"what": kd, "weight": 0.3, **ramp, **settings}], kd_weight=5.0, consistency_weight=0.2, mlm_weight=0.1
    )
    found = []
    for chosen in (short, listed):
        view = VIEW1.clone().requires_grad_()
        parts = losses(chosen, view, step=step, mlm=torch.tensor(3.0))
        found.append((parts.total.detach(), *torch.autograd.grad(parts.total, view)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_what_a_term_leaves_out_is_the_objectives() -> None:
    lent = {"temperature_student": 0.3, "temperature_teacher": 0.4, "lists": "two_views", "group_size": 2}
    short, listed = config(**lent), config(**lent, terms=[{"what": "ce"}])
    assert torch.equal(losses(short).total, losses(listed).total)
    own = config(**lent, terms=[{"what": "ce", "group_p": 0.4}])
    assert torch.equal(losses(config(**lent | {"group_size": None, "group_p": 0.4})).total, losses(own).total)


# Ramps


def weights(**settings: Any) -> list[float]:
    """A term's weight at each of ten steps, its slot filled after 2 and changed after 6."""
    (term,) = config(terms=[{"what": "ce", "weight": 2.0, **settings}]).all_terms
    return [weighting(term, t, 10, first=2, latest=2 if t < 6 else 6).weight for t in range(10)]


def test_a_weight_rises_from_where_it_is_counted_and_falls_to_0_at_the_last_step() -> None:
    assert weights(ramp="run", ramp_steps=4) == pytest.approx([0, 0.5, 1, 1.5, 2, 2, 2, 2, 2, 2])
    assert weights(ramp="first", ramp_steps=2)[2:] == pytest.approx([0, 1, 2, 2, 2, 2, 2, 2])
    assert weights(ramp="rotation", ramp_steps=2)[2:] == pytest.approx([0, 1, 2, 2, 0, 1, 2, 2])
    assert weights(fade_steps=4) == pytest.approx([2, 2, 2, 2, 2, 2, 1.5, 1, 0.5, 0])
    both = weights(ramp="run", ramp_steps=4, fade_steps=4)
    assert both == pytest.approx([0, 0.5, 1, 1.5, 2, 2, 1.5, 1, 0.5, 0])
    assert both == pytest.approx(both[::-1])


def test_a_fall_has_the_shape_of_the_rise_mirrored() -> None:
    rise, fall = (weights(ramp_shape="sigmoid", **how) for how in ({"ramp": "run", "ramp_steps": 9}, {"fade_steps": 9}))
    assert rise == pytest.approx(fall[::-1]) and rise[0] == pytest.approx(0.013475894) and rise[-1] == 2.0


# Runs

SEVERAL = (
    "objective.terms=[{what: ce, temperature_teacher: 0.1}, {what: mse, weight: 0.5, ramp: first, ramp_steps: 2},"
    " {what: mlm, weight: 0.1, fade_steps: 3}]"
)


@pytest.fixture
def several(configure: Configure, tmp_path: Path) -> Callable[..., Config]:
    """A run of four steps with three terms, on a teacher of another width and a student that predicts tokens."""
    wide, masked = make_model(tmp_path / "wide", width=48, seed=3), make_masked_model(tmp_path / "masked")
    chosen = ("experiment=distill_static", f"teacher={wide}", "teacher.pooler=cls", f"model={masked}", SEVERAL)
    short = ("model.pooler=cls", "trainer.max_steps=4", "evaluation.every=null")
    return lambda *more: configure(*chosen, *short, *more)


def test_a_run_logs_each_term_and_what_moves_of_it(several: Callable[..., Config]) -> None:
    result = train(several())
    rows = metrics(result.folder)
    assert [row["term/mse/weight"] for row in rows] == pytest.approx([0, 0.25, 0.5, 0.5])
    assert [row["term/mlm/weight"] for row in rows] == pytest.approx([0.1, 0.2 / 3, 0.1 / 3, 0])
    for row in rows:
        parts = row["term/ce"] + row["term/mse/weight"] * row["term/mse"] + row["term/mlm/weight"] * row["term/mlm"]
        assert row["loss"] == pytest.approx(row["info_nce"] + parts, rel=1e-5)
        assert not {"kd", "kd_weight", "mlm", "term/ce/weight"} & row.keys()
    told = next(line for line in RunFolder(result.folder).read_plan().splitlines() if line.startswith("terms"))
    assert told == (
        "terms      InfoNCE; ce, weight 1, student's temperature 0.025, teacher's temperature 0.1; mse, weight 0.5, "
        "reached over 2 steps from the first teacher on; mlm, weight 0.1, falling to 0 over the last 3 steps"
    )


def test_a_stopped_run_of_several_terms_ends_with_the_same_bits(
    several: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(several(f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(Interrupted):
            train(several())
    resumed = train(several())
    assert resumed.folder != straight.folder
    assert final(resumed.folder) == final(straight.folder)


def test_a_run_of_a_single_term_has_the_weights_of_the_shorthand(configure: Configure) -> None:
    run = ("experiment=otfkd", "schedule.every=2", "trainer.max_steps=4", "evaluation.every=null")
    short = train(configure(*run, "objective.kd=js", "objective.kd_weight=0.5", "objective.group_p=0.3"))
    listed = train(configure(*run, "objective.terms=[{what: js, weight: 0.5, group_p: 0.3}]"))
    assert listed.folder != short.folder
    for key in ("weights", "optimizer", "rotations", "model", "snapshots"):
        assert final(listed.folder)[key] == final(short.folder)[key], key
