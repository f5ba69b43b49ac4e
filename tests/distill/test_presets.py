"""Every preset, against a replay of it that was written by hand: who is in the teacher slot at each step."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import otfkd.training.train
from otfkd.config.groups import options
from otfkd.config.schema import Config
from otfkd.training.train import train
from tests.support.models import make_model
from tests.support.recording import Recorder
from tests.support.weights import Weights, close, same

STEPS = 12
Member = tuple[float, Weights]  # a share of the target and who has it


def mean(*members: Weights) -> Weights:
    """Added up in float64, one after the other."""
    total = {name: tensor.double() for name, tensor in members[0].items()}
    for member in members[1:]:
        total = {name: tensor + member[name].double() for name, tensor in total.items()}
    return {name: (tensor / len(members)).float() for name, tensor in total.items()}


def nobody(run: Recorder) -> Iterator[list[Member]]:
    for _ in range(STEPS):
        yield []


def those_given(run: Recorder) -> Iterator[list[Member]]:
    first = run.members[0]
    assert first
    for _ in range(STEPS):
        yield [(1 / len(first), member) for member in first]


def a_third_of_the_first(run: Recorder) -> Iterator[list[Member]]:
    base, large = run.members[0]
    for _ in range(STEPS):
        yield [(0.33, base), (0.67, large)]


def student_of_every_fourth_step(run: Recorder) -> Iterator[list[Member]]:
    for step in range(1, STEPS + 1):
        yield [] if step < 4 else [(1.0, run.trained[4 if step < 8 else 8])]


def first_snapshot_and_the_last_two(run: Recorder) -> Iterator[list[Member]]:
    after = {2: [2], 4: [2, 4], 6: [2, 4, 6], 8: [2, 6, 8], 10: [2, 8, 10]}
    taught: list[int] = []
    for step in range(1, STEPS + 1):
        taught = after.get(step, taught)
        yield [(1 / len(taught), run.trained[one]) for one in taught]


def mean_of_the_last_three(run: Recorder) -> Iterator[list[Member]]:
    # The student begins again after step 2, so what it was there has no part in what comes after.
    after = {2: [2], 4: [4], 6: [4, 6], 8: [4, 6, 8], 10: [6, 8, 10]}
    averaged: list[int] = []
    for step in range(1, STEPS + 1):
        averaged = after.get(step, averaged)
        yield [(1.0, mean(*(run.trained[one] for one in averaged)))] if averaged else []


def those_no_worse_on_dev(run: Recorder) -> Iterator[list[Member]]:
    installed = [None, 2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10]  # dev after 2, 4, ..., 10: 20, 19, 20, 19.5, 21
    for at in installed:
        yield [] if at is None else [(1.0, run.trained[at])]


def moving_average(run: Recorder) -> Iterator[list[Member]]:
    average = {name: tensor.double() for name, tensor in run.student[0].items()}
    for step in range(1, STEPS + 1):
        kept = [1 / 2, 2 / 3, 3 / 4][step - 1] if step <= 3 else 0.8  # 1 - 1/(t+1) reaches the decay at step 4
        average = {name: kept * old + (1 - kept) * run.trained[step][name].double() for name, old in average.items()}
        yield [] if step < 4 else [(1.0, {name: tensor.float() for name, tensor in average.items()})]


def best_of_each_round(run: Recorder) -> Iterator[list[Member]]:
    for step in range(1, STEPS + 1):  # dev after 2 and 4: 30, 20; after 6 and 8: 10, 15
        yield [(1.0, run.members[0][0] if step < 4 else run.trained[2 if step < 8 else 8])]


@dataclass(frozen=True)
class Case:
    """A preset in twelve steps.

    Attributes:
        members: who teaches after each step.
        overrides: what makes it so short.
        teachers: how many external ones it is given.
        dev: the dev score after a step, where the preset asks for it.
        rotated: the steps it rotates after.
        rates: each step's share of the full learning rate.
    """

    members: Callable[[Recorder], Iterator[list[Member]]]
    overrides: tuple[str, ...] = ()
    teachers: int = 0
    dev: Mapping[int, float] = field(default_factory=dict)
    rotated: tuple[int, ...] = ()
    rates: Sequence[float] = tuple((STEPS - done) / STEPS for done in range(STEPS))


def after_a_warm_up(steps: int) -> list[float]:
    """Down to 0 over the warm-up, and again over the rest."""
    return [(end - done) / end for end in (steps, STEPS - steps) for done in range(end)]


COSINE = [(1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]
EVERY_2 = "schedule.every=2"
EVERY_4 = "schedule.every=4"
CASES = {
    "simcse": Case(nobody),
    "distill_static": Case(those_given, teachers=1),
    "distillcse": Case(those_given, teachers=2),
    "distillcse_script": Case(those_given, teachers=1),
    "rankcse": Case(a_third_of_the_first, teachers=2),
    "distillcse_rounds": Case(
        best_of_each_round,
        (EVERY_4, "evaluation.every=2"),
        teachers=1,
        dev={2: 30, 4: 20, 6: 10, 8: 15, 10: 40, 12: 5},
        rotated=(4, 8),
        rates=[1, 0.75, 0.5, 0.25] * 3,
    ),
    "otfkd": Case(student_of_every_fourth_step, (EVERY_4,), rotated=(4, 8), rates=after_a_warm_up(4)),
    "otfkd_group_p": Case(student_of_every_fourth_step, (EVERY_4,), rotated=(4, 8), rates=after_a_warm_up(4)),
    "otfkd_pool": Case(first_snapshot_and_the_last_two, (EVERY_2,), rotated=(2, 4, 6, 8, 10), rates=after_a_warm_up(2)),
    "otfkd_average": Case(mean_of_the_last_three, (EVERY_2,), rotated=(2, 4, 6, 8, 10), rates=after_a_warm_up(2)),
    "otfkd_gated": Case(
        those_no_worse_on_dev,
        (EVERY_2,),
        dev={2: 20, 4: 19, 6: 20, 8: 19.5, 10: 21, 12: 0},
        rotated=(2, 6, 10),
        rates=after_a_warm_up(2),
    ),
    "mean_teacher": Case(moving_average, ("teacher.warmup_steps=4", "schedule.ema.decay=0.8")),
    "snapshot_distillation": Case(student_of_every_fourth_step, (EVERY_4,), rotated=(4, 8), rates=COSINE * 3),
}


@pytest.fixture(scope="session")
def external(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Teachers of two widths."""
    folder = tmp_path_factory.mktemp("external")
    return [str(make_model(folder / str(width), width=width, seed=width)) for width in (32, 48)]


