"""What a training step makes of the objective, on real runs of the tiny BERT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from otfkd.base.errors import Interrupted, UserError
from otfkd.config.schema import Config
from otfkd.distill.module import Distillation, diagnose
from otfkd.training.train import train
from tests.support.callbacks import joined_by
from tests.support.json_lines import metrics
from tests.support.masked_models import make_masked_model
from tests.support.models import make_model
from tests.support.resuming import final, stop_after
from tests.support.steps import make_step
from tests.support.weights import same

Configure = Callable[..., Config]
SHORT = ("trainer.max_steps=4", "evaluation.every=null")


def last(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A teacher of another width."""
    return make_model(tmp_path / "wide", width=48, seed=3)


@pytest.mark.parametrize(
    "chosen",
    [
        ("kd=mse",),
        pytest.param(("kd=js", "group_size=2", "kd_ramp=rotation", "kd_ramp_steps=2"), marks=pytest.mark.slow),
    ],
)
def test_a_weight_of_nought_is_plain_simcse_to_the_bit_whatever_the_slot_holds(
    configure: Configure, wide: Path, chosen: tuple[str, ...]
) -> None:
    plain = last(train(configure("experiment=simcse", *SHORT)).folder)
    keys = [f"objective.{key}" for key in chosen]
    config = configure("experiment=distill_static", f"teacher={wide}", "teacher.pooler=cls", *keys, *SHORT)
    objective = config.objective.model_copy(update={"kd_weight": 0.0})  # which a command is refused: the rest is idle
    loaded = last(train(config.model_copy(update={"objective": objective})).folder)
    assert same(loaded["state_dict"], plain["state_dict"])
    assert loaded["optimizer_states"][0]["state"].keys() == plain["optimizer_states"][0]["state"].keys()


@pytest.mark.parametrize(
    ("kd", "precision"),
    [
        ("js", "bfloat16"),
        pytest.param("listmle", "float32", marks=pytest.mark.slow),
        pytest.param("rank_margin", "float32", marks=pytest.mark.slow),
        ("mse", "bfloat16"),
        pytest.param("cosine", "float32", marks=pytest.mark.slow),
    ],
)
def test_every_kind_trains_on_a_wider_teacher_and_then_on_snapshots(
    configure: Configure, wide: Path, kd: str, precision: str
) -> None:
    run = configure(
        "experiment=otfkd", f"teacher={wide}", "teacher.pooler=cls", "schedule.every=2", f"objective.kd={kd}",
        "objective.mask_repeats=true", "objective.consistency_weight=1.0", f"precision={precision}", *SHORT,
    )  # fmt: skip
    rows = metrics(train(run).folder)
    assert [row["generation"] for row in rows] == [0, 0, 1, 1]
    for row in rows:
        assert row["loss"] == pytest.approx(row["info_nce"] + row["kd"] + row["consistency"], rel=1e-5)
        assert row["kd"] > 0


def test_a_projection_is_trained_and_checkpointed_but_not_exported(configure: Configure, wide: Path) -> None:
    run = ("experiment=distill_static", f"teacher={wide}", "teacher.pooler=cls", "objective.kd=mse")
    maps = {}
    for steps in (1, 3):
        result = train(configure(*run, f"trainer.max_steps={steps}", "evaluation.every=null"))
        state = last(result.folder)["state_dict"]
        maps[steps] = {name: tensor for name, tensor in state.items() if name.startswith("projections.")}
    assert {tuple(tensor.shape) for tensor in maps[1].values()} == {(48, 32), (48,)}
    assert not same(maps[1], maps[3])
    assert not any(
        "projection" in path.read_bytes()[:4096].decode("latin1") for path in result.folder.rglob("*.safetensors")
    )


def test_a_teacher_of_the_students_width_has_no_projection(configure: Configure, tiny_model: Path) -> None:
    run = configure(
        "experiment=distill_static", f"teacher={tiny_model}", "teacher.pooler=cls", "objective.kd=mse", *SHORT
    )
    assert not any(name.startswith("projections") for name in last(train(run).folder)["state_dict"])


