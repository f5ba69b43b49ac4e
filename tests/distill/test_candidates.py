"""Which snapshot a rotation gets, by source; what is not finite never teaches."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from otfkd.distill.candidates import Candidates
from otfkd.distill.snapshots import SnapshotCache
from tests.support.schedules import make_schedule


class Student(nn.Module):
    """One weight and a counter."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.register_buffer("count", torch.tensor(0))

    def at(self, value: float, count: int = 0) -> "Student":
        with torch.no_grad():
            self.weight.fill_(value)
            self.count.fill_(count)
        return self


def score(student: Any) -> float:
    """A dev score that names the weights it was asked of."""
    assert isinstance(student, Student)
    return float(student.weight.detach()[0]) * 10


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Candidates]:
    return lambda source, **changes: Candidates(
        make_schedule(source=source, **changes), SnapshotCache(tmp_path), score, 100
    )


def chosen(candidates: Candidates, student: Student, step: int, dev: float | None = None) -> tuple[int, float]:
    """Step and weight of what is chosen."""
    snapshot = candidates.choose(student, step, dev)
    assert snapshot is not None
    weights = candidates.cache.load(snapshot)["weight"]
    assert torch.equal(weights, weights[:1].expand(3))
    return snapshot.step, float(weights[0])


# Current


@pytest.mark.parametrize("cached", [[], [2], [4], [2, 4]])
def test_current_is_the_student_of_the_step(make: Callable[..., Candidates], cached: list[int]) -> None:
    candidates, student = make("current"), Student()
    for step in cached:
        candidates.take(student.at(step), step, None)
    assert chosen(candidates, student.at(4), 4) == (4, 4.0)


def test_a_snapshot_of_the_step_is_not_written_twice(make: Callable[..., Candidates]) -> None:
    candidates, student = make("current"), Student()
    candidates.take(student.at(1.0), 3, 5.0)
    first = candidates.taken[0]
    assert candidates.choose(student, 3, None) is first


# Best


@pytest.mark.parametrize(
    ("devs", "best"),
    [
        ([1.0, 3.0, 2.0], 2),
        ([3.0, 1.0, 2.0], 1),
        ([1.0, 2.0, 3.0], 3),
        ([3.0, 3.0, 1.0], 2),
        ([2.0, 3.0, 3.0], 3),
        ([5.0, 5.0, 5.0], 3),
        ([-1.0, -2.0, -3.0], 1),
    ],
)
def test_best_has_the_highest_dev_and_of_equals_the_latest(
    make: Callable[..., Candidates], devs: list[float], best: int
) -> None:
    candidates, student = make("best"), Student()
    for step, dev in enumerate(devs, 1):
        candidates.take(student.at(step), step, dev)
    assert chosen(candidates, student, 3, devs[-1]) == (best, float(best))


def test_best_forgets_what_came_before_the_last_rotation(make: Callable[..., Candidates]) -> None:
    candidates, student = make("best"), Student()
    candidates.take(student.at(1), 1, 90.0)
    candidates.rotated()
    candidates.take(student.at(2), 2, 10.0)
    assert chosen(candidates, student, 2, 10.0) == (2, 2.0)


# Average


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_average_is_the_exact_mean_of_the_last_snapshots(make: Callable[..., Candidates], last: int) -> None:
    candidates, student, seen = make("average", average_last=last), Student(), []
    for step in range(1, 6):
        value = float(2**step)  # sums of powers of two are exact
        candidates.take(student.at(value, step), step, None)
        seen.append(value)
        members = seen[-last:]
        snapshot = candidates.choose(student, step, None)
        assert snapshot is not None
        weights = candidates.cache.load(snapshot)
        expected = torch.full((3,), sum(members), dtype=torch.float64) / len(members)
        torch.testing.assert_close(weights["weight"].double(), expected, rtol=1e-7, atol=0)
        assert int(weights["count"]) == step  # of whole numbers there is no mean
        assert (snapshot.step, snapshot.id) == (step, f"{'average' if len(members) > 1 else 'step'}-{step:08d}")
        candidates.rotated()  # changes nothing: an average goes on over rotations


def test_average_includes_the_step_itself_once(make: Callable[..., Candidates]) -> None:
    candidates, student = make("average", average_last=3), Student()
    candidates.take(student.at(1.0), 1, None)
    assert chosen(candidates, student.at(3.0), 2) == (2, 2.0)
    assert chosen(candidates, student.at(3.0), 2) == (2, 2.0)
    assert [snapshot.step for snapshot in candidates.taken] == [1, 2]


