"""What a report says of a table, by closed forms: rows whose differences to the baseline are whole numbers.

With three seeds whose differences are d - 1, d and d + 1 the standard error is 1 / sqrt(3), so the interval is
d ± 4.303 / sqrt(3) = d ± 2.48, and p = 1 - x / sqrt(x² + 2) with x = d sqrt(3), Student's distribution of 2 degrees.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import pytest

from otfkd.runs.rows import Row
from otfkd.tables.comparison import Comparison, comparisons
from otfkd.tables.definition import TableSpec
from otfkd.tables.findings import costs, findings
from otfkd.tables.measured import backbones
from otfkd.tables.published import Published, tabulated
from tests.support.published import make_cost, make_spec, published, rows_of

BASE = (50.0, 51.0, 52.0)


def spec_of(*names: str, **changes: Any) -> TableSpec:
    """Rows of these names, their labels in capitals; the first is the baseline and the teacher of all others."""
    rows = [
        {"name": name, "label": name.upper(), "experiment": "otfkd", "teacher": None if name == names[0] else names[0]}
        for name in names
    ]
    return make_spec(**{"rows": rows, "baseline": names[0], "profiles": {"mini": {"seeds": [0, 1, 2]}}, **changes})


def above(difference: float, **changes: Any) -> list[Row]:
    return rows_of(*(score + difference + spread for score, spread in zip(BASE, (-1, 0, 1), strict=True)), **changes)


def compared(spec: TableSpec, rows: Mapping[str, Sequence[Row]]) -> list[Comparison]:
    made = [one for name, own in rows.items() for one in published(name, own)]
    return _compared(spec, made)


def _compared(spec: TableSpec, made: Sequence[Published]) -> list[Comparison]:
    table = tabulated("tiny", spec, "mini", made)
    (measured,), (part,) = backbones(spec, "mini", made), table.parts
    return list(comparisons(part, measured, table.columns))


def said(spec: TableSpec, rows: Mapping[str, Sequence[Row]]) -> list[tuple[str, str]]:
    return list(findings(compared(spec, rows)[0]))


def costing(rows: Sequence[Row], forwards: int, seconds: float, **environment: Any) -> list[Row]:
    return [
        row.model_copy(update={
            "cost": make_cost(seconds, forwards), "environment": {**row.environment, **environment}
        })
        for row in rows
    ]  # fmt: skip


def test_each_row_is_told_with_its_difference_and_interval_by_what_may_be_claimed() -> None:
    spec = spec_of("base", "far", "near", "like")
    rows = {"base": rows_of(*BASE), "far": above(10), "near": above(3), "like": above(2)}
    found = compared(spec, rows)[0].found
    p = {name: 1 - d * sqrt(3) / sqrt(3 * d * d + 2) for name, d in {"far": 10, "near": 3, "like": 2}.items()}
    assert {name: one.p for name, one in found.items()} == pytest.approx(p)
    # Holm: 3 p, then 2 p, then p, never falling.
    adjusted = {"far": 3 * p["far"], "near": 2 * p["near"], "like": max(2 * p["near"], p["like"])}
    assert {name: one.adjusted for name, one in found.items()} == pytest.approx(adjusted)
    assert said(spec, rows) == [(
        "Against ‘BASE’ on tiny",
        "Told apart, also after Holm's correction over these rows: ‘FAR’ +10.00 (7.52 to 12.48), n = 3. "
        "A hint, whose interval leaves out 0 but not after the correction: ‘NEAR’ +3.00 (0.52 to 5.48), n = 3. "
        "Not told apart, which with so few seeds does not mean alike: ‘LIKE’ +2.00 (−0.48 to 4.48), n = 3.",
    )]  # fmt: skip


def test_a_row_below_the_baseline_is_told_apart_too() -> None:
    spec = spec_of("base", "worse")
    ((_, sentence),) = said(spec, {"base": rows_of(*BASE), "worse": above(-10)})
    assert sentence.endswith("‘WORSE’ −10.00 (−12.48 to −7.52), n = 3.")


def test_where_nothing_is_told_apart_that_is_said_first() -> None:
    ((_, sentence),) = said(spec_of("base", "like"), {"base": rows_of(*BASE), "like": above(1)})
    assert sentence == (
        "No row is told apart after Holm's correction over these rows. Not told apart, which with so few seeds does "
        "not mean alike: ‘LIKE’ +1.00 (−1.48 to 3.48), n = 3."
    )


def test_many_seeds_need_no_excuse() -> None:
    base = [50.0, 51.0, 52.0, 53.0, 54.0]
    other = [score + change for score, change in zip(base, (-2, -1, 0, 1, 2), strict=True)]
    ((_, sentence),) = said(spec_of("base", "like"), {"base": rows_of(*base), "like": rows_of(*other)})
    assert sentence.endswith(" Not told apart: ‘LIKE’ +0.00 (−1.96 to 1.96), n = 5.")  # 2.776 sqrt(2.5) / sqrt(5)


def test_one_seed_is_a_lead() -> None:
    ((_, sentence),) = said(spec_of("base", "one"), {"base": rows_of(*BASE), "one": rows_of(59.0)})
    assert sentence == "One seed: a lead, no interval: ‘ONE’ +9.00."


def test_a_difference_that_is_the_same_for_each_seed_has_no_interval_and_is_not_told_apart() -> None:
    same = rows_of(*(score + 5 for score in BASE))
    ((_, sentence),) = said(spec_of("base", "same"), {"base": rows_of(*BASE), "same": same})
    assert sentence.endswith("‘SAME’ +5.00, n = 3.") and "Told apart, also" not in sentence


def test_a_model_that_never_rotated_supports_no_claim() -> None:
    cost = make_cost(rotations=((5, "a" * 64), (8, "b" * 64)))
    rotating = [
        row.model_copy(update={"generation": generation, "cost": cost, "teacher_sha256": "t" * 64})
        for row, generation in zip(above(10), (0, 2, 0), strict=True)
    ]
    spec = spec_of("base", "turns")
    ((_, sentence),) = said(spec, {"base": rows_of(*BASE, cost=make_cost()), "turns": rotating})[:1]
    assert sentence == (
        "No claim about rotation, since dev chose models from before it: ‘TURNS’ +10.00 (7.52 to 12.48), n = 3, so in "
        "2 of 3 seeds, 2,000 passes and 2.0 minutes."
    )


def test_encoder_passes_count_the_teachers_and_minutes_are_told_where_they_compare() -> None:
    spec = spec_of("base", "far")
    rows = {"base": costing(rows_of(*BASE), 1200, 120), "far": costing(above(10), 1400, 150)}
    assert said(spec, rows)[0][0] == "Against ‘BASE’ on tiny (1,200 passes and 2.0 minutes)"
    assert said(spec, rows)[0][1].endswith("n = 3, 2,600 passes and 4.5 minutes.")


@pytest.mark.parametrize(
    ("seconds", "environment", "why"),
    [
        (150, {"threads": 4}, "the runs had different machines or numbers of threads."),
        (420, {}, "an encoder pass took from 0.1 to 0.3 s, so the machine did other work as well."),
    ],
)
def test_minutes_that_do_not_compare_are_left_out(seconds: float, environment: dict[str, int], why: str) -> None:
    rows = {"base": costing(rows_of(*BASE), 1200, 120), "far": costing(above(10), 1400, seconds, **environment)}
    first, second = said(spec_of("base", "far"), rows)
    assert "minutes" not in first[0] + first[1] and "2,600 passes" in first[1]
    assert second == ("Minutes are not compared", why)


def test_a_row_is_compared_with_the_one_it_is_to_beat_and_then_all_with_each() -> None:
    rows = [
        {"name": "base", "label": "Base", "experiment": "simcse"},
        {"name": "fixed", "label": "Fixed", "experiment": "distill_static"},
        {"name": "turns", "label": "Turns", "experiment": "otfkd", "against": "fixed"},
    ]
    spec = spec_of("base", rows=rows)
    measured = {"base": rows_of(*BASE), "fixed": above(10), "turns": above(12)}
    each, *others = compared(spec, measured)
    assert each.references == {"fixed": "base", "turns": "fixed"}
    assert [head for head, _ in findings(each)] == ["Against ‘Base’ on tiny", "Against ‘Fixed’ on tiny"]
    assert each.found["turns"].gain == pytest.approx(2)
    assert [one.key for one in others] == ["base", "fixed", "turns"]
    assert {name: one.gain for name, one in others[2].found.items()} == pytest.approx({"base": -12, "fixed": -2})


def test_without_a_row_of_its_own_the_baseline_is_shown_first() -> None:
    rows = {"base": rows_of(*BASE), "far": above(10), "near": above(3)}
    spec = spec_of("base", "far", "near", baseline="near")
    assert [one.key for one in compared(spec, rows)] == ["near", "base", "far"]
    assert compared(spec_of("base", "far", "near", baseline=None), rows) == []


def test_a_table_of_costs_says_how_much_more_passes_each_row_takes() -> None:
    spec = spec_of("base", "far", kind="cost")
    cost = {"base": costing(rows_of(*BASE), 1200, 120), "far": costing(above(10), 1800, 150, threads=8)}
    rows = {
        name: [row.model_copy(update={"cost": make_cost(row.cost.seconds, row.cost.forwards, [(9, 1.0, 1.0)])})
               for row in own if row.cost is not None]
        for name, own in cost.items()
    }  # fmt: skip
    made = [one for name, own in rows.items() for one in published(name, own)]
    table = tabulated("tiny", spec, "mini", made)
    (measured,), (part,) = backbones(spec, "mini", made), table.parts
    assert list(costs(part, measured, table.columns)) == [
        ("k forwards with teacher, ‘BASE’ 1.20", "‘FAR’ ×2.50."),
        ("Minutes are not compared", "the runs had different machines or numbers of threads."),
    ]
    assert list(comparisons(part, measured, table.columns)) == []
