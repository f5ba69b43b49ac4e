"""Who teaches and with what share, against a slow simulation that keeps a plain list of names."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from otfkd.distill.pool import Pool
from otfkd.distill.snapshots import SnapshotCache
from otfkd.distill.teacher import TeacherSlot
from tests.support.schedules import make_schedule

DEVS = [70.0, 72.5, 71.0, 75.0, 74.0, 60.0]
EXTERNAL_DEVS = {"A": 73.0, "B": 69.0}


class One(nn.Module):
    """A module known by its only number."""

    def __init__(self, value: float):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), float(value)))


def value(member: nn.Module) -> float:
    assert isinstance(member, One)
    return float(member.weight.detach())


EXTERNAL = {-1.0: "A", -2.0: "B"}
NUMBER = {name: number for number, name in EXTERNAL.items()}


def dev_of_external(member: Any) -> float:
    return EXTERNAL_DEVS[EXTERNAL[value(member)]]


def begun(
    retain: str, aggregate: str, initial: dict[str, float], size: int = 2, **changes: Any
) -> tuple[Pool, TeacherSlot]:
    slot = TeacherSlot()
    if initial:
        slot.install([One(NUMBER[name]) for name in initial], list(initial.values()))
    pool = Pool(make_schedule(retain=retain, aggregate=aggregate, pool_size=size, **changes))
    pool.begin(slot, dev_of_external)
    return pool, slot


def simulate(retain: str, aggregate: str, initial: dict[str, float], size: int, count: int) -> dict[str, float]:
    """Names and shares after `count` rotations, in no order: the initial teacher's letters, snapshots by number."""
    kept, queue = dict(initial), list(range(count))
    if retain == "pool_initial":
        first = [] if initial else queue[:1]
        rest = queue if initial else queue[1:]
        queue = [*first, *rest[-size:]]
    else:
        queue = queue[-1:] if retain == "replace" else queue[-size:]
        if count:
            kept = {}
    total = sum(kept.values())
    shares = {name: weight / total for name, weight in kept.items()} | {str(at): 1.0 for at in queue}
    if aggregate == "dev_weighted":
        for name in shares:
            shares[name] *= math.exp((EXTERNAL_DEVS[name] if name in EXTERNAL_DEVS else DEVS[int(name)]) - 70)
    whole = sum(shares.values())
    return {name: share / whole for name, share in shares.items()}


def seen(slot: TeacherSlot) -> dict[str, float]:
    names = [EXTERNAL.get(value(member)) or str(int(value(member))) for member in slot.members]
    assert len(set(names)) == len(names) == len(slot.weights)
    return dict(zip(names, slot.weights, strict=True))


INITIAL = [{}, {"A": 1.0}, {"A": 1.0, "B": 1.0}, {"A": 1.0, "B": 3.0}]