def test_an_average_does_not_go_on_over_a_student_that_begins_again(make: Callable[..., Candidates]) -> None:
    candidates, student = make("average", average_last=3), Student()
    candidates.take(student.at(1.0), 1, None)
    candidates.take(student.at(2.0), 2, None)
    candidates.begin_again(student)
    candidates.take(student.at(6.0), 3, None)
    assert chosen(candidates, student.at(8.0), 4) == (4, 7.0)


# Ema


def test_ema_is_the_shadow_and_not_the_student(make: Callable[..., Candidates]) -> None:
    candidates, student = make("ema", ema={"decay": 0.75}), Student()
    assert candidates.shadow is not None
    candidates.shadow.start(student.at(0.0))
    candidates.shadow.update(student.at(8.0), 1)
    assert chosen(candidates, student, 1) == (1, 2.0)
    candidates.shadow.update(student, 2)
    assert chosen(candidates, student, 2) == (2, 3.5)


@pytest.mark.parametrize("source", ["current", "best", "average"])
def test_only_ema_keeps_a_shadow(make: Callable[..., Candidates], source: str) -> None:
    assert make(source).shadow is None


# Scores of weights that no student had


@pytest.mark.parametrize(("changes", "dev"), [({}, None), ({"gate": 0.0}, 20.0), ({"aggregate": "dev_weighted"}, 20.0)])
@pytest.mark.parametrize("source", ["average", "ema"])
def test_made_weights_are_scored_themselves_where_someone_asks(
    make: Callable[..., Candidates], source: str, changes: dict[str, Any], dev: float | None
) -> None:
    candidates, student = make(source, average_last=2, ema={"decay": 0.5}, **changes), Student()
    if candidates.shadow is not None:
        candidates.shadow.start(student.at(1.0))
        candidates.shadow.update(student.at(3.0), 2)
    candidates.take(student.at(1.0), 1, 10.0)
    candidates.take(student.at(3.0), 2, 30.0)
    snapshot = candidates.choose(student, 2, 30.0)
    assert snapshot is not None
    assert snapshot.dev == dev
    assert float(student.weight.detach()[0]) == 3.0


# What is not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("source", ["current", "best", "average", "ema"])
def test_a_student_that_diverged_never_teaches(make: Callable[..., Candidates], source: str, bad: float) -> None:
    candidates, student = make(source), Student()
    if candidates.shadow is not None:
        candidates.shadow.start(student)
        candidates.shadow.update(student.at(bad), 1)
    assert candidates.choose(student.at(bad), 1, None) is None
    assert not list(candidates.cache.folder.glob("*.safetensors"))


@pytest.mark.parametrize(("source", "expected"), [("best", 1), ("current", None), ("average", None)])
def test_best_alone_falls_back_to_an_earlier_student(
    make: Callable[..., Candidates], source: str, expected: int | None
) -> None:
    candidates, student = make(source), Student()
    candidates.take(student.at(1.0), 1, 5.0)
    candidates.take(student.at(math.nan), 2, 99.0)
    assert [snapshot.step for snapshot in candidates.taken] == [1]
    snapshot = candidates.choose(student, 2, 99.0)
    assert (snapshot and snapshot.step) == expected


# What is kept


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_snapshots_are_kept_for_the_user(make: Callable[..., Candidates], keep: int) -> None:
    candidates, student = make("current", keep_snapshots=keep), Student()
    for step in range(1, 6):
        candidates.take(student.at(step), step, None)
        candidates.rotated()
    assert candidates.names == {f"step-{step:08d}" for step in range(6 - keep, 6)}


@pytest.mark.parametrize("source", ["best", "average"])
def test_what_may_still_teach_is_kept(make: Callable[..., Candidates], source: str) -> None:
    candidates, student = make(source, keep_snapshots=1, average_last=3), Student()
    for step, dev in enumerate((9.0, 1.0, 2.0, 3.0), 1):
        candidates.take(student.at(step), step, dev)
    assert candidates.names == {f"step-{step:08d}" for step in ({1, 4} if source == "best" else {2, 3, 4})}


@pytest.mark.parametrize("source", ["current", "best", "average", "ema"])
def test_resumed_candidates_choose_as_before(make: Callable[..., Candidates], source: str) -> None:
    first, second, student = make(source), make(source), Student()
    if first.shadow is not None:
        first.shadow.start(student)
    for step in (1, 2, 3):
        first.take(student.at(step), step, -float(step))
        if first.shadow is not None:
            first.shadow.update(student, step)
    first.cache.join()
    second.load_state_dict(first.state_dict())
    assert second.names == first.names
    chosen = [candidates.choose(student, 3, -3.0) for candidates in (second, first)]
    for candidates in (second, first):
        candidates.cache.join()  # a snapshot has its sha256 when its file is whole
    assert chosen[0] == chosen[1]
