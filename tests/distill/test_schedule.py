"""Plans: what is due after which optimizer step, and which schedules are refused."""

from collections.abc import Callable

import pytest

from otfkd.config import Config
from otfkd.distill.schedule import Plan, make_plan, multiples
from otfkd.errors import UserError

FIXED = ["teacher=folder", "objective=distill"]
SELF = ["teacher=self", "objective=distill"]


@pytest.fixture
def plan(configure: Callable[..., Config]) -> Callable[..., Plan]:
    """Make the plan of a run of 12 steps."""
    return lambda *overrides: make_plan(configure("trainer.max_steps=12", *overrides))


@pytest.mark.parametrize(
    ("every", "steps"), [(None, set()), (1, {1, 2, 3, 4, 5, 6}), (4, {4}), (3, {3, 6}), (6, {6}), (7, set())]
)
def test_multiples_run_from_n_up_to_and_with_the_last_step(every: int | None, steps: set[int]) -> None:
    assert multiples(every, 6) == steps


ROTATIONS = [
    ("a teacher that stays", [*FIXED], set(), set()),
    ("every 5", [*FIXED, "schedule=every", "schedule.every=5"], {5, 10}, set()),
    ("every 4, the last skipped", [*FIXED, "schedule=every", "schedule.every=4"], {4, 8}, {12}),
    ("every step", [*FIXED, "schedule=every", "schedule.every=1"], set(range(1, 12)), {12}),
    ("at", [*FIXED, "schedule=at", "schedule.at=[7,2]"], {2, 7}, set()),
    ("at the last step, skipped", [*FIXED, "schedule=at", "schedule.at=[2,12]"], {2}, {12}),
    ("at one step twice", [*FIXED, "schedule=at", "schedule.at=[2,2]"], {2}, set()),
    ("self, once", [*SELF, "teacher.warmup_steps=5"], {5}, set()),
    ("self, then every", [*SELF, "teacher.warmup_steps=5", "schedule=every", "schedule.every=4"], {5, 8}, {12}),
    ("self, in phase", [*SELF, "teacher.warmup_steps=4", "schedule=every", "schedule.every=4"], {4, 8}, {12}),
    ("self, then at", [*SELF, "teacher.warmup_steps=3", "schedule=at", "schedule.at=[6,9]"], {3, 6, 9}, set()),
    ("the experiment", ["experiment=otfkd", "schedule.every=3"], {3, 6, 9}, {12}),
    ("at most 2", [*FIXED, "schedule=every", "schedule.every=2", "schedule.max_rotations=2"], {2, 4}, set()),
    ("at most 1, of at", [*FIXED, "schedule=at", "schedule.at=[9,2]", "schedule.max_rotations=1"], {2}, set()),
    (
        "at most 2, the first teacher counted",
        [*SELF, "teacher.warmup_steps=3", "schedule=every", "schedule.every=2", "schedule.max_rotations=2"],
        {3, 4},
        set(),
    ),
]


@pytest.mark.parametrize(
    ("overrides", "rotate", "skipped"), [row[1:] for row in ROTATIONS], ids=[row[0] for row in ROTATIONS]
)
def test_rotations_come_when_the_schedule_says(
    plan: Callable[..., Plan], overrides: list[str], rotate: set[int], skipped: set[int]
) -> None:
    due = plan(*overrides)
    assert due.rotate == rotate
    assert due.skipped == skipped
    assert due.cache == rotate


def test_without_a_teacher_nothing_rotates_or_is_cached(plan: Callable[..., Plan]) -> None:
    due = plan()
    assert not due.rotate | due.cache | due.skipped
    assert due.max_steps == 12


@pytest.mark.parametrize("overrides", [[], ["experiment=otfkd", "schedule.every=3"]])
def test_accumulation_moves_nothing(plan: Callable[..., Plan], overrides: list[str]) -> None:
    plans = [plan(*overrides, f"trainer.accumulate={n}") for n in (1, 4)]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("every", "steps"), [("3", {3, 6, 9, 12}), ("5", {5, 10, 12}), ("12", {12}), ("125", {12}), ("null", {12})]
)
def test_evaluations_are_regular_and_always_at_the_end(plan: Callable[..., Plan], every: str, steps: set[int]) -> None:
    assert plan(f"evaluation.every={every}").evaluate == steps


