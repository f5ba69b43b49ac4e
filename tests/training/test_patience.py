"""Dev scores end a run before its last step, and the same command would end it there again."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest

import otfkd.training.train
from otfkd.base.errors import Interrupted, UserError
from otfkd.config.identity import config_hash
from otfkd.config.schema import Config
from otfkd.distill.patience import Patience
from otfkd.distill.schedule import make_plan
from otfkd.reporting.card.data import data
from otfkd.reporting.card.history import read_history
from otfkd.runs.cost import forwards
from otfkd.training.train import train
from tests.support.commands import Command
from tests.support.json_lines import json_lines
from tests.support.resuming import final, stop_after, unclocked
from tests.support.variants import OTFKD

Configure = Callable[..., Config]
Scores = Callable[[Sequence[float]], None]


@pytest.fixture
def dev_scores(monkeypatch: pytest.MonkeyPatch) -> Scores:
    """Have the dev scores of the runs that follow be these, one after the other."""

    def told(scores: Sequence[float]) -> None:
        left = iter(scores)
        monkeypatch.setattr(otfkd.training.train, "dev_score", lambda *_: next(left))

    return told


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_it_is_spent_when_the_last_few_scores_beat_none_before_them(limit: int) -> None:
    for scores in product([1.0, 2.0, math.nan], repeat=5):
        patience = Patience(limit)
        is_best = [
            score > max((one for one in scores[:at] if one == one), default=-math.inf)
            for at, score in enumerate(scores)
        ]
        for at, score in enumerate(scores, 1):
            patience.see(score)
            assert patience.spent == (at >= limit and not any(is_best[at - limit : at])), scores[:at]


def test_without_a_limit_it_is_never_spent() -> None:
    patience = Patience(None)
    for _ in range(9):
        patience.see(1.0)
    assert not patience.spent


PATIENT = ("evaluation.every=1", "trainer.patience=2")


@pytest.mark.parametrize(
    ("scores", "last"),
    [
        ([5, 6, 6, 5, 0], 4),
        ([5, 4, 6, 6, 7, 1, 2, 0], 7),
        ([*range(11), 1], 12),
        ([*range(10), 1, 1], 12),  # it is the last step anyway
    ],
)
def test_a_run_ends_with_its_scores_where_dev_has_no_new_best(
    scores: list[float], last: int, configure: Configure, dev_scores: Scores
) -> None:
    dev_scores(scores)
    config = configure(*PATIENT)
    result = train(config)
    assert result.status == "finished"
    lines = json_lines(result.folder / "metrics.jsonl")
    assert [line["dev"] for line in lines if "dev" in line] == scores[:last]
    assert lines[-1]["step"] == last
    # The learning rate falls as if all steps came.
    assert [line["lr"] for line in lines if "lr" in line] == [1e-3 * (1 - step / 12) for step in range(last)]
    best = max(range(last), key=lambda at: scores[at]) + 1
    rows = {(row.split, row.checkpoint): row for row in result.rows}
    assert (rows["dev", "selected"].step, rows["dev", "last"].step) == (best, last if best != last else best)
    stopped = (last, 12) if last < 12 else None
    assert {row.stopped for row in result.rows} == {stopped}
    assert ("stopped" in json.loads((result.folder / "provenance.json").read_text())) == (stopped is not None)
    cost = result.rows[0].cost
    assert cost is not None and cost.forwards == forwards(config, [(0, 0)], last) == 6 * last
    assert train(config).status == "skipped"


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_run_that_was_stopped_ends_after_the_same_step_with_the_same_bits(
    step: int, configure: Configure, dev_scores: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [5, 6, 6, 5.5, 5, 9, 9, 9]
    given = (*OTFKD, "teacher.warmup_steps=1", "evaluation.every=1", "trainer.patience=3")
    dev_scores(scores)
    straight = train(configure(*given, f"paths.runs={tmp_path / 'straight'}"))
    dev_scores(scores)
    with monkeypatch.context() as patched:
        stop_after(patched, step)
        with pytest.raises(Interrupted):
            train(configure(*given))
    resumed = train(configure(*given))
    assert final(resumed.folder) == final(straight.folder)
    assert unclocked(resumed.rows) == unclocked(straight.rows)
    assert resumed.rows[0].stopped == (5, 12)


def test_a_run_that_died_before_its_scores_takes_no_further_step(
    configure: Configure, dev_scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev_scores([5, 5, 5])
    with monkeypatch.context() as patched:
        patched.setattr(otfkd.training.train, "_test", lambda *_: (_ for _ in ()).throw(OSError("no room")))
        with pytest.raises(OSError, match="no room"):
            train(configure(*PATIENT))
    (folder,) = Path(configure().paths.runs).glob("simcse/*/s0")
    before = (folder / "metrics.jsonl").read_bytes()
    dev_scores([])  # none is asked for
    result = train(configure(*PATIENT))
    assert (result.folder, result.rows[0].stopped) == (folder, (3, 12))
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_warm_up_is_not_counted_and_its_best_is_no_measure(configure: Configure, dev_scores: Scores) -> None:
    """The student begins again after step 4, where it was better than it is ever again."""
    dev_scores([9, 9, 9, 9, 1, 2, 3, 3, 3, 0, 0])
    result = train(configure(*OTFKD, *PATIENT, "schedule.every=4"))
    assert result.rows[0].stopped == (9, 12)
    # What is due at the last step does not happen, as at any run's.
    rotated = [row["step"] for row in json_lines(result.folder / "rotations.jsonl")]
    assert rotated == [4, 8]
    assert {row.step for row in result.rows if row.checkpoint == "selected"} == {1}


def test_a_rotation_that_is_due_where_the_run_ends_is_left_out(configure: Configure, dev_scores: Scores) -> None:
    dev_scores([9, 9, 9, 9, 1, 2, 2, 2])
    result = train(configure(*OTFKD, *PATIENT, "schedule.every=4", "schedule.cache_every=2"))
    assert result.rows[0].stopped == (8, 12)
    assert [row["step"] for row in json_lines(result.folder / "rotations.jsonl")] == [4]
    assert result.rows[0].cost is not None and result.rows[0].cost.rotations[-1][0] == 4
    assert not list((result.folder / "snapshots").glob("*8.safetensors"))


def test_each_student_that_begins_again_is_given_time(configure: Configure, dev_scores: Scores) -> None:
    """Without that it would end after step 6."""
    dev_scores([9, 9, 9, 9, 1, 1, 1, 1, 0, 0, 0, 0])
    given = ("teacher.warmup_steps=2", "schedule.every=2", "schedule.on_rotation.student=reinit")
    assert train(configure(*OTFKD, *PATIENT, *given)).rows[0].stopped is None


def test_fine_tuning_ends_in_the_same_way(configure: Configure, dev_scores: Scores, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("sentence1,sentence2,score\n" + "the cat sat,the dog ran,1.5\na bird flew,a bird flew,5.0\n" * 8)
    for objective in ("cosine_regression", "cosent"):
        dev_scores([2, 3, 3, 3])
        given = ("experiment=finetune_stsb", "data=labelled", f"data.path={pairs}", f"objective={objective}")
        assert train(configure(*given, *PATIENT)).rows[0].stopped == (4, 12)


def test_it_is_part_of_what_a_run_is_called_where_it_is_set(configure: Configure) -> None:
    def hashed(*given: str) -> str:
        return config_hash(configure("evaluation.every=1", *given), {})

    assert hashed() == hashed("trainer.patience=null")
    assert len({hashed(), hashed("trainer.patience=2"), hashed("trainer.patience=3")}) == 3


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["evaluation.every=4", "trainer.patience=2"],
         "^trainer.patience=2 ends no run of which 2 dev scores count before the last step, 12: lower "),
        (["evaluation.every=null", "trainer.patience=1"], "^trainer.patience=1 ends no run of which 0 dev scores"),
        ([*OTFKD, "evaluation.every=3", "trainer.patience=2"],
         "of which 2 dev scores count before the last step, 12, and after the warm-up of 4"),
        (["trainer.patience=0"], "^trainer.patience=0 is not valid: it must be greater than 0"),
    ],
)  # fmt: skip
def test_patience_that_no_run_can_lose_is_refused(given: list[str], told: str, configure: Configure) -> None:
    with pytest.raises(UserError, match=told):
        make_plan(configure(*given))


def test_a_reader_is_told(
    configure: Configure, dev_scores: Scores, overrides: list[str], otfkd_command: Command, tmp_path: Path
) -> None:
    dev_scores([5, 5, 5])
    done = otfkd_command("train", *overrides, *PATIENT)
    assert done.code == 0
    assert "stop early after 2 dev scores without a new best" in done.out + done.err
    assert "stopped early after step 3 of 12 (trainer.patience=2)" in done.err
    (folder,) = (tmp_path / "runs").glob("simcse/*/s0")
    (line,) = otfkd_command("runs", tmp_path / "runs").out.splitlines()
    state, _, _, _, step, steps, *_, reason = line.split("\t")
    assert (state, step, steps) == ("finished", "3", "12")
    assert reason == "stopped early at step 3 of 12 (trainer.patience)"
    history = read_history(folder / "model")
    assert history is not None
    assert "Training stopped early at step 3 of 12 (trainer.patience)" in data(history)
