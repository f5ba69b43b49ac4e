"""What a table shows of one run."""

import pytest

from otfkd.base.errors import UserError
from otfkd.evaluation.transfer import PROTOCOLS
from otfkd.runs.rows import Row
from otfkd.tables.columns import COSTS, cost_columns, score_columns, total_forwards
from tests.support.published import make_cost
from tests.support.rows import make_row


def transfer_row(protocol: str) -> Row:
    scores = {task: {"accuracy": accuracy, "n": 100.0} for task, accuracy in (("MR", 80.0), ("CR", 86.0))}
    return make_row(scores=scores, average=83.0, protocol=protocol, suite="transfer")


FULL = f"{PROTOCOLS['full'].description}, 512 tokens"


def test_a_sts_row_shows_all_pairs_of_each_task() -> None:
    task = {"all": 1.0, "mean": 2.0, "wmean": 3.0, "pairs": 4.0}
    row = make_row(scores={"STS12": task, "STS-B": {**task, "all": 5.0}}, average=3.0)
    assert score_columns(row, "sts") == {"STS12": 1.0, "STS-B": 5.0, "average": 3.0}


def test_a_transfer_row_shows_accuracies() -> None:
    assert score_columns(transfer_row(FULL), "transfer") == {"MR": 80.0, "CR": 86.0, "average": 83.0}


def test_the_fast_protocol_is_for_prototypes() -> None:
    with pytest.raises(UserError, match="scored by the fast protocol, for prototypes: score it with full"):
        score_columns(transfer_row(f"{PROTOCOLS['fast'].description}, 512 tokens"), "transfer")


def test_rows_of_other_tasks_are_refused() -> None:
    with pytest.raises(UserError, match=r"a table of sts scores was given a row of simcse with other tasks \(MR, CR\)"):
        score_columns(transfer_row(FULL), "sts")
    with pytest.raises(
        UserError, match=r"a table of transfer scores was given a row of simcse with other tasks \(tiny\)"
    ):
        score_columns(make_row(), "transfer")


def test_costs_in_their_units() -> None:
    row = make_row(cost=make_cost(90, 1500, [(1, 70.0, 30.0), (2, 71.0, 60.0), (3, 72.0, 90.0)], peak_bytes=2**31))
    teacher = make_row(cost=make_cost(30, 500))
    assert list(cost_columns(row, [teacher], 71.0).values()) == [1.5, 2.0, 1.5, 2.0, 2.0, 1.5]
    assert list(cost_columns(row, [teacher, teacher], 71.0).values()) == [1.5, 2.5, 1.5, 2.5, 2.0, 2.0]
    assert cost_columns(row, [], 71.0).keys() == {*COSTS}
    assert list(cost_columns(row, [], 71.0).values()) == [1.5, 1.5, 1.5, 1.5, 2.0, 1.0]


def test_the_target_is_reached_when_it_is_first_matched() -> None:
    row = make_row(cost=make_cost(90, 1, [(1, 71.0, 30.0), (2, 60.0, 60.0), (3, 71.0, 90.0)]))
    assert cost_columns(row, [], 71.0)[COSTS[5]] == 0.5
    assert cost_columns(row, [], 71.01)[COSTS[5]] is None
    assert cost_columns(row, [], None)[COSTS[5]] is None


def test_a_run_without_a_cost_has_no_forwards() -> None:
    costly, unknown = make_row(cost=make_cost(1, 7)), make_row()
    assert (total_forwards(costly, []), total_forwards(costly, [costly])) == (7, 14)
    for row, earlier in ((unknown, []), (costly, [unknown])):
        with pytest.raises(UserError, match="does not say what its training cost"):
            total_forwards(row, earlier)
