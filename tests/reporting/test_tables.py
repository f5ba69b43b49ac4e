"""Tables from rows made by hand."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from otfkd.errors import UserError
from otfkd.reporting.tables import MISSING, Cell, Table, build_table
from otfkd.reporting.terminal import scores
from otfkd.results import Row
from tests.test_results import make_row

LABELS = [("encoder", "Encoder"), ("simcse", "SimCSE"), ("otfkd", "On the fly")]
WARNING = "Profile mini shows the machinery in minutes; it is not evidence."


def rows_of(*values: float, **changes: str) -> list[Row]:
    """One row a seed with these scores."""
    return [make_row({"tiny": value}, seed=seed, **changes) for seed, value in enumerate(values)]


def table(measured: Mapping[str, Sequence[Row]], note: str = WARNING) -> Table:
    return build_table("Title", LABELS, measured, note)


def test_mean_and_spread_of_two_by_hand() -> None:
    assert str(Cell((70.0, 72.0))) == "71.00 ± 1.41"


def test_mean_and_spread_of_three_by_hand() -> None:
    cell = Cell((70.0, 71.0, 75.0))
    assert cell.mean == 72.0
    assert cell.spread == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    assert str(cell) == "72.00 ± 2.65"


def test_one_seed_has_no_spread() -> None:
    assert str(Cell((70.0,))) == "70.00"
    assert Cell((70.0,)).spread is None


def test_a_missing_cell_is_a_dash() -> None:
    assert str(Cell(())) == MISSING == "—"


def test_markdown_by_hand() -> None:
    made = table({"encoder": rows_of(40.0), "simcse": rows_of(50.0, 53.0)}).markdown()
    head = "**Title**\n\n| | n | tiny |\n|---|--:|--:|\n"
    assert made.startswith(f"{head}| Encoder | 1 | 40.00 |\n| SimCSE | 2 | 51.50 ± 2.12 |\n| On the fly | — | — |\n\n")


def test_csv_by_hand() -> None:
    made = table({"encoder": rows_of(40.0), "simcse": rows_of(50.0, 53.0)}).csv()
    assert made == "row,n,tiny mean,tiny sd\nEncoder,1,40.0000,\nSimCSE,2,51.5000,2.1213\nOn the fly,0,,\n"


def test_a_missing_seed_is_never_averaged() -> None:
    made = table({"simcse": rows_of(50.0, 53.0)[1:]})
    assert made.rows[1] == ("SimCSE", 1, (Cell((53.0,)),))


def test_the_average_column_is_the_mean_of_the_rows_averages() -> None:
    rows = [make_row({"STS12": 60.0, "STS-B": 70.0}), make_row({"STS12": 64.0, "STS-B": 72.0}, seed=1)]
    made = table({"simcse": rows})
    assert made.columns == ("STS12", "STS-B", "average")
    assert [str(cell) for cell in made.rows[1][2]] == ["62.00 ± 2.83", "71.00 ± 1.41", "66.50 ± 2.12"]


def test_one_task_needs_no_average() -> None:
    assert table({"simcse": rows_of(50.0)}).columns == ("tiny",)


@pytest.mark.parametrize("field", ["suite_sha256", "protocol"])
def test_rows_that_cannot_be_compared_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"'Title' differ in {field}") as caught:
        table({"simcse": rows_of(50.0), "otfkd": rows_of(51.0, **{field: "another"})})
    assert "another" in str(caught.value)


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    measured = {"simcse": rows_of(50.0, 53.0), "encoder": rows_of(40.0)}
    table(measured).write(tmp_path / "a", "main")
    table(dict(reversed(measured.items()))).write(tmp_path / "b", "main")
    for name in ("main.md", "main.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() != b""


def test_the_notes_warn_and_name_versions_and_data() -> None:
    warning, made = table({"simcse": rows_of(50.0)}).notes
    assert warning == WARNING
    for fact in ("otfkd 0.1.0 at 0123456789ab", "torch 2.13.0", "1 threads", "55555555", "cosine, 128 tokens", "dev"):
        assert fact in made


def test_every_revision_of_the_rows_is_named() -> None:
    first, second = rows_of(50.0, 51.0)
    second = make_row(seed=1, environment={**second.environment, "git_revision": "fedcba987654-dirty"})
    note = table({"simcse": [first, second]}).notes[1]
    assert "0123456789ab" in note and "fedcba987654" in note


def test_a_dirty_revision_is_shown_as_one() -> None:
    row = rows_of(50.0)[0]
    dirty = row.model_copy(update={"environment": {**row.environment, "git_revision": "f" * 40 + "-dirty"}})
    assert "ffffffffffff-dirty" in table({"simcse": [dirty]}).notes[1]


def test_differing_versions_are_all_named() -> None:
    first, second = rows_of(50.0, 51.0)
    versions = {**second.environment["versions"], "torch": "9.9.9"}
    second = second.model_copy(update={"environment": {**second.environment, "versions": versions}})
    assert "9.9.9" in table({"simcse": [first, second]}).notes[1]


def test_a_table_of_nothing_has_only_dashes() -> None:
    made = table({})
    assert made.notes == (WARNING,)
    assert "| SimCSE | — |" in made.markdown()


def test_terminal_scores_name_their_model() -> None:
    shown = scores([make_row(), make_row(split="dev", step=4, checkpoint="last")])
    assert "test: simcse, selected checkpoint, step 9, teacher generation 2, pooler cls, weights abcdef01" in shown
    assert "dev: simcse, last checkpoint, step 4" in shown


def test_terminal_scores_of_a_given_model_claim_no_step() -> None:
    shown = scores([make_row(seed=None, step=None, generation=None, checkpoint="given")])
    assert shown.startswith("test: simcse, pooler cls, weights abcdef01 (cosine, 128 tokens)")


def test_terminal_scores_show_each_aggregation_of_each_task() -> None:
    tasks = {"STS12": {"all": 1.0, "mean": 2.0, "wmean": 3.0, "pairs": 4.0}, "STS-B": dict.fromkeys(
        ("all", "mean", "wmean", "pairs"), 9.0)}  # fmt: skip
    lines = scores([make_row(scores=tasks, average=5.0)]).splitlines()
    found = [line.split()[-2:] for line in lines[1:6]]
    assert found == [["STS12", "STS-B"], ["1.00", "9.00"], ["2.00", "9.00"], ["3.00", "9.00"], ["4", "9"]]
    assert lines[6] == "average of 'all': 5.00"


def test_the_spread_is_of_a_sample() -> None:
    values = (61.3, 60.2, 64.9, 62.0)
    assert Cell(values).spread == statistics.stdev(values) != statistics.pstdev(values)
