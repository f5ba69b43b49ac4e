"""The teacher slot: frozen, always evaluating, never an alias, and absent from state dicts."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from otfkd.config.sections import Pooler
from otfkd.data.collate import Batch, Tokens, pad
from otfkd.distill.teacher import TeacherSlot
from otfkd.models.encoder import Encoder
from otfkd.models.registry import load_encoder
from tests.support.models import WORDS, make_model
from tests.support.weights import same


def tokens_of(encoder: Encoder, sentences: list[str]) -> Tokens:
    return pad([encoder.tokenizer(sentence)["input_ids"] for sentence in sentences], encoder.pad_id)


SENTENCES = ["the cat sat on the mat", "a red bird flew home", "window"]


@pytest.fixture
def batch(tiny_encoder: Encoder) -> Batch:
    return Batch((0, 1, 2), tokens_of(tiny_encoder, SENTENCES))


@pytest.fixture
def slot(tiny_encoder: Encoder) -> TeacherSlot:
    slot = TeacherSlot()
    slot.install([tiny_encoder])
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
    (member,) = slot.members
    assert isinstance(member, Encoder)
    return member


def taught(slot: TeacherSlot, batch: Batch) -> Tensor:
    """What the slot's one member makes of a batch."""
    (output,) = slot(batch.student, batch.teachers)
    assert isinstance(output, Tensor)
    return output


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def disturb(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)


# Frozen and evaluating


def test_a_student_in_training_is_installed_in_evaluation_mode(tiny_encoder: Encoder) -> None:
    slot = TeacherSlot()
    slot.install([tiny_encoder.train()])
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
        target.put(0, tiny_encoder, tiny_encoder.state_dict())
        assert not any(part.training for part in held(target).modules())


def test_nothing_in_the_slot_is_trainable(slot: TeacherSlot, tiny_encoder: Encoder) -> None:
    slot.put(0, tiny_encoder, tiny_encoder.state_dict())
    assert not any(parameter.requires_grad for parameter in slot.parameters())
    assert all(parameter.requires_grad for parameter in tiny_encoder.parameters())


def test_outputs_repeat_while_the_students_do_not(slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch) -> None:
    pair(tiny_encoder, slot).train()
    assert torch.equal(taught(slot, batch), taught(slot, batch))
    assert not torch.equal(tiny_encoder(batch.student), tiny_encoder(batch.student))


def test_outputs_carry_no_gradient_even_if_someone_unfreezes_all(
    slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch
) -> None:
    pair(tiny_encoder, slot).requires_grad_(True)
    assert not taught(slot, batch).requires_grad


def test_outputs_are_the_encoders_own(slot: TeacherSlot, tiny_encoder: Encoder, batch: Batch) -> None:
    with torch.no_grad():
        assert torch.equal(taught(slot, batch), tiny_encoder.eval()(batch.student))


def test_slot_is_filled_by_an_install(tiny_encoder: Encoder) -> None:
    slot = TeacherSlot()
    assert not slot.filled
    slot.install([tiny_encoder])
    assert slot.filled


# A copy, never an alias


@pytest.mark.parametrize("way", ["install", "put into an empty slot", "put in place"])
def test_training_on_does_not_reach_the_teacher(tiny_encoder: Encoder, batch: Batch, way: str) -> None:
    slot = TeacherSlot()
    if way != "put into an empty slot":
        slot.install([tiny_encoder])
    if way != "install":
        slot.put(0, tiny_encoder, tiny_encoder.state_dict())
    before, output = copies(held(slot)), taught(slot, batch)
    disturb(tiny_encoder)
    assert same(before, held(slot).state_dict())
    assert torch.equal(taught(slot, batch), output)


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
    slot.put(0, tiny_encoder, weights)
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
    slot.install([first])
    before = held(slot)
    slot.put(0, tiny_encoder, tiny_encoder.state_dict())
    assert held(slot) is not before
    assert held(slot).tokenizer.get_vocab() == tiny_encoder.tokenizer.get_vocab()
    with torch.no_grad():
        assert torch.equal(taught(slot, batch), tiny_encoder(batch.student))


