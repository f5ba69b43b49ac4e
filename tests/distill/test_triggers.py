"""What a sequence of dev scores lets happen, against a slow reading of the whole sequence."""

from itertools import product
from typing import Any

import pytest

from otfkd.distill.triggers import DevWatch
from tests.support.schedules import make_schedule

SEQUENCES = list(product([1.0, 2.0, 3.0], repeat=4))


def fired(trigger: str, scores: tuple[float, ...], **changes: Any) -> list[int]:
    """After which scores, counted from 1, a rotation happened that nothing refused."""
    watch, happened = DevWatch(make_schedule(trigger, **changes)), []
    for at, score in enumerate(scores, 1):
        watch.see(score)
        if watch.fires:
            happened.append(at)
            watch.rotated()
    return happened


@pytest.mark.parametrize("scores", SEQUENCES)
def test_on_improvement_fires_on_each_new_best_of_the_run(scores: tuple[float, ...]) -> None:
    expected = [at for at, score in enumerate(scores, 1) if all(score > earlier for earlier in scores[: at - 1])]
    assert fired("on_improvement", scores) == expected


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("scores", SEQUENCES)
def test_plateau_fires_when_the_last_few_beat_nothing_since_the_last_rotation(
    scores: tuple[float, ...], patience: int
) -> None:
    expected, begin = [], 0
    for at in range(1, len(scores) + 1):
        before, last = scores[begin : max(begin, at - patience)], scores[max(begin, at - patience) : at]
        if before and len(last) == patience and max(last) <= max(before):
            expected.append(at)
            begin = at
    assert fired("plateau", scores, patience=patience) == expected


@pytest.mark.parametrize(
    ("trigger", "needed"),
    [("every", {"every": 1}), ("at", {"at": [1]}), ("geometric", {"first": 1, "ratio": 2.0}), ("never", {})],
)
def test_triggers_that_go_by_the_step_always_let_it_happen(trigger: str, needed: dict[str, Any]) -> None:
    assert DevWatch(make_schedule(trigger, **needed)).fires
    assert fired(trigger, (3.0, 2.0, 1.0), **needed) == [1, 2, 3]


def test_a_plateau_that_was_refused_fires_again() -> None:
    watch, seen = DevWatch(make_schedule("plateau", patience=2)), []
    for score in (3.0, 2.0, 2.0, 2.0, 4.0):
        watch.see(score)
        seen.append(watch.fires)
    assert seen == [False, False, True, True, False]


def test_a_rotation_forgets_what_was_best_since_and_keeps_the_runs_best() -> None:
    watch = DevWatch(make_schedule("plateau", patience=1))
    watch.see(5.0)
    watch.rotated()
    watch.see(1.0)
    assert (watch.latest, watch.best, watch.best_since, watch.stale, watch.improved) == (1.0, 5.0, 1.0, 0, False)


@pytest.mark.parametrize("trigger", ["on_improvement", "plateau"])
@pytest.mark.parametrize("cut", range(4))
def test_a_resumed_watch_goes_on(trigger: str, cut: int) -> None:
    schedule, scores = make_schedule(trigger, patience=2), (2.0, 1.0, 1.0, 3.0, 3.0, 2.0)
    whole, first, second = (DevWatch(schedule) for _ in range(3))
    for score in scores[:cut]:
        whole.see(score)
        first.see(score)
    second.load_state_dict(first.state_dict())
    for score in scores[cut:]:
        whole.see(score)
        second.see(score)
        assert (second.fires, second.improved, second.state_dict()) == (whole.fires, whole.improved, whole.state_dict())