def test_a_resume_takes_up_projection_and_masked_language_head(
    configure: Configure, wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (
        "experiment=distill_static", f"teacher={wide}", "teacher.pooler=cls", "objective.kd=mse",
        f"model={make_masked_model(tmp_path / 'masked')}", "objective.mlm_weight=0.1", "trainer.accumulate=2",
        "objective.kd_ramp=first", "objective.kd_ramp_steps=3", *SHORT,
    )  # fmt: skip
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 2)
        with pytest.raises(Interrupted):
            train(configure(*run))
    resumed = train(configure(*run))
    assert resumed.folder != straight.folder
    assert final(resumed.folder) == final(straight.folder)


# The auxiliary loss


@pytest.fixture
def masked(configure: Configure, tmp_path: Path) -> Configure:
    """Like `configure`, for a student with a pretrained head."""
    folder = make_masked_model(tmp_path / "masked")
    return lambda *more: configure(f"model={folder}", "model.pooler=cls", *SHORT, *more)


def test_the_auxiliary_loss_is_weighed_and_shown(masked: Configure) -> None:
    rows = metrics(train(masked("objective.mlm_weight=0.1")).folder)
    for row in rows:
        assert row["loss"] == pytest.approx(row["info_nce"] + 0.1 * row["mlm"], rel=1e-5)
    assert all("mlm" not in row for row in metrics(train(masked()).folder))


def test_the_auxiliary_loss_does_not_touch_the_views_of_its_batch(masked: Configure) -> None:
    with_it, without = (metrics(train(masked(f"objective.mlm_weight={w}")).folder)[0] for w in (0.1, 0.0))
    assert with_it["info_nce"] == without["info_nce"]


def test_the_head_is_trained_and_checkpointed_but_not_exported(masked: Configure) -> None:
    result = train(masked("objective.mlm_weight=0.1"))
    plain = train(masked())
    state = last(result.folder)["state_dict"]
    heads = {name for name in state if name.startswith("mlm.")}
    assert heads
    assert not any("encoder.layer" in name for name in heads)
    exported = [(run.folder / "model" / "model.safetensors").stat().st_size for run in (result, plain)]
    assert exported[0] == exported[1]
    moved = len(last(result.folder)["optimizer_states"][0]["state"])
    assert moved == len(last(plain.folder)["optimizer_states"][0]["state"]) + 5  # its dense layer, its norm, its bias


def test_a_model_without_a_head_is_refused_before_training(configure: Configure) -> None:
    with pytest.raises(UserError, match="no pretrained masked-language head"):
        train(configure("objective.mlm_weight=0.1", "dry_run=true"))


# What moves


def test_what_moves_is_logged_as_it_applied(configure: Configure, tiny_model: Path) -> None:
    run = configure(
        "experiment=distill_static", f"teacher={tiny_model}", "teacher.pooler=cls", "objective.kd_weight=2.0",
        "objective.kd_ramp=first", "objective.kd_ramp_steps=2",
        "objective.temperature_teacher=0.0125", "objective.temperature_teacher_final=0.1125",
        "trainer.accumulate=2", "trainer.max_steps=5",
    )  # fmt: skip
    rows = metrics(train(run).folder)
    assert [row["kd_weight"] for row in rows] == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert [row["temperature_teacher"] for row in rows] == pytest.approx([0.0125, 0.0375, 0.0625, 0.0875, 0.1125])
    assert all("temperature_student" not in row for row in rows)
    for row in rows:
        assert row["loss"] == pytest.approx(row["info_nce"] + row["kd_weight"] * row["kd"], rel=1e-5)


class Installed(L.Callback):
    """Says that the slot changed after step 2."""

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, Distillation)
        if trainer.global_step == 2:
            module.teacher.first_installed = module.teacher.installed = 2