@pytest.mark.parametrize("spoil", ["missing", "foreign"])
def test_weights_of_another_model_are_refused(slot: TeacherSlot, tiny_encoder: Encoder, spoil: str) -> None:
    weights = tiny_encoder.state_dict()
    name = next(iter(weights))
    weights[f"foreign.{name}"] = weights[name]
    if spoil == "missing":
        del weights[f"foreign.{name}"], weights[name]
    with pytest.raises(RuntimeError, match=name):
        slot.put(0, tiny_encoder, weights)


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


def own_batch(student: Encoder, *externals: Encoder) -> Batch:
    """A batch that external members read by their own tokenizers."""
    return Batch(
        (0, 1, 2), tokens_of(student, SENTENCES), tuple(tokens_of(external, SENTENCES) for external in externals)
    )


@pytest.mark.parametrize("reads", [0, None])
def test_a_member_reads_its_own_tokens_where_it_was_told_to(
    tiny_encoder: Encoder, other: Callable[..., Encoder], reads: int | None
) -> None:
    external = other(words=WORDS[::-1])
    slot = TeacherSlot()
    slot.install([external], reads=[reads])
    batch = own_batch(tiny_encoder, external)
    with torch.no_grad():
        own, students = external(batch.teachers[0]), external(batch.student)
    assert not torch.equal(own, students)
    assert torch.equal(taught(slot, batch), own if reads == 0 else students)


@pytest.mark.parametrize("rebuilt", [True, False])
def test_a_student_that_rotates_in_reads_the_students_tokens(
    tiny_encoder: Encoder, other: Callable[..., Encoder], rebuilt: bool
) -> None:
    external = other(words=WORDS[::-1] if rebuilt else WORDS)
    slot = TeacherSlot()
    slot.install([external], reads=[0])
    slot.put(0, tiny_encoder, tiny_encoder.state_dict())
    batch = Batch((0, 1, 2), tokens_of(tiny_encoder, SENTENCES), (tokens_of(external, SENTENCES[::-1]),))
    with torch.no_grad():
        assert torch.equal(taught(slot, batch), tiny_encoder(batch.student))


# Several members


def test_members_answer_in_order_each_from_what_it_reads(tiny_encoder: Encoder, other: Callable[..., Encoder]) -> None:
    wide, reversed_words = other(width=16), other(words=WORDS[::-1])
    slot = TeacherSlot()
    slot.install([tiny_encoder, reversed_words, wide], reads=[None, 1, 0])
    batch = own_batch(tiny_encoder, wide, reversed_words)
    with torch.no_grad():
        expected = [
            tiny_encoder.eval()(batch.student), reversed_words(batch.teachers[1]), wide(batch.teachers[0]),
        ]  # fmt: skip
    outputs = slot(batch.student, batch.teachers)
    assert [output.shape for output in outputs] == [(3, 32), (3, 32), (3, 16)]
    assert all(torch.equal(*pair) for pair in zip(outputs, expected, strict=True))
    for only in range(3):
        (output,) = slot(batch.student, batch.teachers, only=only)
        assert torch.equal(output, expected[only])


@pytest.mark.parametrize(
    ("given", "shares"), [(None, [1 / 3] * 3), ([1.0, 1.0, 2.0], [0.25, 0.25, 0.5]), ([5.0, 3.0, 2.0], [0.5, 0.3, 0.2])]
)
def test_shares_add_up_to_one(tiny_encoder: Encoder, given: list[float] | None, shares: list[float]) -> None:
    slot = TeacherSlot()
    slot.install([tiny_encoder] * 3, given)
    assert slot.weights == pytest.approx(shares, abs=1e-15)
    assert slot.reads == [None] * 3


def test_one_module_given_twice_is_copied_twice(tiny_encoder: Encoder) -> None:
    slot = TeacherSlot()
    slot.install([tiny_encoder] * 2)
    addresses = {tensor.data_ptr() for member in slot.members for tensor in member.parameters()}
    assert len(addresses) == 2 * len(list(tiny_encoder.parameters()))


