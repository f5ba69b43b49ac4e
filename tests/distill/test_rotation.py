"""The callback's promises, on real training runs of the tiny BERT."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

import otfkd.runs
from otfkd.config import Config
from otfkd.distill.module import Distillation

Weights = dict[str, Tensor]


def copy_of(module: torch.nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left: Weights, right: Weights) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@dataclass
class Recorder(L.Callback):
    """Comes last, so it sees each optimizer step as the next one will find it."""

    student: dict[int, Weights] = field(default_factory=dict)
    teacher: dict[int, Weights | None] = field(default_factory=dict)
    addresses: dict[int, list[int]] = field(default_factory=dict)
    modes: list[tuple[bool, bool]] = field(default_factory=list)
    lines: list[tuple[int, ...]] = field(default_factory=list)
    repeats: list[bool] = field(default_factory=list)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, Distillation)
        dropouts = [part for part in module.student.modules() if isinstance(part, torch.nn.Dropout)]
        slot = module.teacher
        self.modes.append((all(part.training for part in dropouts), any(part.training for part in slot.modules())))
        if slot.filled:
            self.repeats.append(torch.equal(slot(batch.student)[0], slot(batch.student)[0]))

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, Distillation)
        self.lines.append(batch.lines)
        step, members = trainer.global_step, list(module.teacher.members)
        self.student[step] = copy_of(module.student)
        self.teacher[step] = copy_of(members[0]) if members else None
        self.addresses[step] = [tensor.data_ptr() for member in members for tensor in member.state_dict().values()]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Record a run's weights step by step."""
    recorder, original = Recorder(), otfkd.runs._trainer
    monkeypatch.setattr(otfkd.runs, "_trainer", lambda config, callbacks: original(config, [*callbacks, recorder]))
    return recorder


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_teacher_is_the_student_of_the_last_rotation_bit_for_bit_and_does_not_move(
    configure: Callable[..., Config], recorder: Recorder, accumulate: int, precision: str
) -> None:
    otfkd.runs.train(
        configure("experiment=otfkd", "schedule.every=4", f"trainer.accumulate={accumulate}", f"precision={precision}")
    )
    assert sorted(recorder.student) == list(range(1 if accumulate == 1 else 0, 13))
    for step in range(1, 13):
        teacher = recorder.teacher[step]
        rotated_at = min(step // 4 * 4, 8)  # 12 is the last step: no rotation there
        if rotated_at == 0:
            assert teacher is None
        else:
            assert teacher is not None
            assert same(teacher, recorder.student[rotated_at])
            assert not same(recorder.student[step], recorder.student[step - 1] if step > 1 else {})


def test_a_rotation_keeps_the_slots_addresses(configure: Callable[..., Config], recorder: Recorder) -> None:
    otfkd.runs.train(configure("experiment=otfkd", "schedule.every=3"))
    assert recorder.addresses[3] == recorder.addresses[6] == recorder.addresses[9] != []


def test_dropout_is_on_for_the_student_and_off_for_the_teacher_at_every_step(
    configure: Callable[..., Config], recorder: Recorder
) -> None:
    otfkd.runs.train(configure("experiment=otfkd", "schedule.every=3", "evaluation.every=2"))
    assert recorder.modes == [(True, False)] * 12
    assert recorder.repeats == [True] * 9


def test_no_teacher_weight_is_trained(configure: Callable[..., Config], recorder: Recorder, tiny_model: Any) -> None:
    otfkd.runs.train(configure("experiment=distill_static", f"teacher={tiny_model}", "teacher.pooler=mean"))
    first, last = recorder.teacher[1], recorder.teacher[12]
    assert first is not None
    assert last is not None
    assert same(first, last)


def test_best_rotates_in_the_best_snapshot_since_the_last_rotation(
    configure: Callable[..., Config], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([10.0, 30.0, 20.0, 5.0, 1.0, 2.0, 9.0, 9.0])  # after steps 1, 2, ... with a tie of two
    monkeypatch.setattr(otfkd.runs, "dev_score", lambda *_: next(scores, 0.0))
    result = otfkd.runs.train(
        configure(
            "experiment=otfkd",
            "schedule.every=4",
            "schedule.cache_every=1",
            "schedule.source=best",
            "evaluation.every=null",
        )
    )
    rows = [json.loads(line) for line in (result.folder / "rotations.jsonl").read_text().splitlines()]
    assert [(row["step"], row["snapshot_step"], row["dev"]) for row in rows] == [(4, 2, 30.0), (8, 8, 9.0)]
    teacher = recorder.teacher[5]
    assert teacher is not None
    assert same(teacher, recorder.student[2])


def test_evaluation_does_not_touch_training(
    configure: Callable[..., Config], recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    finals = []
    for cadence in ("3", "5", "null"):
        recorder.student.clear()
        otfkd.runs.train(configure("experiment=otfkd", "schedule.every=4", f"evaluation.every={cadence}"))
        finals.append(recorder.student[12])
    assert same(finals[0], finals[1])
    assert same(finals[0], finals[2])


def test_with_weight_zero_a_teacher_changes_nothing(
    configure: Callable[..., Config], recorder: Recorder, tiny_model: Any
) -> None:
    otfkd.runs.train(configure("experiment=simcse"))
    plain = recorder.student[12]
    otfkd.runs.train(
        configure("experiment=distill_static", f"teacher={tiny_model}", "teacher.pooler=cls", "objective.kd_weight=0.0")
    )
    assert same(recorder.student[12], plain)
    otfkd.runs.train(configure("experiment=distill_static", f"teacher={tiny_model}", "teacher.pooler=cls"))
    assert not same(recorder.student[12], plain)


def test_snapshots_are_pruned_to_those_kept_and_the_teachers(configure: Callable[..., Config]) -> None:
    result = otfkd.runs.train(configure("experiment=otfkd", "schedule.every=1", "schedule.keep=2"))
    left = sorted(path.stem for path in (result.folder / "snapshots").iterdir())
    assert left == ["step-00000010", "step-00000011"]


def test_each_step_sees_the_planned_lines_once(configure: Callable[..., Config], recorder: Recorder) -> None:
    otfkd.runs.train(configure("experiment=simcse", "trainer.accumulate=2", "trainer.max_steps=7"))
    assert len(recorder.lines) == 14
    assert len({line for lines in recorder.lines for line in lines}) == 56  # of 60: not yet a second pass
