"""Copies of rows, kept by table."""

from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.tables.published import Published, publish, read_published, tabulated
from tests.support.published import make_spec, published, rows_of


def from_runs(runs: Path, made: list[Published]) -> list[Published]:
    """As they come from jobs: with whole paths."""
    return [one.model_copy(update={"folder": str(runs / f"{one.row}/{one.result.seed}")}) for one in made]


def test_rows_go_to_the_file_and_come_back(tmp_path: Path) -> None:
    made = published("simcse", rows_of(100 / 3, 50.0))
    path = tmp_path / "experiments/results/mini.jsonl"
    publish(from_runs(tmp_path / "runs", made), {"tiny"}, path)
    found = read_published(path)
    assert [one.result for one in found] == [one.result for one in made]
    assert [one.folder for one in found] == ["../../runs/simcse/0", "../../runs/simcse/1"]


def test_other_tables_rows_stay_and_this_ones_give_way(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    publish(published("simcse", rows_of(1.0, 2.0), table="b"), {"b"}, path)
    publish(published("simcse", rows_of(3.0), table="a"), {"a"}, path)
    publish(published("simcse", rows_of(4.0), table="b"), {"b"}, path)
    assert [(one.table, one.result.average) for one in read_published(path)] == [("a", 3.0), ("b", 4.0)]
    before = path.read_bytes()
    publish(published("simcse", rows_of(3.0), table="a"), {"a"}, path)
    assert path.read_bytes() == before


def test_a_table_all_of_whose_jobs_failed_keeps_nothing_old(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    publish(published("simcse", rows_of(1.0)), {"tiny"}, path)
    publish([], {"tiny"}, path)
    assert read_published(path) == []


@pytest.mark.parametrize("line", ["{}", "not json", '{"table": "tiny", "average": NaN}'])
def test_a_line_that_is_no_row_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mini.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"mini\.jsonl cannot be read .*: make the tables again"):
        read_published(path)


def test_a_score_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    publish(published("simcse", rows_of(12.5)), {"tiny"}, path)
    path.write_text(path.read_text().replace("12.5", "NaN"))
    with pytest.raises(UserError, match="cannot be read"):
        read_published(path)


def test_a_table_is_made_of_its_own_rows() -> None:
    rows = [*published("simcse", rows_of(1.0, 2.0)), *published("simcse", rows_of(9.0), table="other")]
    made = tabulated("tiny", make_spec(), "mini", rows)
    assert [line.n for line in made.parts[0].lines] == [0, 2, 0]
    spec = make_spec(profiles={"mini": {"seeds": [0], "models": {"bert_base": [], "roberta_base": []}}})
    made = tabulated("tiny", spec, "mini", published("simcse", rows_of(1.0), model="roberta_base"))
    assert [(part.model, part.lines[1].n) for part in made.parts] == [("bert_base", 0), ("roberta_base", 1)]