def test_put_appends_at_the_next_position_and_leaves_the_others(
    tiny_encoder: Encoder, other: Callable[..., Encoder]
) -> None:
    slot, external = TeacherSlot(), other(width=16)
    slot.install([external], reads=[0])
    slot.put(1, tiny_encoder.train(), tiny_encoder.state_dict())
    assert same(slot.members[0].state_dict(), external.state_dict())
    assert same(slot.members[1].state_dict(), tiny_encoder.state_dict())
    assert slot.reads == [0, None]
    assert not any(part.training for part in slot.modules())
    assert not any(parameter.requires_grad for parameter in slot.parameters())
    disturb(tiny_encoder)
    assert not same(slot.members[1].state_dict(), tiny_encoder.state_dict())


def test_put_changes_one_member_only(tiny_encoder: Encoder, other: Callable[..., Encoder]) -> None:
    slot, weights = TeacherSlot(), other().state_dict()
    slot.install([tiny_encoder] * 3)
    slot.put(1, tiny_encoder, weights)
    assert [same(member.state_dict(), weights) for member in slot.members] == [False, True, False]


def test_keep_drops_the_last_and_moves_nothing(tiny_encoder: Encoder, other: Callable[..., Encoder]) -> None:
    slot = TeacherSlot()
    slot.install([tiny_encoder, other(), tiny_encoder], reads=[None, 0, 1])
    before = list(slot.members)
    addresses = [tensor.data_ptr() for member in before[:2] for tensor in member.parameters()]
    slot.keep(2)
    assert list(slot.members) == before[:2]
    assert [tensor.data_ptr() for tensor in slot.parameters()] == addresses
    assert slot.reads == [None, 0]
    assert not any(part.training for part in slot.train().modules())
    assert slot.state_dict() == {}


def test_strict_loading_leaves_every_member(tiny_encoder: Encoder, other: Callable[..., Encoder]) -> None:
    slot = TeacherSlot()
    slot.install([tiny_encoder, other(width=16)])
    before = copies(slot.members)
    trained = copy.deepcopy(tiny_encoder)
    disturb(trained)
    pair(tiny_encoder, slot).load_state_dict(pair(trained, TeacherSlot()).state_dict(), strict=True)
    assert same(slot.members.state_dict(), before)


# What any module may be


class Plain(nn.Module):
    """A student that is no Encoder."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.layer = nn.Linear(2, width)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layer(inputs)
        return output


@pytest.mark.parametrize(("width", "kept"), [(3, True), (4, False)])
def test_any_module_rotates_in_place_where_it_fits(width: int, kept: bool) -> None:
    slot, student = TeacherSlot(), Plain(width)
    slot.install([Plain(3)])
    before = slot.members[0]
    slot.put(0, student, student.state_dict())
    assert (slot.members[0] is before) == kept
    inputs = torch.ones(1, 2)
    assert torch.equal(slot(inputs)[0], student(inputs).detach())


# Draws


def drawn(weights: list[float]) -> TeacherSlot:
    slot = TeacherSlot()
    slot.install([nn.Identity() for _ in weights], weights)
    return slot


def test_a_draw_depends_on_its_seed_alone() -> None:
    slot, twin = drawn([1.0, 2.0, 3.0]), drawn([1.0, 2.0, 3.0])
    state = torch.get_rng_state()
    first = [slot.draw(seed) for seed in range(50)]
    assert first == [twin.draw(seed) for seed in reversed(range(50))][::-1]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [1.0, 2.0, 7.0]])
def test_draws_come_as_often_as_the_shares_say(weights: list[float]) -> None:
    slot, count = drawn(weights), 4000
    counts = [0] * len(weights)
    for seed in range(count):
        counts[slot.draw(seed)] += 1
    for share, seen in zip(slot.weights, counts, strict=True):
        deviation = (count * share * (1 - share)) ** 0.5
        assert abs(seen - count * share) <= 4 * deviation  # four standard deviations; the seeds are fixed


# When it was filled


def test_an_empty_slot_was_never_filled_and_keeps_its_first_date() -> None:
    slot = TeacherSlot()
    dates = [slot.first_installed]
    for step in (4, 8):
        slot.date(step)
        dates.append(slot.first_installed)
    assert (dates, slot.installed) == ([None, 4, 4], 8)


def test_an_initial_teacher_has_been_there_since_step_0() -> None:
    slot = TeacherSlot()
    slot.install([nn.Linear(2, 2)])
    slot.date(3)
    assert (slot.first_installed, slot.installed) == (0, 3)