@pytest.mark.parametrize("retain", ["replace", "pool", "pool_initial"])
@pytest.mark.parametrize("aggregate", ["mean", "dev_weighted", "sample"])
@pytest.mark.parametrize("initial", INITIAL, ids=["self", "one", "two", "weighted"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_members_and_shares_are_those_of_a_simulation(
    retain: str, aggregate: str, initial: dict[str, float], size: int, tmp_path: Path
) -> None:
    pool, slot = begun(retain, aggregate, initial, size)
    cache = SnapshotCache(tmp_path)
    assert seen(slot) == pytest.approx(simulate(retain, aggregate, initial, size, 0))
    for at, dev in enumerate(DEVS):
        student = One(at)
        snapshot = cache.save(student.state_dict(), 10 * (at + 1), dev)
        assert pool.next_place() == place_and_count(retain, initial, size, at)
        pool.add(slot, student, snapshot, cache)
        expected = simulate(retain, aggregate, initial, size, at + 1)
        assert seen(slot) == pytest.approx(expected)
        assert sum(slot.weights) == pytest.approx(1.0)
        assert pool.names == {f"step-{10 * (int(name) + 1):08d}" for name in expected if name.isdigit()}
        assert len(pool.places) == len(slot.members) == len(slot.reads)


def place_and_count(retain: str, initial: dict[str, float], size: int, before: int) -> tuple[int, int]:
    """Where rotation number `before` goes: a queue's slots are filled in order, then the oldest is written over."""
    if retain == "replace":
        return 0, 1
    if retain == "pool":
        return before % size, min(before + 1, size)
    offset = len(initial) or 1
    queued = before if initial else before - 1
    return (0, 1) if queued < 0 else (offset + queued % size, offset + min(queued + 1, size))


@pytest.mark.parametrize("retain", ["replace", "pool", "pool_initial"])
@pytest.mark.parametrize("aggregate", ["mean", "dev_weighted"])
@pytest.mark.parametrize("initial", INITIAL, ids=["self", "one", "two", "weighted"])
@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_a_restored_pool_teaches_as_before_and_goes_on(
    retain: str, aggregate: str, initial: dict[str, float], cut: int, tmp_path: Path
) -> None:
    cache = SnapshotCache(tmp_path)
    pool, slot = begun(retain, aggregate, initial)
    snapshots = [cache.save(One(at).state_dict(), at + 1, dev) for at, dev in enumerate(DEVS)]
    cache.join()
    for snapshot in snapshots[:cut]:
        pool.add(slot, One(0), snapshot, cache)
    again, other = TeacherSlot(), Pool(pool.schedule)
    if initial:
        again.install([One(NUMBER[name]) for name in initial], list(initial.values()))
    other.load_state_dict(pool.state_dict())
    other.restore(again, One(0), cache)
    assert seen(again) == seen(slot)
    for snapshot in snapshots[cut:]:
        pool.add(slot, One(0), snapshot, cache)
        other.add(again, One(0), snapshot, cache)
        assert seen(again) == seen(slot)
        assert [value(member) for member in again.members] == [value(member) for member in slot.members]
        assert other.dev == pool.dev


def test_a_member_that_stays_keeps_its_address(tmp_path: Path) -> None:
    pool, slot = begun("pool", "mean", {"A": 1.0})
    cache, addresses = SnapshotCache(tmp_path), []
    for at, dev in enumerate(DEVS):
        pool.add(slot, One(at), cache.save(One(at).state_dict(), at + 1, dev), cache)
        addresses.append([tensor.data_ptr() for tensor in slot.parameters()])
    assert all(after == addresses[1] for after in addresses[1:])
    assert addresses[0] == addresses[1][:1]


@pytest.mark.parametrize("retain", ["replace", "pool", "pool_initial"])
def test_the_gates_reference_is_the_best_member(retain: str, tmp_path: Path) -> None:
    cache = SnapshotCache(tmp_path)
    pool, slot = begun(retain, "mean", {"A": 1.0, "B": 1.0}, gate=0.0)
    assert pool.dev == 73.0
    for at, dev in enumerate(DEVS):
        pool.add(slot, One(at), cache.save(One(at).state_dict(), at + 1, dev), cache)
        assert pool.dev == max(
            EXTERNAL_DEVS[name] if name in EXTERNAL_DEVS else DEVS[int(name)]
            for name in simulate(retain, "mean", {"A": 1.0, "B": 1.0}, 2, at + 1)
        )


def test_an_empty_slot_has_no_reference_and_no_shares() -> None:
    pool, slot = begun("replace", "dev_weighted", {}, gate=0.0)
    assert pool.dev is None
    assert slot.weights == []


@pytest.mark.parametrize(
    ("aggregate", "gate", "asked"),
    [("mean", None, 0), ("sample", None, 0), ("dev_weighted", None, 2), ("mean", 1.0, 2)],
)
def test_the_initial_teacher_is_scored_only_where_someone_asks(aggregate: str, gate: float | None, asked: int) -> None:
    slot, calls = TeacherSlot(), []
    slot.install([One(-1.0), One(-2.0)])

    def evaluate(member: Any) -> float:
        calls.append(member)
        return dev_of_external(member)

    Pool(make_schedule(aggregate=aggregate, gate=gate)).begin(slot, evaluate)
    assert calls == list(slot.members)[:asked]


def test_dev_scores_far_apart_leave_finite_shares(tmp_path: Path) -> None:
    pool, slot = begun("pool", "dev_weighted", {"A": 1.0})
    cache = SnapshotCache(tmp_path)
    for at, dev in enumerate((-100.0, 100.0)):
        pool.add(slot, One(at), cache.save(One(at).state_dict(), at + 1, dev), cache)
    assert slot.weights == pytest.approx([0.0, 1.0], abs=1e-12)