def command(name: str, external: list[str]) -> list[str]:
    count = CASES[name].teachers
    given = [f"teacher=[{','.join(external[:count])}]", "teacher.pooler=mean"] if count else []
    return [f"experiment={name}", f"trainer.max_steps={STEPS}", "evaluation.every=6", *CASES[name].overrides, *given]


def test_every_preset_has_a_case() -> None:
    # Fine-tuning has no teacher; its steps are tests/finetune's.
    assert sorted(CASES) == [name for name in options("experiment") if not name.startswith("finetune")]


@pytest.mark.parametrize("name", CASES)
def test_the_slot_holds_what_the_preset_says_after_every_step(
    configure: Callable[..., Config],
    recorder: Recorder,
    external: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    case = CASES[name]
    if case.dev:
        monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: case.dev[recorder.now])
    folder = train(configure(*command(name, external))).folder
    expected = list(case.members(recorder))
    assert len(expected) == STEPS
    for step, members in enumerate(expected, 1):
        assert held(recorder, step) == len(members)
        for share, weights in members:
            assert any(
                alike(one, weights, name) and theirs == pytest.approx(share)
                for one, theirs in zip(recorder.members[step], recorder.shares[step], strict=True)
            ), f"step {step}"
    rows = [json.loads(line) for line in (folder / "rotations.jsonl").read_text().splitlines()]
    assert tuple(row["step"] for row in rows if row["event"] == "rotated") == case.rotated
    rates = [recorder.rates[step] for step in range(1, STEPS + 1)]
    assert rates == pytest.approx([1e-3 * share for share in case.rates])


