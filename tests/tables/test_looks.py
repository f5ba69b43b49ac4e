"""A method has one look throughout a page, whatever a table calls it."""

from otfkd.reporting.style import LOOKS, many_looks
from otfkd.runs.rows import Row
from otfkd.tables.looks import page_looks, same_method
from otfkd.tables.published import Published
from tests.support.published import ROWS, make_spec, published, rows_of
from tests.support.rows import make_row

SECOND = [
    {"name": "twin", "label": "Twin", "experiment": "otfkd"},
    {"name": "new", "label": "New", "experiment": "otfkd"},
]
SPECS = {"first": make_spec(), "second": make_spec(rows=SECOND)}


def of(table: str, row: str, config: str, rows: list[Row] | None = None) -> list[Published]:
    return published(row, rows or rows_of(50.0, 51.0), table=table, known_as=config)


def test_rows_of_one_config_look_the_same_in_every_table() -> None:
    rows = [
        *of("first", "simcse", "a"),
        *of("first", "otfkd", "b"),
        *of("second", "twin", "b"),
        *of("second", "new", "c"),
    ]
    looks = page_looks(SPECS, "mini", rows)
    assert looks == {
        "first": {"simcse": LOOKS[0], "otfkd": LOOKS[1]}, "second": {"twin": LOOKS[1], "new": LOOKS[2]},
    }  # fmt: skip
    same = same_method(SPECS, "mini", rows)
    assert same["second", "twin"] == [("first", "otfkd")] and same["first", "otfkd"] == [("second", "twin")]
    assert same["second", "new"] == same["first", "simcse"] == []


def test_a_config_that_was_given_another_hash_since_is_known_by_that_of_today() -> None:
    old = published("twin", rows_of(50.0, config_hash="old"), table="second", known_as="b")
    looks = page_looks(SPECS, "mini", [*of("first", "otfkd", "b"), *old])
    assert looks["second"]["twin"] == looks["first"]["otfkd"]


def test_an_untrained_encoder_is_not_the_method_that_would_train_it() -> None:
    untrained = of("first", "encoder", "a", [make_row(seed=None)])
    looks = page_looks(SPECS, "mini", [*untrained, *of("first", "simcse", "a")])["first"]
    assert looks["encoder"] != looks["simcse"]


def test_a_method_looks_the_same_with_every_backbone() -> None:
    models = {"mini": {"seeds": [0], "models": {"bert_base": [], "roberta_base": []}}}
    spec = make_spec(profiles=models, rows=ROWS[1:])
    rows = [
        one
        for model in ("bert_base", "roberta_base")
        for name in ("simcse", "otfkd")
        for one in published(name, rows_of(50.0), model=model, known_as=f"{model} {name}")
    ]
    assert page_looks({"tiny": spec}, "mini", rows)["tiny"] == {"simcse": LOOKS[0], "otfkd": LOOKS[1]}


def test_many_looks_differ_without_their_colour_and_without_their_line() -> None:
    looks = many_looks(80)
    assert looks[: len(LOOKS)] == LOOKS
    assert len({(one.colour, one.marker) for one in looks}) == len({(one.colour, str(one.line)) for one in looks}) == 80
