"""The plan in words: what its lines say of each policy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from otfkd.config.schema import Config
from otfkd.training.plan_text import _part, describe
from otfkd.training.run import prepare

SELF = ["experiment=otfkd", "teacher.warmup_steps=4"]
SKIPPED = "(the one due at the last step, 12, is skipped: nothing would learn from it)"


@pytest.fixture
def told(configure: Callable[..., Config]) -> Callable[..., dict[str, str]]:
    """The lines of a run's plan by name."""

    def lines(*more: str) -> dict[str, str]:
        run = prepare(configure(*more))
        text = describe(run, run.load_models())
        return {line[:11].strip(): line[11:] for line in text.splitlines()}

    return lines


POLICIES = [
    ("a fixed teacher", [], "never"),
    ("every", [*SELF, "schedule.every=4"], f"after 4, 8 {SKIPPED}; the student teaches"),
    ("at", [*SELF, "schedule=at", "schedule.at=[6,9]"], "after 4, 6, 9; the student teaches"),
    (
        "geometric",
        [*SELF, "schedule=geometric", "schedule.first=5", "schedule.ratio=2.0"],
        "after 4, 5, 10; the student teaches",
    ),
    (
        "on improvement",
        [*SELF, "schedule=on_improvement"],
        "after 4, then after 6, 9 where dev is the run's best; the student teaches",
    ),
    (
        "plateau, gated, limited",
        [*SELF, "schedule=plateau", "schedule.patience=2", "schedule.gate=0.5", "schedule.max_rotations=2"],
        "after 4, then after 6, 9 where dev has not improved for 2 evaluations and dev is at most 0.5 below the "
        "teacher's, at most 2 times in all; the student teaches",
    ),
    (
        "gated",
        [*SELF, "schedule.every=4", "schedule.gate=0"],
        f"after 4, then after 8 where dev is at most 0 below the teacher's {SKIPPED}; the student teaches",
    ),
    (
        "best",
        [*SELF, "schedule.every=5", "schedule.source=best"],
        "after 4, 5, 10; the best snapshot since the last rotation teaches",
    ),
    (
        "average",
        [*SELF, "schedule.every=5", "schedule.source=average"],
        "after 4, 5, 10; the mean of the last 3 snapshots' weights teaches",
    ),
    (
        "ema",
        [*SELF, "schedule.every=5", "schedule.source=ema"],
        "after 4, 5, 10; the student's moving average (decay 0.999, constant) teaches",
    ),
    (
        "pool",
        [*SELF, "schedule.every=5", "schedule.retain=pool", "schedule.aggregate=dev_weighted"],
        "after 4, 5, 10; the student joins a pool of the last 3, weighted by dev",
    ),
    (
        "pool beside the initial teacher",
        [*SELF, "schedule.every=5", "schedule.retain=pool_initial", "schedule.pool_size=2",
         "schedule.aggregate=sample"],
        "after 4, 5, 10; the student joins the initial teacher and a pool of the last 2, "
        "of whom one is drawn each step",
    ),
    (
        "rounds",
        [
            *SELF, "schedule.every=5", "schedule.on_rotation.student=reinit", "schedule.on_rotation.optimizer=reset",
            "schedule.on_rotation.lr=restart",
        ],
        "after 4, 5, 10; the student teaches; the student begins again; the optimizer forgets; "
        "the learning rate restarts",
    ),
    (
        "Mean Teacher",
        [*SELF, "schedule=follow", "teacher.after_warmup=continue"],
        "the student's moving average teaches from step 4 on, anew after every step",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("given", "line"), [row[1:] for row in POLICIES], ids=[row[0] for row in POLICIES])
def test_the_rotation_line_says_what_the_policy_does(
    told: Callable[..., dict[str, str]], given: list[str], line: str
) -> None:
    assert told(*given)["rotate"] == line


def test_the_lines_say_what_is_due_when(told: Callable[..., dict[str, str]]) -> None:
    lines = told(
        *SELF, "schedule.every=5", "schedule.cache_every=6", "trainer.checkpoint_every=7", "trainer.accumulate=2"
    )
    assert lines["steps"] == "12 optimizer steps of 2 x 4 sentences"
    assert lines["corpus"].endswith("60 sentences, read 1.60 times")
    assert lines["negatives"] == "3 per anchor (accumulation adds none)"
    assert lines["evaluate"] == "tiny dev after 3, 6, 9, 12"
    assert lines["cache"] == "after 4, 5, 6, 10"
    assert lines["checkpoint"] == "after 7, 12"
    assert lines["test"] == "tiny"
    assert lines["teacher"] == (
        "none for 4 steps of plain SimCSE, then its own snapshots, on a student that begins again from the base encoder"
    )


def test_many_steps_are_counted_rather_than_listed(told: Callable[..., dict[str, str]]) -> None:
    assert told("trainer.max_steps=100", "evaluation.every=1")["evaluate"] == (
        "tiny dev after 1, 2, 3, 4, 5, 6, ..., 100 (100 times)"
    )


def test_without_a_teacher_nothing_is_cached(told: Callable[..., dict[str, str]]) -> None:
    lines = told()
    assert (lines["teacher"], lines["cache"], lines["rotate"]) == ("none", "after no step", "never")
    assert lines["run"].endswith("(new)")


def test_every_member_of_the_teacher_is_named(told: Callable[..., dict[str, str]], tiny_model: Path) -> None:
    line = told("objective=distill", f"teacher=['{tiny_model}','{tiny_model}']", "teacher.pooler=mean")["teacher"]
    first, second = line.split("; ")
    assert first == second
    assert first.startswith(f"{tiny_model}, pooler mean, ")


def test_what_is_held_besides_the_student_is_counted(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otfkd.training.plan_text.in_words", str)

    def held(*more: str) -> float:
        """Copies of the student, over those of plain SimCSE."""
        sizes = []
        for given in ([], [*SELF, *more]):
            run = prepare(configure(*given))
            models = run.load_models()
            student = models.student
            line = next(line for line in describe(run, models).splitlines() if line.startswith("memory"))
            sizes.append(float(line.split()[-1]) / (4 * sum(parameter.numel() for parameter in student.parameters())))
        return sizes[1] - sizes[0]

    # Besides those named: the student at step 0, where it begins again, and the snapshot that is being written.
    every = "schedule.every=4"
    assert held(every) == pytest.approx(1 + 2)
    assert held(every, "teacher.after_warmup=continue") == pytest.approx(1 + 1)
    assert held("schedule=never") == pytest.approx(1 + 2)
    assert held(every, "schedule.source=ema") == pytest.approx(2 + 2)
    assert held(every, "schedule.retain=pool", "schedule.pool_size=3") == pytest.approx(3 + 2)
    assert held(every, "schedule.retain=pool_initial", "schedule.pool_size=3") == pytest.approx(4 + 2)


def test_the_plan_counts_sentences_that_are_cut_and_repeats(
    told: Callable[..., dict[str, str]], tmp_path: Path, corpus_file: Path
) -> None:
    path = tmp_path / "own.txt"
    path.write_text("the cat\n" * 3 + "the cat sat on the mat\n" + "".join(f"a dog {n}\n" for n in range(36)))
    line = told(f"data.path={path}", "data.max_length=7")["sentences"]
    assert line == "2.5 % cut at 7 tokens, 5.0 % a repeat of an earlier one (data.unique=true leaves them out)"
    lines = told(f"data.path={path}", "data.max_length=8", "data.unique=true")
    assert lines["sentences"] == "none cut at 8 tokens, none a repeat of an earlier one"
    assert lines["corpus"].startswith(f"{path}, 38 sentences, ")


def test_less_than_can_be_seen_is_not_none() -> None:
    assert [_part(some, 10_000) for some in (0, 1, 10, 10_000)] == ["none", "less than 0.1 %", "0.1 %", "100.0 %"]