def held(run: Recorder, step: int) -> int:
    """How many different members there are."""
    members = run.members[step]
    return sum(not any(same(one, other) for other in members[:at]) for at, one in enumerate(members))


def alike(left: Weights, right: Weights, name: str) -> bool:
    return close(left, right) if name in ("otfkd_average", "mean_teacher") else same(left, right)


def test_a_round_begins_again_from_the_base_encoder(
    configure: Callable[..., Config], recorder: Recorder, external: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["distillcse_rounds"]
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: case.dev[recorder.now])
    train(configure(*command("distillcse_rounds", external)))
    base = recorder.student[0]
    for step in range(1, STEPS + 1):
        assert same(recorder.student[step], base) == (step in (4, 8))
        assert recorder.forgets[step] == (step in (4, 8))
        assert not same(recorder.trained[step], base)


@pytest.mark.parametrize("name", ["otfkd", "otfkd_group_p", "otfkd_pool", "otfkd_average", "otfkd_gated"])
def test_the_student_begins_again_once_when_its_snapshot_first_teaches(
    configure: Callable[..., Config], recorder: Recorder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: 50.0)
    train(configure(f"experiment={name}", f"trainer.max_steps={STEPS}", EVERY_4))
    base = recorder.student[0]
    for step in range(1, STEPS + 1):
        assert same(recorder.student[step], base) == (step == 4)
        assert recorder.forgets[step] == (step == 4)
        assert not same(recorder.trained[step], base)


def test_an_average_is_of_one_life_of_the_student(
    configure: Callable[..., Config], recorder: Recorder, external: list[str]
) -> None:
    run = configure(
        "experiment=otfkd", f"teacher={external[0]}", "teacher.pooler=cls", EVERY_4, "schedule.source=average",
        "schedule.cache_every=3", "schedule.on_rotation.student=reinit",
    )  # fmt: skip
    train(run)
    after = {4: [3, 4], 8: [6, 8]}
    for step, averaged in after.items():
        (taught,) = recorder.members[step]
        assert close(taught, mean(*(recorder.trained[one] for one in averaged)))


def test_with_a_given_teacher_the_student_goes_on(
    configure: Callable[..., Config], recorder: Recorder, external: list[str]
) -> None:
    train(configure("experiment=otfkd", f"teacher={external[0]}", "teacher.pooler=cls", EVERY_4))
    assert not any(same(recorder.student[step], recorder.student[0]) for step in range(1, STEPS + 1))
    assert not any(recorder.forgets[step] for step in range(1, STEPS + 1))


@pytest.mark.slow  # the replays train every preset too
@pytest.mark.parametrize("name", CASES)
def test_three_steps_of_every_preset_are_finite_and_scored(
    configure: Callable[..., Config], external: list[str], name: str
) -> None:
    brief = {
        "mean_teacher": ["teacher.warmup_steps=1"],
        "distillcse_rounds": ["schedule.every=1", "evaluation.every=1"],
    }
    every = ["schedule.every=1"] if CASES[name].rotated else []
    shortened = [*command(name, external), "trainer.max_steps=3", *every, *brief.get(name, [])]
    result = train(configure(*shortened))
    rows = [json.loads(line) for line in (Path(result.folder) / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 3
    assert all(math.isfinite(loss) for loss in losses)
    distilled = [("kd" in row) for row in rows if "loss" in row]
    assert distilled == ([False] * 3 if name == "simcse" else [bool(CASES[name].teachers), True, True])
    assert {(row.name, row.split) for row in result.rows} == {(name, "dev"), (name, "test")}
