"""Plans: what is due after which optimizer step, and which schedules are refused."""

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from pydantic import ValidationError

from otfkd.base.errors import UserError
from otfkd.config.messages import explain
from otfkd.config.schema import Config
from otfkd.distill.schedule import Plan, make_plan, multiples, plan_schedule
from tests.support.schedules import make_schedule

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


# Every trigger with every limit, against an enumeration step by step

STEPS = 12
TRIGGERS: list[tuple[str, dict[str, Any]]] = [
    ("never", {}),
    ("every", {"every": 3}),
    ("at", {"at": [6, 9, 12]}),
    ("geometric", {"first": 1, "ratio": 2.0}),
    ("geometric", {"first": 3, "ratio": 1.5}),
    ("on_improvement", {}),
    ("plateau", {"patience": 2}),
]
LIMITS = list(product((None, 4), (0, 6), (None, 2), (None, 0.5), ("current", "best", "ema", "average"), (None, 5)))


def named(trigger: str, changes: dict[str, Any], step: int) -> bool:
    """Whether a trigger that goes by the step alone names one."""
    if trigger == "every":
        return step % int(changes["every"]) == 0
    if trigger == "at":
        return step in changes["at"]
    if trigger == "geometric":
        return any(round(changes["first"] * changes["ratio"] ** power) == step for power in range(20))
    return False


@pytest.mark.parametrize("aggregate", ["mean", "dev_weighted"])
@pytest.mark.parametrize("evaluate_every", [None, 2])
@pytest.mark.parametrize(("trigger", "changes"), TRIGGERS)
def test_plans_are_what_an_enumeration_says(
    trigger: str, changes: dict[str, Any], evaluate_every: int | None, aggregate: str
) -> None:
    for fills, start, most, gate, source, cache_every in LIMITS:
        schedule = make_schedule(
            trigger, **changes, start=start, max_rotations=most, gate=gate, source=source, cache_every=cache_every,
            aggregate=aggregate,
        )  # fmt: skip
        listens = trigger in ("on_improvement", "plateau")
        rotate: list[int] = []
        evaluate: list[int] = []
        skipped: list[int] = []
        cache: list[int] = []
        fired = 0
        for step in range(1, STEPS + 1):
            cached = step < STEPS and cache_every is not None and step % cache_every == 0
            scored = step == STEPS or (evaluate_every is not None and step % evaluate_every == 0)
            scored = scored or (source == "best" and cached)
            told = scored and step < STEPS if listens else named(trigger, changes, step)
            told = told and step >= start and (fills is None or step > fills)
            fired += told
            rotates = told or step == fills
            if most is not None and not listens and gate is None and len(rotate) == most:
                rotates = False
            if rotates and step == STEPS:
                skipped.append(step)
            elif rotates:
                rotate.append(step)
                scored = scored or gate is not None or aggregate == "dev_weighted" or source == "best"
                cached = cached or source == "best" or (source != "ema" and gate is None and not listens)
            if scored:
                evaluate.append(step)
            if cached:
                cache.append(step)
        if listens and not fired:
            with pytest.raises(UserError, match=f"schedule={trigger} asks dev scores"):
                plan_schedule(schedule, STEPS, evaluate_every=evaluate_every, fills=fills)
            continue
        plan = plan_schedule(schedule, STEPS, evaluate_every=evaluate_every, fills=fills)
        assert sorted(plan.rotate) == rotate
        assert sorted(plan.evaluate) == evaluate
        assert sorted(plan.cache) == cache
        assert sorted(plan.skipped) == skipped
        assert plan.schedule == schedule
        assert plan.schedule.waits_for_dev == (listens or gate is not None)
        assert (plan.fills, plan.follows) == (fills, None)


@pytest.mark.parametrize(
    ("first", "ratio", "steps"),
    [
        (1, 2.0, {1, 2, 4, 8, 16, 32, 64}),
        (5, 3.0, {5, 15, 45}),
        (10, 1.5, {10, 15, 22, 34, 51, 76}),
        (90, 1e308, {90}),
        (98, 1.0000001, {98, 99}),
        (97, 1 + 2**-52, {97, 98, 99}),
    ],
)
def test_a_geometric_schedule_grows_by_its_factor_and_by_a_step_at_least(
    first: int, ratio: float, steps: set[int]
) -> None:
    assert plan_schedule(make_schedule("geometric", first=first, ratio=ratio), 100).rotate == steps


