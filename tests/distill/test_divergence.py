"""Losses that are not finite: a run stops at their step and names lines, or leaves the step out and counts it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.base.processes import rank
from otfkd.config.schema import Config
from otfkd.data.order import Order
from otfkd.distill.module import Distillation
from otfkd.evaluation.rows import dev_score
from otfkd.finetune.module import FineTuning
from otfkd.training.train import train
from tests.support.models import make_model
from tests.support.processes import TWO, in_processes
from tests.support.recording import Recorder
from tests.support.resuming import final, stop_after, unclocked
from tests.support.weights import same

SKIP = "trainer.on_nonfinite=skip"
Spoil = Callable[..., None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Make the loss of some micro-batches, counted from 0, not finite, or its gradient alone."""

    def spoil(*numbers: int, value: float = math.nan, gradient: bool = False, module: Any = Distillation) -> None:
        original = module.training_step

        def spoilt(self: Any, batch: Any, number: int) -> Tensor:
            loss: Tensor = original(self, batch, number)
            if number in numbers:
                loss = loss + (loss - loss.detach()) * value if gradient else loss * value
            return loss

        monkeypatch.setattr(module, "training_step", spoilt)

    return spoil


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "dev" not in row]


def lines(*numbers: int, seed: int = 0) -> str:
    """The lines of the small run's micro-batches, as an editor counts them."""
    order = Order(60, 4, seed)
    return ", ".join(str(line + 1) for line in sorted(row for number in numbers for row in order.batch(number)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_stops_at_the_step_with_its_lines_and_names_the_last_checkpoint(
    configure: Callable[..., Config], spoil: Spoil, value: float, tmp_path: Path
) -> None:
    spoil(6, value=value)
    with pytest.raises(UserError) as stopped:
        train(configure("trainer.checkpoint_every=2"))
    (folder,) = tmp_path.glob("runs/simcse/*/s0")
    assert str(stopped.value) == (
        f"training diverged after step 6: the loss is {value} at step 7 (lines {lines(6)}); the last good checkpoint "
        f"is {folder}/checkpoints/last.ckpt, of step 6: lower optimizer.lr or raise the objective's temperatures, or "
        "leave such steps out with trainer.on_nonfinite=skip"
    )
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4, 5, 6]
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_without_a_checkpoint_it_says_that_there_is_none(configure: Callable[..., Config], spoil: Spoil) -> None:
    spoil(0)
    with pytest.raises(
        UserError, match=r"after step 0: the loss is nan at step 1 .*; no checkpoint was written before:"
    ):
        train(configure())


def test_of_an_accumulated_step_the_bad_micro_batch_alone_is_named(
    configure: Callable[..., Config], spoil: Spoil
) -> None:
    spoil(7)
    with pytest.raises(UserError, match=rf"the loss is nan at step 3 \(lines {lines(7)}\)"):
        train(configure("trainer.accumulate=3"))


def test_a_gradient_that_is_not_finite_names_all_lines_of_its_step(
    configure: Callable[..., Config], spoil: Spoil
) -> None:
    spoil(7, value=3e38, gradient=True)
    with pytest.raises(UserError, match=rf"the gradient's norm is (nan|inf) at step 4 \(lines {lines(6, 7)}\)"):
        train(configure("trainer.accumulate=2"))


def test_fine_tuning_names_its_examples(configure: Callable[..., Config], spoil: Spoil) -> None:
    spoil(1, module=FineTuning)
    with pytest.raises(UserError, match=r"the loss is nan at step 2 \(lines \d+, \d+, \d+, \d+\)"):
        train(configure("experiment=finetune_stsb", "data=mini", "data.path=null"))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_left_out_changes_nothing_and_is_counted(
    configure: Callable[..., Config], spoil: Spoil, recorder: Recorder, accumulate: int
) -> None:
    spoil(5 * accumulate, 8 * accumulate)
    run = ("experiment=otfkd", "schedule.every=4", "teacher.after_warmup=continue", SKIP)
    result = train(configure(*run, f"trainer.accumulate={accumulate}"))
    for step in range(1, 13):
        assert same(recorder.student[step], recorder.student[step - 1]) == (step in (6, 9)), step
    rows = metrics(result.folder)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert [row["skipped"] for row in rows] == [0] * 5 + [1] * 3 + [2] * 4
    assert ["loss" in row for row in rows] == [step not in (6, 9) for step in range(1, 13)]
    assert [row["lr"] for row in rows] == pytest.approx([1e-3 * (12 - step) / 12 for step in range(12)])
    assert {row.skipped for row in result.rows} == {2}
    log = (result.folder / "run.log").read_text()
    assert f"the loss is nan at step 6 (lines {lines(5 * accumulate)}): left out" in log
    assert "2 optimizer steps were left out" in log


def test_a_step_left_out_is_one_the_optimizer_never_had(
    configure: Callable[..., Config], spoil: Spoil, recorder: Recorder
) -> None:
    """The next step is AdamW's own from the moments before, as a slow copy of its formulas has it."""
    spoil(1)
    config = configure(SKIP, "optimizer.decay=constant", "optimizer.clip_norm=1e9", "optimizer.weight_decay=0.1")
    train(config)
    name = "backbone.encoder.layer.0.attention.self.value.weight"
    w0, w1, w2, w3 = (recorder.student[step][name].double() for step in (0, 1, 2, 3))
    assert torch.equal(w1, w2)
    rate = 1e-3
    # The first step of Adam has the length of the rate, whatever the gradient; the second is bounded by the formulas
    # for t = 2: |m/(1-b1^2)| / sqrt(v/(1-b2^2)) is at most sqrt(2), where a step that was counted would allow t = 3.
    assert torch.allclose((w1 - (1 - rate * 0.1) * w0).abs(), torch.full_like(w0, rate), rtol=1e-2)
    assert ((w3 - (1 - rate * 0.1) * w2).abs() <= rate * (2**0.5) * 1.01).all()


def test_a_student_that_is_broken_itself_is_not_skipped_for_ever(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="diverged after step 1: "):
        train(configure(SKIP, "optimizer.lr=1e39", "evaluation.every=null"))


def test_a_resume_counts_on_and_ends_with_the_same_bits(
    configure: Callable[..., Config], spoil: Spoil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(2, 7, 20)
    run = ("experiment=otfkd", "schedule.every=4", "trainer.accumulate=2", SKIP)
    straight = train(configure(*run, f"paths.runs={tmp_path / 'straight'}"))
    with monkeypatch.context() as patched:
        stop_after(patched, 6)
        with pytest.raises(Interrupted):
            train(configure(*run))
    resumed = train(configure(*run))
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)
    assert {row.skipped for row in resumed.rows} == {3}


def test_a_run_that_stopped_may_go_on_without_the_step(
    configure: Callable[..., Config], spoil: Spoil, tmp_path: Path
) -> None:
    spoil(6)
    with pytest.raises(UserError, match="diverged"):
        train(configure("trainer.checkpoint_every=2"))
    again = train(configure("trainer.checkpoint_every=2", SKIP))
    straight = train(configure("trainer.checkpoint_every=2", SKIP, f"paths.runs={tmp_path / 'straight'}"))
    assert again.folder.relative_to(tmp_path / "runs") == straight.folder.relative_to(tmp_path / "straight")
    # The steps before the stop were written when nobody asked how many were left out.
    assert final(again.folder)["weights"] == final(straight.folder)["weights"]
    assert [row.skipped for row in again.rows] == [row.skipped for row in straight.rows] == [1] * 4


def test_all_processes_leave_out_what_is_not_finite_in_one(configure: Callable[..., Config], tmp_path: Path) -> None:
    original = Distillation.training_step

    def spoilt(self: Distillation, batch: Any, number: int) -> Tensor:
        loss = original(self, batch, number)
        return loss * math.nan if (number, rank()) == (3, 1) else loss

    def part() -> Any:
        Distillation.training_step = spoilt  # type: ignore[method-assign, assignment]
        return train(configure("trainer.accumulate=2", "trainer.max_steps=4", SKIP, TWO))

    first, second = in_processes(2, tmp_path / "answers", part)
    assert first.rows == second.rows
    assert {row.skipped for row in first.rows} == {1}
    assert [row["skipped"] for row in metrics(first.folder)] == [0, 1, 1, 1]

    def stopped() -> Any:
        Distillation.training_step = spoilt  # type: ignore[method-assign, assignment]
        return train(configure("trainer.accumulate=2", "trainer.max_steps=4", TWO, f"paths.runs={tmp_path / 'stop'}"))

    for error in in_processes(2, tmp_path / "answers", stopped):
        assert isinstance(error, UserError)
        assert "at step 2" in str(error)


def test_weights_that_break_in_their_last_update_are_told_at_the_evaluation(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(encoder: Any, *given: Any) -> float:
        with torch.no_grad():
            next(encoder.parameters()).fill_(math.nan)
        return dev_score(encoder, *given)

    monkeypatch.setattr(otfkd.training.train, "dev_score", broken)
    with pytest.raises(UserError, match="diverged after step 3: the model's embeddings are not finite; no checkpoint"):
        train(configure(SKIP))


ADVICE = "lower optimizer.lr or raise the objective's temperatures"


def collapse(encoder: Any, *given: Any) -> float:
    """Make every sentence the same, and have it scored."""
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.zero_()
                module.bias.fill_(0.5)
    return dev_score(encoder, *given)


@pytest.mark.parametrize("keys", [(), (SKIP,)])
def test_of_embeddings_that_collapsed_there_is_no_step_to_leave_out(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
) -> None:
    monkeypatch.setattr(otfkd.training.train, "dev_score", collapse)
    with pytest.raises(UserError, match=rf"diverged after step 3: .*embeddings collapsed; no checkpoint .*: {ADVICE}$"):
        train(configure(*keys))


@pytest.mark.parametrize("keys", [(), (SKIP,)])
def test_of_weights_that_are_not_finite_there_is_no_step_to_leave_out(
    configure: Callable[..., Config], keys: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=rf"diverged after step 1: .*: {ADVICE}$"):
        train(configure(*keys, "optimizer.lr=1e39", "evaluation.every=null"))


def test_a_model_of_weights_that_are_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    from otfkd.config.composition import compose, prepare_overrides
    from otfkd.config.schema import EvaluateConfig
    from otfkd.evaluation.scoring import score_model
    from otfkd.models.export import save_encoder
    from otfkd.models.registry import load_encoder

    encoder = load_encoder(make_model(tmp_path / "base"), "mean")
    with torch.no_grad():
        next(encoder.parameters()).fill_(math.nan)
    save_encoder(encoder, tmp_path / "broken", 16)
    given = [f"model={tmp_path / 'broken'}", "evaluation=mini"]
    config = EvaluateConfig.from_hydra(compose(prepare_overrides(given, EvaluateConfig), "evaluate"))
    with pytest.raises(UserError, match=r"broken cannot be scored \(the model's embeddings are not finite\)"):
        score_model(config)
