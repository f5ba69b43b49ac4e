"""The teacher slot: frozen, always evaluating, never an alias, and absent from state dicts."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from otfkd.config import Pooler
from otfkd.data.collate import Batch, Tokens, pad
from otfkd.distill.teacher import TeacherSlot
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from tests.conftest import WORDS, make_model


def tokens_of(encoder: Encoder, sentences: list[str]) -> Tokens:
    return pad([encoder.tokenizer(sentence)["input_ids"] for sentence in sentences], encoder.pad_id)


SENTENCES = ["the cat sat on the mat", "a red bird flew home", "window"]


@pytest.fixture
def batch(tiny_encoder: Encoder) -> Batch:
    return Batch((0, 1, 2), tokens_of(tiny_encoder, SENTENCES), None)


@pytest.fixture
def slot(tiny_encoder: Encoder) -> TeacherSlot:
    slot = TeacherSlot()
    slot.install(tiny_encoder)
    return slot


@pytest.fixture
def other(tmp_path: Path) -> Callable[..., Encoder]:
    """Make an encoder of other weights, and of another shape where told."""

    def make(pooler: Pooler = "cls", width: int = 32, layers: int = 2, words: list[str] = WORDS) -> Encoder:
        return load_encoder(make_model(tmp_path / "other", width=width, layers=layers, words=words, seed=1), pooler)

    return make


def pair(student: Encoder, slot: TeacherSlot) -> nn.ModuleDict:
    return nn.ModuleDict({"student": student, "teacher": slot})


def held(slot: TeacherSlot) -> Encoder:
    assert slot.encoder is not None
    return slot.encoder


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def disturb(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)


# Frozen and evaluating


def test_a_student_in_training_is_installed_in_evaluation_mode(tiny_encoder: Encoder) -> None:
    slot = TeacherSlot()
    slot.install(tiny_encoder.train())
    assert not any(part.training for part in slot.modules() if part is not slot)
    assert all(part.training for part in tiny_encoder.modules())


def test_training_mode_never_reaches_the_slot(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    module = pair(tiny_encoder, slot)
    for ask in (slot.train, module.train, lambda: module.eval().train(), lambda: module.train(True)):
        ask()
        assert not any(part.training for part in slot.modules())
    assert all(part.training for part in tiny_encoder.modules())


def test_weights_are_installed_in_evaluation_mode(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    tiny_encoder.train()
    for target in (slot, TeacherSlot()):
        target.install_weights(tiny_encoder, tiny_encoder.state_dict())
        assert not any(part.training for part in held(target).modules())


def test_nothing_in_the_slot_is_trainable(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    slot.install_weights(tiny_encoder, tiny_encoder.state_dict())
    assert not any(parameter.requires_grad for parameter in slot.parameters())
    assert all(parameter.requires_grad for parameter in tiny_encoder.parameters())


def test_outputs_repeat_while_the_students_do_not(slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch) -> None:
    pair(tiny_encoder, slot).train()
    assert torch.equal(slot(batch), slot(batch))
    assert not torch.equal(tiny_encoder(batch.student), tiny_encoder(batch.student))


def test_outputs_carry_no_gradient_even_if_someone_unfreezes_all(
    slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch
) -> None:
    pair(tiny_encoder, slot).requires_grad_(True)
    assert not slot(batch).requires_grad


def test_outputs_are_the_encoders_own(slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch) -> None:
    with torch.no_grad():
        assert torch.equal(slot(batch), tiny_encoder.eval()(batch.student))


def test_slot_is_filled_by_an_install(tiny_encoder: Encoder) -> None:
    slot = TeacherSlot()
    assert not slot.filled
    slot.install(tiny_encoder)
    assert slot.filled


# A copy, never an alias


@pytest.mark.parametrize("way", ["install", "install_weights into an empty slot", "install_weights in place"])
def test_training_on_does_not_reach_the_teacher(tiny_encoder: Encoder, batch: Batch, way: str) -> None:
    slot = TeacherSlot()
    if way != "install_weights into an empty slot":
        slot.install(tiny_encoder)
    if way != "install":
        slot.install_weights(tiny_encoder, tiny_encoder.state_dict())
    before, output = copies(held(slot)), slot(batch)
    disturb(tiny_encoder)
    assert same(before, held(slot).state_dict())
    assert torch.equal(slot(batch), output)


def test_no_storage_is_shared_with_the_source(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    mine = {tensor.untyped_storage().data_ptr() for tensor in [*held(slot).parameters(), *held(slot).buffers()]}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in [*tiny_encoder.parameters(), *tiny_encoder.buffers()]}
    assert len(mine) > 30
    assert not mine & theirs


# Exchange of weights


def test_weights_that_fit_are_installed_in_place(
    slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch, other: Callable[..., Encoder]
) -> None:
    encoder, weights = held(slot), other().state_dict()
    addresses = [tensor.data_ptr() for tensor in [*encoder.parameters(), *encoder.buffers()]]
    slot.install_weights(tiny_encoder, weights)
    assert held(slot) is encoder
    assert [tensor.data_ptr() for tensor in [*encoder.parameters(), *encoder.buffers()]] == addresses
    assert same(encoder.state_dict(), weights)


@pytest.mark.parametrize(
    "difference",
    [{"pooler": "mean"}, {"width": 16}, {"layers": 1}, {"words": [*WORDS, "zebra"]}, {"words": WORDS[::-1]}],
    ids=["pooler", "width", "layers", "vocabulary", "order of the vocabulary"],
)
def test_slot_is_rebuilt_where_the_student_differs_from_its_teacher(
    tiny_encoder: Encoder, batch: Batch, other: Callable[..., Encoder], difference: dict[str, object]
) -> None:
    slot, first = TeacherSlot(), other(**difference)
    slot.install(first)
    before = held(slot)
    slot.install_weights(tiny_encoder, tiny_encoder.state_dict())
    assert held(slot) is not before
    assert held(slot).tokenizer.get_vocab() == tiny_encoder.tokenizer.get_vocab()
    with torch.no_grad():
        assert torch.equal(slot(batch), tiny_encoder(batch.student))


@pytest.mark.parametrize("spoil", ["missing", "foreign"])
def test_weights_of_another_model_are_refused(slot: TeacherSlot, tiny_encoder: Encoder, spoil: str) -> None:
    weights = tiny_encoder.state_dict()
    name = next(iter(weights))
    weights[f"foreign.{name}"] = weights[name]
    if spoil == "missing":
        del weights[f"foreign.{name}"], weights[name]
    with pytest.raises(RuntimeError, match=name):
        slot.install_weights(tiny_encoder, weights)


# State dicts


def test_state_dicts_do_not_know_the_teacher(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    names = set(pair(tiny_encoder, slot).state_dict())
    assert names == {f"student.{name}" for name in tiny_encoder.state_dict()}
    assert slot.state_dict() == {}


@pytest.mark.parametrize("saved_with_teacher", [True, False])
def test_strict_loading_restores_the_student_and_leaves_the_teacher(
    slot: TeacherSlot, tiny_encoder: Encoder, other: Callable[..., Encoder], saved_with_teacher: bool
) -> None:
    trained = other()
    saved = pair(trained, copy.deepcopy(slot) if saved_with_teacher else TeacherSlot()).state_dict()
    names, teacher = set(saved), copies(held(slot))
    pair(tiny_encoder, slot).load_state_dict(saved, strict=True)
    assert same(tiny_encoder.state_dict(), trained.state_dict())
    assert same(held(slot).state_dict(), teacher)
    assert set(saved) == names


def test_strict_loading_works_with_an_empty_slot(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    saved = pair(tiny_encoder, slot).state_dict()
    result = pair(copy.deepcopy(tiny_encoder), TeacherSlot()).load_state_dict(saved, strict=True)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("spoil", ["missing", "foreign"])
def test_strict_loading_names_what_does_not_match(
    slot: TeacherSlot, tiny_encoder: Encoder, spoil: str, filled: bool
) -> None:
    module = pair(tiny_encoder, slot if filled else TeacherSlot())
    saved = module.state_dict()
    if spoil == "missing":
        name = next(iter(saved))
        del saved[name]
    else:
        name = "student.foreign.weight"
        saved[name] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=name):
        module.load_state_dict(saved, strict=True)


def test_a_file_of_another_prefix_is_refused(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    module = pair(tiny_encoder, slot)
    saved = {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"model\.student"):
        module.load_state_dict(saved, strict=True)


# Tokens


@pytest.mark.parametrize("own_tokens", [True, False])
def test_the_teacher_reads_its_own_tokens_where_it_was_told_to(
    tiny_encoder: Encoder, other: Callable[..., Encoder], own_tokens: bool
) -> None:
    external = other(words=WORDS[::-1])
    slot = TeacherSlot()
    slot.install(external, own_tokens=own_tokens)
    batch = Batch((0, 1, 2), tokens_of(tiny_encoder, SENTENCES), tokens_of(external, SENTENCES))
    assert batch.teacher is not None
    read = batch.teacher if own_tokens else batch.student
    with torch.no_grad():
        own, students = external(batch.teacher), external(batch.student)
    assert not torch.equal(own, students)
    assert torch.equal(slot(batch), external(read).detach())


@pytest.mark.parametrize("rebuilt", [True, False])
def test_a_student_that_rotates_in_reads_the_students_tokens(
    tiny_encoder: Encoder, other: Callable[..., Encoder], rebuilt: bool
) -> None:
    external = other(words=WORDS[::-1] if rebuilt else WORDS)
    slot = TeacherSlot()
    slot.install(external, own_tokens=True)
    slot.install_weights(tiny_encoder, tiny_encoder.state_dict())
    batch = Batch((0, 1, 2), tokens_of(tiny_encoder, SENTENCES), tokens_of(external, SENTENCES[::-1]))
    with torch.no_grad():
        assert torch.equal(slot(batch), tiny_encoder(batch.student))


def test_a_batch_without_own_tokens_is_read_as_the_student_does(tiny_encoder: Encoder, batch: Batch) -> None:
    slot = TeacherSlot()
    slot.install(tiny_encoder, own_tokens=True)
    assert torch.equal(slot(batch), tiny_encoder(batch.student).detach())