def test_a_ramp_counts_from_what_the_slot_says(configure: Configure) -> None:
    run = configure(
        "experiment=otfkd", "schedule=at", "schedule.at=[2]", "teacher.warmup_steps=2", "objective.kd_ramp=rotation",
        "objective.kd_ramp_steps=2", "trainer.max_steps=6",
    )  # fmt: skip
    with joined_by(Installed()):
        rows = metrics(train(run).folder)
    assert [row.get("kd_weight") for row in rows] == [None, None, 0.0, 0.5, 1.0, 1.0]


# A given teacher has been there since step 0: its ramp goes on over rotations, and anew after each only if asked.
@pytest.mark.parametrize(
    ("ramp", "weights"),
    [
        ("first", [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]),
        ("rotation", [0.0, 0.25, 0.5, 0.0, 0.25, 0.5, 0.0, 0.25]),
    ],
)
@pytest.mark.parametrize("stopped", [False, True])
def test_a_given_teachers_ramp_begins_with_the_run(
    configure: Configure,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    ramp: str,
    weights: list[float],
    stopped: bool,
) -> None:
    run = configure(
        "experiment=otfkd", f"teacher={tiny_model}", "teacher.pooler=cls", "schedule.every=3",
        f"objective.kd_ramp={ramp}", "objective.kd_ramp_steps=4", "trainer.max_steps=8", "evaluation.every=null",
    )  # fmt: skip
    if stopped:
        with monkeypatch.context() as patched:
            stop_after(patched, 2)
            with pytest.raises(Interrupted):
                train(run)
    assert [row["kd_weight"] for row in metrics(train(run).folder)] == weights


def test_a_first_snapshots_ramp_begins_when_it_comes(configure: Configure) -> None:
    run = configure(
        "experiment=otfkd", "schedule.every=2", "objective.kd_ramp=first", "objective.kd_ramp_steps=4",
        "trainer.max_steps=8", "evaluation.every=null",
    )  # fmt: skip
    rows = metrics(train(run).folder)
    assert [row.get("kd_weight") for row in rows] == [None, None, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_repeats_are_masked_in_a_run(configure: Configure, tmp_path: Path) -> None:
    corpus = tmp_path / "one.txt"
    corpus.write_text("the cat sat on the mat\n" * 60)
    run = (f"data.path={corpus}", *SHORT)
    masked, plain = (metrics(train(configure(*run, f"objective.mask_repeats={on}")).folder) for on in ("true", "false"))
    assert all(row["loss"] == 0 and row["grad_norm"] == 0 for row in masked)
    assert all(row["loss"] > 0.1 for row in plain)


def test_each_batch_and_process_has_dropout_of_its_own(
    configure: Configure, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = make_step(configure("experiment=distill_static", f"teacher={wide}", "teacher.pooler=cls"))

    def loss(number: int, process: int = 0) -> float:
        monkeypatch.setattr("otfkd.distill.module.rank", lambda: process)
        return Distillation.training_step(module, batch, number).item()

    assert loss(0) == loss(0)
    assert len({loss(0), loss(1), loss(0, process=1), loss(0, process=2)}) == 4


def test_each_batch_has_a_shuffle_of_its_own(configure: Configure, still: Path, wide: Path) -> None:
    run = (f"model={still}", "data.batch_size=8", f"teacher={wide}", "teacher.pooler=cls", "objective=distill")
    module, batch = make_step(configure(*run, "objective.group_size=4"))
    first, again, second = (Distillation.training_step(module, batch, number).item() for number in (0, 0, 1))
    assert first == again != second


def test_student_and_teacher_are_compared_without_dropout(configure: Configure, wide: Path) -> None:
    module, batch = make_step(configure("experiment=distill_static", f"teacher={wide}", "teacher.pooler=cls"))
    module.train()
    assert diagnose(module, batch) == diagnose(module, batch)
    assert module.student.training