def test_a_factor_near_one_ends_on_the_longest_run() -> None:
    plan = plan_schedule(make_schedule("geometric", first=1, ratio=1 + 2**-52), 100_000)
    assert plan.rotate == set(range(1, 100_000))


@pytest.mark.parametrize(
    ("start", "fills", "follows"), [(0, None, 1), (5, None, 5), (0, 4, 4), (3, 4, 4), (6, 4, 6), (11, None, 11)]
)
def test_a_following_teacher_begins_after_warm_up_and_start(start: int, fills: int | None, follows: int) -> None:
    plan = plan_schedule(make_schedule("follow", source="ema", start=start), STEPS, fills=fills)
    assert plan.follows == follows
    assert not plan.rotate | plan.cache | plan.skipped
    assert plan.evaluate == {STEPS}


@pytest.mark.parametrize("source", ["none", "model"])
def test_a_plan_is_filled_by_the_student_itself_alone(configure: Callable[..., Config], source: str) -> None:
    overrides = ["teacher=folder", "objective=distill"] if source == "model" else []
    assert make_plan(configure(*overrides)).fills is None


# How long a teacher stays


@pytest.mark.parametrize("start", range(12))
def test_with_restarts_the_rate_decays_until_the_next_rotation(start: int) -> None:
    plan = plan_schedule(make_schedule("every", every=5), STEPS, fills=3)
    later = [step for step in range(start + 1, STEPS + 1) if step in plan.rotate or step == STEPS]
    assert plan.decay(start, start, restarts=True) == (start, later[0])


def test_without_restarts_the_rate_decays_over_the_run() -> None:
    plan = plan_schedule(make_schedule("every", every=5), STEPS, fills=3)
    assert plan.anew is None
    assert {plan.decay(step, step, restarts=False) for step in range(STEPS)} == {(0, STEPS)}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_student_that_begins_again_has_a_rate_that_does_too(restarts: bool) -> None:
    plan = plan_schedule(make_schedule("every", every=5), STEPS, fills=3, anew=True)
    assert plan.anew == 3
    assert {plan.decay(step, 0, restarts=restarts) for step in range(3)} == {(0, 3)}
    assert plan.decay(3, 3, restarts=restarts) == (3, 5 if restarts else STEPS)
    assert plan.decay(7, 5, restarts=restarts) == ((5, 10) if restarts else (3, STEPS))


def test_nothing_begins_again_where_the_first_teacher_was_given() -> None:
    assert plan_schedule(make_schedule("every", every=5), STEPS, anew=True).anew is None


@pytest.mark.parametrize(
    ("trigger", "changes"), [("on_improvement", {}), ("plateau", {"patience": 1}), ("every", {"every": 3, "gate": 0.0})]
)
@pytest.mark.parametrize("start", [0, 3, 9])
def test_a_cycle_whose_end_dev_decides_is_planned_to_the_last_step(
    trigger: str, changes: dict[str, Any], start: int
) -> None:
    plan = plan_schedule(make_schedule(trigger, **changes), STEPS, evaluate_every=3)
    assert plan.decay(start, start, restarts=True) == (start, STEPS)


