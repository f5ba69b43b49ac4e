"""From a model and a suite to result rows."""

import random
from pathlib import Path

import pytest

from otfkd.composition import compose, load_config, prepare_overrides
from otfkd.config import EvaluateConfig
from otfkd.data.transfer import Example, TransferTask
from otfkd.errors import UserError
from otfkd.prepare import prepare
from otfkd.reporting.tables import build_table
from otfkd.reporting.terminal import scores
from otfkd.results import Row, read_rows
from otfkd.scoring import score_model


def examples(rng: random.Random, number: int, texts: int) -> tuple[Example, ...]:
    """Sentences of one class are made of one word, those of the other of another, which a classifier can learn."""
    words = ("moon", "bread")
    return tuple(
        Example(tuple(" ".join([words[i % 2]] * rng.randint(2, 9)) for _ in range(texts)), i % 2) for i in range(number)
    )


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> list[Row]:
    """The rows of the tiny model on two small transfer tasks, one of them of pairs."""
    rng = random.Random(5)
    tasks = (
        TransferTask("MR", examples(rng, 60, 1), (), (), blank=0),
        TransferTask("MRPC", examples(rng, 60, 2), (), examples(rng, 20, 2), blank=1),
    )
    monkeypatch.setattr("otfkd.data.transfer.load_transfer", lambda _: tasks)
    arguments = [f"model={tiny_model}", "model.pooler=mean", "evaluation=transfer", "evaluation.protocol=fast"]
    arguments += [f"evaluation.path={tmp_path}", f"output={tmp_path / 'rows.jsonl'}"]
    config = EvaluateConfig.from_hydra(compose(prepare_overrides(arguments, EvaluateConfig), "evaluate"))
    return score_model(config)


def test_a_transfer_row_names_its_protocol_and_is_written(rows: list[Row], tmp_path: Path) -> None:
    (row,) = rows
    assert row.protocol.startswith("SentEval fast: accuracy, 5 folds")
    assert (row.suite, row.split, set(row.scores)) == ("transfer", "test", {"MR", "MRPC"})
    assert row.average == pytest.approx(sum(round(task["accuracy"], 2) for task in row.scores.values()) / 2)
    assert row.scores["MR"]["accuracy"] > 60  # of two equal classes
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_the_terminal_shows_a_dash_where_a_task_has_no_f1(rows: list[Row]) -> None:
    lines = {line[:16].strip(): line[16:].split() for line in scores(rows).splitlines()}
    assert lines["accuracy"] == [f"{rows[0].scores[task]['accuracy']:.2f}" for task in ("MR", "MRPC")]
    assert lines["F1"] == ["—", f"{rows[0].scores['MRPC']['f1']:.2f}"]
    assert "average of 'accuracy'" in scores(rows)


def test_transfer_rows_cannot_land_in_a_table_of_sts(rows: list[Row]) -> None:
    with pytest.raises(UserError, match="rows are of other tasks"):
        build_table("T", [("a", "A")], {"a": rows}, "")


def test_training_refuses_to_select_on_transfer_tasks(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from otfkd.data.sts import load_suite

    monkeypatch.setattr("otfkd.prepare.load_suite", load_suite)
    with pytest.raises(UserError, match="evaluation=transfer chooses no checkpoint"):
        prepare(load_config([*overrides, "evaluation=transfer"]))
