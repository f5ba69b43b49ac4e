"""Result rows are checked when made and when read."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from otfkd.runs.rows import Row, append_row, read_rows, write_rows

ENVIRONMENT = {
    "git_revision": "0123456789abcdef0123456789abcdef01234567",
    "versions": {"python": "3.11.9", "otfkd": "0.1.0", "torch": "2.13.0", "transformers": "5.20.0"},
    "device": "x86_64",
    "threads": 1,
    "cpus": 2,
    "system": "Linux-test",
}


def make_row(all_scores: dict[str, float] | None = None, **changes: Any) -> Row:
    """A valid test row with these 'all' scores."""
    found = all_scores or {"tiny": 50.0}
    values: dict[str, Any] = {
        "name": "simcse", "seed": 0, "split": "test", "checkpoint": "selected", "step": 9, "generation": 2,
        "pooler": "cls",
        "scores": {task: {"all": score, "mean": score, "wmean": score, "pairs": 12} for task, score in found.items()},
        "average": sum(found.values()) / len(found), "protocol": "cosine, 128 tokens", "suite": "tiny",
        "suite_sha256": "5" * 64, "weights_sha256": "abcdef01" * 8, "config_hash": "0123456789",
        "teacher_sha256": None, "environment": ENVIRONMENT,
    }  # fmt: skip
    return Row(**{**values, **changes})


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
