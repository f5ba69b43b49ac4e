"""Figures that pages cite: checked against pencil and paper, written, and refused where nothing is behind them."""

from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.tables.cited import pages, written, wrong_figures
from otfkd.tables.published import order_of, publish
from tests.support.published import ROWS, make_cost, make_spec, published
from tests.support.rows import make_row

SPEC = make_spec(rows=ROWS[1:])
# Differences 1, 2 and 3: mean 2, standard deviation 1, and t(0.975, 2) = 4.303 times 1 / sqrt(3) is 2.48.
BEFORE, AFTER = (50.0, 51.0, 52.0), (51.0, 53.0, 55.0)


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose rows are of SimCSE and of a student that it taught, with two tasks."""
    monkeypatch.setattr("otfkd.tables.cited.load_table", lambda *_: SPEC)
    folder = tmp_path / "experiments"
    made = {
        name: [
            make_row(
                {"STS12": score, "STS-B": score}, seed=seed, generation=seed, teacher_sha256="t" * 64,
                cost=make_cost(forwards=passes, curve=[(5, 1.0, 1.0), (9, 80.0 + seed, 2.0)]),
            )
            for seed, score in enumerate(scores)
        ]
        for name, scores, passes in (("simcse", BEFORE, 1200), ("otfkd", AFTER, 1400))
    }  # fmt: skip
    rows = [one for name, each in made.items() for one in published(name, each)]
    publish(rows, folder / "results/mini.jsonl", order_of({"tiny": SPEC}, "mini"))
    (folder / "README.md").write_text("Experiments.")
    (tmp_path / "docs").mkdir()
    return folder


def cite(experiments: Path, what: str, shown: str = "") -> Path:
    page = experiments.parent / "docs/page.md"
    page.write_text(f"One.\n\nTwo <!-- {what} -->{shown}<!-- / -->, three.\n", encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("mini/tiny, simcse, average", "51.00 ± 1.00"),
        ("mini/tiny, otfkd, STS-B", "53.00 ± 2.00"),
        ("mini/tiny, otfkd, average, mean", "53.00"),
        ("mini/tiny, otfkd, dev", "81.00 ± 1.00"),
        ("mini/tiny, otfkd, passes", "2,600"),
        ("mini/tiny, simcse, passes", "1,200"),
        ("mini/tiny, simcse, n", "3"),
        ("mini/tiny, otfkd, unrotated", "1"),
        ("mini/tiny, otfkd - simcse, average", "+2.00 (-0.48 to 4.48)"),
        ("mini/tiny, simcse - otfkd, STS12", "-2.00 (-4.48 to 0.48)"),
        ("mini/tiny, otfkd - simcse, average, gain", "+2.00"),
        ("mini/tiny, otfkd - simcse, average, interval", "-0.48 to 4.48"),
    ],
)
def test_a_figure_is_what_its_rows_give(experiments: Path, what: str, shown: str) -> None:
    page = cite(experiments, what)
    text = written(page, experiments)
    assert text == f"One.\n\nTwo <!-- {what} -->{shown}<!-- / -->, three.\n"
    page.write_text(text, encoding="utf-8")
    assert wrong_figures(experiments) == []


def test_another_number_is_told_with_file_line_wanted_and_found(experiments: Path) -> None:
    page = cite(experiments, "mini/tiny, simcse, average", "51.01 ± 1.00")
    (wrong,) = wrong_figures(experiments)
    assert str(wrong) == f"{page}:3: mini/tiny, simcse, average is 51.00 ± 1.00 by its rows, and 51.01 ± 1.00 here"


def test_line_breaks_are_no_difference_and_stay(experiments: Path) -> None:
    page = cite(experiments, "mini/tiny, otfkd -\nsimcse, average", "+2.00\n(-0.48 to 4.48)")
    assert wrong_figures(experiments) == []
    assert written(page, experiments) == page.read_text()


def test_several_figures_of_a_line_are_each_their_own(experiments: Path) -> None:
    page = experiments.parent / "README.md"
    page.write_text(
        "<!-- mini/tiny, simcse, n -->3<!-- / -->, <!-- mini/tiny, otfkd, n -->4<!-- / --> <!-- a comment -->\n"
    )
    assert [(one.line, one.wanted, one.found) for one in wrong_figures(experiments)] == [(1, "3", "4")]
    assert written(page, experiments) == page.read_text().replace(">4<", ">3<")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("mini/tiny, simsce, average", r"page\.md:3 names row simsce of tiny, but .*has of that table: simcse, otfkd"),
        ("mini/gone, simcse, average", r"names row simcse of gone, but .* has of that table: none"),
        ("mini/tiny/bert_base, simcse, average", r"names row simcse of tiny, but .* has of that table: none"),
        ("small/tiny, simcse, average", r"names profile small, but .*small\.jsonl is not there"),
        ("mini/tiny, simcse, STS99", r"names the column STS99, which row simcse of tiny does not have"),
        ("mini/tiny, simcse", r"names mini/tiny, simcse: write PROFILE/TABLE, ROW, COLUMN"),
        ("mini/tiny, simcse, average, gain", r"gain is of two rows"),
        ("mini/tiny, otfkd - simcse, average, mean", r"shown whole, or as gain or interval, not as mean"),
    ],
)
def test_what_is_not_there_is_refused_in_a_sentence(experiments: Path, what: str, told: str) -> None:
    cite(experiments, what)
    with pytest.raises(UserError, match=told) as caught:
        wrong_figures(experiments)
    assert "\n" not in str(caught.value)


def test_a_comment_that_is_not_closed_is_refused(experiments: Path) -> None:
    page = experiments.parent / "README.md"
    page.write_text("<!-- mini/tiny, simcse, n -->3 <!-- mini/tiny, otfkd, n -->3<!-- / -->\n")
    with pytest.raises(UserError, match=r"README\.md:1: mini/tiny, simcse, n is not closed"):
        wrong_figures(experiments)


def test_only_pages_of_the_project_are_read(experiments: Path) -> None:
    project = experiments.parent
    (project / "README.md").write_text("One.")
    (project / "docs/deep").mkdir()
    for name in ("a.md", "deep/b.md", "c.txt"):
        (project / "docs" / name).write_text("One.")
    assert [str(page.relative_to(project)) for page in pages(experiments)] == [
        "README.md", "docs/a.md", "experiments/README.md",
    ]  # fmt: skip
    (experiments / "README.md").unlink()
    assert pages(experiments) == []