REFUSED = [
    (
        "distillation without a teacher",
        ["objective=distill"],
        "objective.kd_weight is above 0 but teacher=none: give teacher=FOLDER_OR_HUB_ID or teacher=self, "
        "or objective=simcse",
    ),
    (
        "rotation without a teacher",
        ["schedule=every", "schedule.every=3"],
        "schedule rotates teachers but teacher=none: give teacher=self or teacher=FOLDER_OR_HUB_ID",
    ),
    (
        "the teacher's student without a teacher",
        ["student.init=teacher"],
        "student.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID",
    ),
    (
        "the teacher's student with itself as teacher",
        [*SELF, "teacher.warmup_steps=3", "student.init=teacher"],
        "student.init=teacher needs an initial teacher: give teacher=FOLDER_OR_HUB_ID",
    ),
    (
        "a beginning again that no rotation brings",
        [*SELF, "teacher.after_warmup=reinit", "schedule=follow", "teacher.warmup_steps=3"],
        "teacher.after_warmup=reinit begins the student again when a snapshot first teaches, and schedule=follow "
        "has no snapshots: set teacher.after_warmup=continue",
    ),
    (
        "the teacher's student with several teachers",
        ["teacher=[a,b]", "objective=distill", "student.init=teacher"],
        "student.init=teacher needs one teacher, not several: give teacher=FOLDER_OR_HUB_ID",
    ),
    *(
        (
            f"precomputed, {name}",
            [*given, "teacher.precomputed=true"],
            "teacher.precomputed=true embeds the corpus once, which is for a teacher that stays: "
            "give teacher=FOLDER_OR_HUB_ID and schedule=never, or leave teacher.precomputed=false",
        )
        for name, given in (
            ("without a teacher", ["objective=simcse"]),
            ("the student itself", [*SELF, "teacher.warmup_steps=3"]),
            ("and rotated", [*FIXED, "schedule=every", "schedule.every=3"]),
            ("and followed", [*FIXED, "schedule=follow"]),
        )
    ),
    *(
        (
            f"precomputed, {key}",
            [*FIXED, "teacher.precomputed=true", key],
            "teacher.precomputed=true keeps a teacher's embeddings of the corpus alone, and schedule.gate and "
            "schedule.aggregate=dev_weighted score it on dev: leave both, or leave teacher.precomputed=false",
        )
        for key in ("schedule.gate=0.5", "schedule.aggregate=dev_weighted")
    ),
    (
        "itself as teacher from the start",
        [*SELF, "teacher.warmup_steps=null"],
        "teacher=self needs to know when SimCSE ends and teaching begins: add teacher.warmup_steps=N",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_contradictions_are_refused_in_a_sentence(
    plan: Callable[..., Plan], overrides: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        plan(*overrides)


LATE = (
    "no rotation comes before the last step: the first is due after step {} of 12; lower {} or raise trainer.max_steps"
)
IDLE = (
    "no rotation comes between schedule.start={} and the last step, 12: lower schedule.start or raise trainer.max_steps"
)
DEAF = (
    "schedule={} asks dev scores, and none comes between step {} and the last, 12: "
    "give a smaller evaluation.every, start earlier or raise trainer.max_steps"
)
FOLLOWS = (
    "the teacher would follow the student from step {} of 12: "
    "lower teacher.warmup_steps and schedule.start, or raise trainer.max_steps"
)
ALONE = (
    "schedule=follow keeps one teacher, the student's moving average: "
    "leave schedule.source=ema, schedule.retain=replace and schedule.gate=null, or choose another schedule"
)
UNROTATED = (
    "schedule=follow has no rotations, whose number schedule.max_rotations limits and after which "
    "schedule.on_rotation lets something begin again: leave both, or choose another schedule"
)
UNAVERAGED = (
    "schedule.source=average has one snapshot to average where schedule.on_rotation.student=reinit begins the student "
    "again at each rotation: add schedule.cache_every=N, fewer steps than between rotations, or take "
    "schedule.source=current"
)
NAMED = "schedule.at names step {}, before {}={}: drop it or lower {}"

CONTRADICTORY: list[tuple[str, dict[str, Any], str]] = [
    ("every", {}, "schedule.every must be given with schedule=every: add schedule.every=N"),
    ("at", {"at": []}, "schedule.at must name steps with schedule=at: add schedule.at=[100,200]"),
    ("at", {}, "schedule.at must name steps with schedule=at: add schedule.at=[100,200]"),
    *(
        (
            "geometric", {key: value},
            "schedule.first and schedule.ratio must be given with schedule=geometric: "
            "add schedule.first=N schedule.ratio=R",
        )
        for key, value in (("first", 3), ("ratio", 2.0))
    ),
    ("plateau", {}, "schedule.patience must be given with schedule=plateau: add schedule.patience=N"),
    ("follow", {}, ALONE),
    ("follow", {"source": "ema", "retain": "pool"}, ALONE),
    ("follow", {"source": "ema", "gate": 0.0}, ALONE),
    ("follow", {"source": "ema", "max_rotations": 3}, UNROTATED),
    ("follow", {"source": "ema", "on_rotation": {"student": "reinit"}}, UNROTATED),
    ("follow", {"source": "ema", "on_rotation": {"optimizer": "reset"}}, UNROTATED),
    ("follow", {"source": "ema", "on_rotation": {"lr": "restart"}}, UNROTATED),
    ("every", {"every": 3, "source": "average", "on_rotation": {"student": "reinit"}}, UNAVERAGED),
]  # fmt: skip


@pytest.mark.parametrize(("trigger", "changes", "sentence"), CONTRADICTORY)
def test_a_schedule_that_contradicts_itself_is_refused_in_a_sentence(
    trigger: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        make_schedule(trigger, **changes)
    assert [explain(error, (), "otfkd-train") for error in caught.value.errors()] == [sentence]


@pytest.mark.parametrize("source", ["teacher=self", "teacher=folder"])
def test_a_command_line_is_refused_in_the_same_sentence(configure: Callable[..., Config], source: str) -> None:
    given = [source, "objective=distill", "schedule=every", "schedule.every=null", "teacher.warmup_steps=3"]
    with pytest.raises(UserError, match=f"^{re.escape(CONTRADICTORY[0][-1])}$"):
        configure(*given)


IMPOSSIBLE: list[tuple[str, dict[str, Any], int | None, str]] = [
    ("every", {"every": 100}, None, LATE.format(100, "schedule.every")),
    ("every", {"every": 12}, None, LATE.format(12, "schedule.every")),
    ("every", {"every": 4, "start": 9}, None, LATE.format(12, "schedule.every")),
    ("every", {"every": 5, "start": 11}, None, IDLE.format(11)),
    ("every", {"every": 5, "start": 99}, None, IDLE.format(99)),
    ("every", {"every": 5, "start": 99}, 5, IDLE.format(99)),
    ("every", {"every": 3}, 12, LATE.format(12, "teacher.warmup_steps")),
    ("at", {"at": [12]}, None, LATE.format(12, "schedule.at")),
    ("at", {"at": [3, 13]}, None, "schedule.at names step 13 of 12: drop it or raise trainer.max_steps"),
    ("at", {"at": [3, 6]}, 4, NAMED.format(3, "teacher.warmup_steps", 4, "teacher.warmup_steps")),
    ("at", {"at": [6, 3], "start": 5}, 2, NAMED.format(3, "schedule.start", 5, "schedule.start")),
    ("at", {"at": [3]}, 99, NAMED.format(3, "teacher.warmup_steps", 99, "teacher.warmup_steps")),
    ("geometric", {"first": 12, "ratio": 2.0}, None, LATE.format(12, "schedule.first")),
    ("geometric", {"first": 99, "ratio": 2.0}, None, LATE.format(99, "schedule.first")),
    ("geometric", {"first": 4, "ratio": 2.0, "start": 9}, None, IDLE.format(9)),
    ("never", {}, 12, LATE.format(12, "teacher.warmup_steps")),
    ("never", {}, 99, LATE.format(99, "teacher.warmup_steps")),
    ("on_improvement", {}, None, DEAF.format("on_improvement", 0)),
    ("on_improvement", {}, 4, DEAF.format("on_improvement", 4)),
    ("plateau", {"patience": 2, "start": 7}, 4, DEAF.format("plateau", 7)),
    ("follow", {"source": "ema", "start": 12}, None, FOLLOWS.format(12)),
    ("follow", {"source": "ema"}, 30, FOLLOWS.format(30)),
]  # fmt: skip


@pytest.mark.parametrize(("trigger", "changes", "fills", "sentence"), IMPOSSIBLE)
def test_a_schedule_that_cannot_do_what_it_says_is_refused_in_a_sentence(
    trigger: str, changes: dict[str, Any], fills: int | None, sentence: str
) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"):
        plan_schedule(make_schedule(trigger, **changes), STEPS, fills=fills)


def test_the_rotation_that_fills_the_slot_may_be_all_there_is() -> None:
    assert plan_schedule(make_schedule("every", every=9), STEPS, fills=9).rotate == {9}
    assert plan_schedule(make_schedule("at", at=[4]), STEPS, fills=4).rotate == {4}
    assert plan_schedule(make_schedule("geometric", first=5, ratio=3.0), STEPS, fills=5).rotate == {5}
