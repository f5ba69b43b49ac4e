"""Copies of rows, kept by table."""

from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.tables.published import Published, order_of, publish, read_published, tabulated
from tests.support.published import make_cost, make_spec, published, rows_of
from tests.support.rows import make_row

ORDER = order_of({"tiny": make_spec()}, "mini")


def from_runs(runs: Path, made: list[Published]) -> list[Published]:
    """As they come from jobs: with whole paths."""
    return [one.model_copy(update={"folder": str(runs / f"{one.row}/{one.result.seed}")}) for one in made]


def test_rows_go_to_the_file_and_come_back(tmp_path: Path) -> None:
    made = published("simcse", rows_of(100 / 3, 50.0))
    path = tmp_path / "experiments/results/mini.jsonl"
    publish(from_runs(tmp_path / "runs", made), path, ORDER)
    found = read_published(path)
    assert [one.result for one in found] == [one.result for one in made]
    assert [one.folder for one in found] == ["../../runs/simcse/0", "../../runs/simcse/1"]


def test_a_row_replaces_its_own_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    publish(published("simcse", rows_of(1.0, 2.0), table="b"), path, ORDER)
    publish(published("simcse", rows_of(3.0), table="a"), path, ORDER)
    publish(published("simcse", rows_of(4.0), table="b"), path, ORDER)
    found = [(one.table, one.result.seed, one.result.average) for one in read_published(path)]
    assert found == [("a", 0, 3.0), ("b", 0, 4.0), ("b", 1, 2.0)]
    before = path.read_bytes()
    publish(published("simcse", rows_of(3.0), table="a"), path, ORDER)
    assert path.read_bytes() == before


def test_rows_give_way_where_they_are_told_to(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    publish(published("simcse", rows_of(1.0, 2.0)), path, ORDER)
    publish([], path, ORDER, {("tiny", None, "simcse", 0)})
    assert [one.result.seed for one in read_published(path)] == [1]


def test_rows_stand_in_the_order_of_their_seeds_and_of_the_definition(tmp_path: Path) -> None:
    """Whatever was finished first: the same rows are the same file."""
    path = tmp_path / "mini.jsonl"
    encoder = published("encoder", [make_row(seed=None)])
    for one in [*published("otfkd", rows_of(1.0, 2.0)), *published("simcse", rows_of(3.0, 4.0)), *encoder]:
        publish([one], path, ORDER)
    found = [(one.row, one.result.seed) for one in read_published(path)]
    assert found == [("encoder", None), ("simcse", 0), ("otfkd", 0), ("simcse", 1), ("otfkd", 1)]


def test_what_a_line_does_not_know_is_not_written_into_it(tmp_path: Path) -> None:
    """A line of an earlier version is read, and stays byte for byte what it is."""
    path = tmp_path / "mini.jsonl"
    (old,) = published("simcse", rows_of(1.0, cost=make_cost(refused=2)))
    (new,) = published("simcse", rows_of(2.0), table="new")
    publish([old], path, ORDER)
    before = path.read_text()
    assert not any(
        key in before for key in ('"dev"', '"last"', '"dev_in_test"', '"known_as"', '"made"', '"refused_at"')
    )
    publish([new.model_copy(update={"dev": 80.5, "last": new.result, "dev_in_test": {}})], path, ORDER)
    assert before in path.read_text()
    found = {one.table: one for one in read_published(path)}
    assert (found["new"].dev, found["new"].last, found["new"].dev_in_test) == (80.5, new.result, {})
    assert (found["tiny"].dev, found["tiny"].last, found["tiny"].dev_in_test) == (None, None, None)


def test_nothing_published_is_no_file(tmp_path: Path) -> None:
    publish([], tmp_path / "mini.jsonl", ORDER)
    assert not (tmp_path / "mini.jsonl").exists()


@pytest.mark.parametrize("line", ["{}", "not json", '{"table": "tiny", "average": NaN}'])
def test_a_line_that_is_no_row_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mini.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"mini\.jsonl cannot be read .*: make the tables again"):
        read_published(path)


def test_a_score_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mini.jsonl"
    publish(published("simcse", rows_of(12.5)), path, ORDER)
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
