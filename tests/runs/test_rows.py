"""Result rows are checked when made and when read."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from otfkd.runs.rows import append_row, read_rows, write_rows
from tests.support.rows import make_row


def test_rows_round_trip(tmp_path: Path) -> None:
    rows = [make_row(), make_row({"STS12": 100 / 3, "STS-B": -1e-17}, seed=None, step=None, teacher_sha256="a" * 64)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_appended_rows_follow_those_before(tmp_path: Path) -> None:
    rows = [make_row(seed=seed) for seed in range(3)]
    for row in rows:
        append_row(tmp_path / "new folder" / "rows.jsonl", row)
    assert read_rows(tmp_path / "new folder" / "rows.jsonl") == rows


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        make_row({"tiny": number}, average=1.0)
    with pytest.raises(ValidationError, match="finite"):
        make_row(average=number)


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**make_row().model_dump(), "spearman": 1}) + "\n")
    with pytest.raises(ValidationError, match="spearman"):
        read_rows(path)


def test_a_row_of_another_schema_is_refused() -> None:
    with pytest.raises(ValidationError, match="schema_version"):
        make_row(schema_version=2)


def test_a_row_cannot_be_altered() -> None:
    row = make_row()
    with pytest.raises(ValidationError, match="frozen"):
        row.average = 99.0
    assert row.average == 50.0