@pytest.mark.parametrize(("every", "steps"), [("null", {12}), ("5", {5, 10, 12}), ("6", {6, 12}), ("100", {12})])
def test_checkpoints_are_regular_and_always_at_the_end(plan: Callable[..., Plan], every: str, steps: set[int]) -> None:
    assert plan(f"trainer.checkpoint_every={every}").checkpoint == steps


@pytest.mark.parametrize(("every", "steps"), [(2, {2, 4, 5, 6, 8, 10}), (5, {5, 10}), (100, {5, 10})])
def test_snapshots_are_cached_regularly_and_before_each_rotation(
    plan: Callable[..., Plan], every: int, steps: set[int]
) -> None:
    due = plan(*FIXED, "schedule=every", "schedule.every=5", f"schedule.cache_every={every}")
    assert due.cache == steps
    assert due.rotate == {5, 10}


def test_choosing_the_best_evaluates_every_candidate(plan: Callable[..., Plan]) -> None:
    rotating = [*FIXED, "schedule=every", "schedule.every=5", "schedule.cache_every=2", "evaluation.every=null"]
    assert plan(*rotating, "schedule.source=best").evaluate == {2, 4, 5, 6, 8, 10, 12}
    assert plan(*rotating, "schedule.source=current").evaluate == {12}


REFUSED = [
    (
        "distillation without a teacher",
        ["objective=distill"],
        r"objective\.kd_weight is above 0 but teacher=none: give teacher=.* or objective=simcse",
    ),
    (
        "rotation without a teacher",
        ["schedule=every", "schedule.every=3"],
        r"schedule rotates teachers but teacher=none: give teacher=self or teacher=FOLDER_OR_HUB_ID",
    ),
    (
        "the teacher's student without a teacher",
        ["student.init=teacher"],
        r"student\.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID",
    ),
    (
        "the teacher's student with itself as teacher",
        [*SELF, "teacher.warmup_steps=3", "student.init=teacher"],
        r"student\.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID",
    ),
    (
        "an interval longer than the run",
        [*FIXED, "schedule=every", "schedule.every=100"],
        r"no rotation comes before the last step.* 100 .*12; lower schedule\.every .* or raise trainer\.max_steps",
    ),
    (
        "an interval as long as the run",
        [*FIXED, "schedule=every", "schedule.every=12"],
        r"no rotation comes before the last step.* 12 .*12; lower schedule\.every .* or raise trainer\.max_steps",
    ),
    (
        "one rotation, at the last step",
        [*FIXED, "schedule=at", "schedule.at=[12]"],
        r"no rotation comes before the last step.* 12 .*12; lower .*schedule\.at or raise trainer\.max_steps",
    ),
    (
        "a warm-up as long as the run",
        [*SELF, "teacher.warmup_steps=12"],
        r"no rotation comes before the last step.* 12 .*12; lower teacher\.warmup_steps or raise trainer\.max_steps",
    ),
    (
        "a warm-up longer than the run",
        [*SELF, "teacher.warmup_steps=99"],
        r"no rotation comes before the last step.* 99 .*12; lower teacher\.warmup_steps or raise trainer\.max_steps",
    ),
    (
        "a step beyond the run",
        [*FIXED, "schedule=at", "schedule.at=[3,13]"],
        r"schedule\.at names step 13.*12: drop it or raise trainer\.max_steps",
    ),
    (
        "no step named",
        [*FIXED, "schedule=at", "schedule.at=[]"],
        r"schedule\.at must name steps with schedule=at: add schedule\.at=\[100,200\]",
    ),
    (
        "at nothing",
        [*FIXED, "schedule=at", "schedule.at=null"],
        r"schedule\.at must name steps with schedule=at: add schedule\.at=\[100,200\]",
    ),
    (
        "every nothing",
        [*FIXED, "schedule=every", "schedule.every=null"],
        r"schedule\.every must be given with schedule=every: add schedule\.every=N",
    ),
    (
        "itself as teacher from the start",
        [*SELF, "teacher.warmup_steps=null"],
        r"teacher=self needs .*: add teacher\.warmup_steps=N",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_contradictions_are_refused_in_a_sentence(
    plan: Callable[..., Plan], overrides: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"^{sentence}$"):
        plan(*overrides)
