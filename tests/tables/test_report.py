"""The report as a reader's browser takes it apart: what it says, what it links to, and that it is whole by itself."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

import otfkd.tables.drawings
from otfkd.runs.rows import Row
from otfkd.tables.built import built, differing
from otfkd.tables.definition import TableSpec
from otfkd.tables.drawings import drawings
from otfkd.tables.looks import page_looks
from otfkd.tables.measured import backbones
from otfkd.tables.published import Published, order_of, publish, read_published, tabulated
from otfkd.tables.report import report
from tests.support.published import ROWS, SWEPT, make_cost, make_spec, published, rows_of
from tests.support.rows import make_row

VOID = {"meta", "br", "path", "use", "rect", "circle", "line", "input"}
ORDER = order_of({}, "mini")
SPEC = make_spec(
    title="Scores & <more>", baseline="simcse", rows=[*ROWS, SWEPT],
    figures=["interval", "curves", "compute", "geometry"],
)  # fmt: skip


@dataclass
class Page(HTMLParser):
    """Checks that tags match, and keeps what the tests ask for."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    bold: list[str] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _open: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    @classmethod
    def of(cls, text: str) -> "Page":
        page = cls()
        HTMLParser.__init__(page)
        page.feed(text)
        page.close()
        assert page._open == []
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self._open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        within = [tag for tag, _ in self._open]
        if {"style", "svg", "title", "script"} & {*within}:
            return
        if data.strip():
            self.said.append(data.strip())
        if "td" in within or "th" in within:
            self.tables[-1][-1][-1] += data
            if "strong" in within and within[-1] == "strong":
                self.bold.append(data)
            if any(attributes.get("class") == "quoted" for _, attributes in self._open) and "th" in within:
                self.quoted.append(data)

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]


def costly(rows: list[Row], forwards: int, rotations: Iterator[int] | tuple[int, ...] = ()) -> list[Row]:
    """The same rows with a dev curve that rises, and rotations."""
    taught = tuple((step, "a" * 64) for step in rotations)
    curve = [(10, 40.0, 1.0), (20, 45.0, 2.0)]
    return [
        row.model_copy(update={"cost": make_cost(2.0, forwards, curve, rotations=taught), "corpus_sha256": "c" * 64})
        for row in rows
    ]


def some_rows() -> list[Published]:
    return [
        *published(
            "encoder", [make_row({"tiny": 30.0}, seed=None, config_hash=None, name="minilm")],
            arguments=["experiment=simcse"],
        ),
        *published("simcse", costly(rows_of(50.0, 51.0), 100), known_as="simcse"),
        *published("otfkd", costly(rows_of(60.0, 61.2), 120, (10,)), known_as="otfkd"),
        *published(
            "every_10", costly(rows_of(62.0, 61.0), 120, (10,)), known_as="every_10",
            arguments=["experiment=otfkd", "schedule.every=10"],
        ),
        *published(
            "every_20", costly(rows_of(64.0, 66.0), 110), known_as="every_20",
            arguments=["experiment=otfkd", "schedule.every=20"],
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def text() -> str:
    return report({"tiny": SPEC}, "mini", some_rows())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page.of(text)


def test_the_first_line_says_what_the_profile_is(page: Page) -> None:
    assert page.said[0] == "Profile mini shows the machinery in minutes; it is not evidence."


def test_it_is_whole_by_itself(page: Page, text: str) -> None:
    """Nothing is fetched: addresses are only of sections, runs, files that the page holds, and what is cited."""
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    assert not any(word in text for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "sendBeacon"))
    assert "link" not in {tag for tag, _ in page.tags} and "img" not in {tag for tag, _ in page.tags}
    assert page.attributes("src") == []
    assert "@import" not in text and "url(http" not in text
    outside = [address for address in page.attributes("href") if address.startswith("http")]
    assert outside == ["https://hdl.handle.net/10356/174236"]
    assert all(address.startswith("#") for address in page.attributes("xlink:href"))
    relative = [address for address in page.attributes("href") if address[0] != "#" and ":" not in address]
    assert relative and all(address.startswith("../../../runs/") for address in relative)


def test_its_ids_are_one_each_and_all_links_inside_lead_somewhere(page: Page, text: str) -> None:
    ids = page.attributes("id")
    assert len(ids) == len({*ids}) > 50
    inside = [address for name in ("href", "xlink:href") for address in page.attributes(name) if address[0] == "#"]
    assert {address[1:] for address in inside} <= {*ids}
    assert text.count("url(#") > 0
    assert {part.split(")")[0] for part in text.split("url(#")[1:]} <= {*ids}


def test_its_numbers_are_the_tables(page: Page) -> None:
    table = tabulated("tiny", SPEC, "mini", some_rows())
    shown = [[cell.replace("\xa0", " ") for cell in row] for row in page.tables[0]]
    assert shown[0] == ["", "n", "generation", "tiny", "difference of tiny", "passes"]
    assert [row[:4] for row in shown[1:]] == [
        [line.label, str(line.n), line.generation, *(cell.text(" ± ") for cell in line.cells)]
        for line in table.parts[0].lines
    ]
    assert [row[5] for row in shown[1:]] == ["—", "100", "220", "220", "210"]


def test_bold_and_quoted_are_set_apart() -> None:
    rows = [{"name": name, "label": name, "experiment": "otfkd"} for name in ("base", "good")]
    quoted = [{"label": "Theirs", "source": "Table 5", "model": "bert_base", "scores": {"tiny": 99.5}}]
    at = {"mini": {"seeds": [0], "models": {"bert_base": []}}}
    spec = make_spec(rows=rows, baseline="base", quoted=quoted, profiles=at)
    made = [
        *published("base", rows_of(50.0, 51.0, 52.0), model="bert_base"),
        *published("good", rows_of(60.0, 61.1, 62.0), model="bert_base"),
    ]
    page = Page.of(report({"tiny": spec}, "mini", made))
    # Differences 10, 10.1 and 10: mean 10.03, and t(0.975, 2) = 4.303 times 0.0577 / sqrt(3) is 0.143.
    assert page.bold == ["−10.03 (−10.18 to −9.89)", "61.03", "+10.03 (9.89 to 10.18)"]
    assert page.quoted == ["Quoted as published, not measured here", "Theirs (Table 5)"]
    assert page.tables[0][-1] == ["Theirs (Table 5)", "—", "—", "99.50", "", ""]


def test_what_is_written_into_it_is_text(page: Page) -> None:
    assert "Scores & <more>" in page.said
    assert not any(tag == "more" for tag, _ in page.tags)


def test_the_figures_that_the_table_asks_for(text: str, page: Page) -> None:
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "aria-label" in attributes]
    assert [str(label).split(",")[0].split(".")[0] for label in labels] == [
        "Test score against the distillation interval",
        "Dev score against the optimizer step",
        "Test score against compute",
        "Alignment of positive dev pairs (grade above 4) against uniformity of dev sentences; lower is better in both",
    ]
    assert text.count('<figure class="drawn">') == len(labels) == 4
    assert ">Compute (encoder forward passes, log scale)</text>" in text  # letters and no outlines


def test_how_each_row_was_made(page: Page) -> None:
    facts = {row[0]: row[1] for row in page.tables[-1]}
    assert facts["Command"] == "otfkd-reproduce --profile mini --tables tiny copy"  # and the button
    assert facts["Encoder"] == "minilm, pooler cls"
    assert facts["Seeds"] == "0, 1"
    assert facts["Runs ended"] == "not recorded for 9 of the 9 rows"
    assert facts["Trained on"] == f"mini, sha256 {'c' * 64}"
    assert facts["Scored on"] == f"tiny, sha256 {'5' * 64}"
    assert "torch 2.13.0" in facts["Made with"] and "0123456789ab" in facts["Made with"]
    assert facts["Protocols"] == "cosine, 128 tokens"
    at = page.said.index("On the fly", page.said.index("Protocols"))
    assert page.said[at + 1] == (
        "for seed in 0 1; do otfkd-train experiment=otfkd profile=mini teacher=runs/simcse/simcse/s$seed "
        "seed=$seed; done"
    )


def test_it_links_to_run_folders_from_where_it_lies(tmp_path: Path) -> None:
    experiments, run = tmp_path / "experiments", tmp_path / "runs/simcse/0123456789/s0"
    run.mkdir(parents=True)
    (one,) = published("simcse", rows_of(50.0))
    publish([one.model_copy(update={"folder": str(run)})], experiments / "results/mini.jsonl", ORDER)
    page = Page.of(report({"tiny": make_spec()}, "mini", read_published(experiments / "results/mini.jsonl")))
    (link,) = (address for address in page.attributes("href") if "runs" in address)
    lies = experiments / "built/mini"
    lies.mkdir(parents=True)
    assert (lies / link).resolve() == run.resolve()


def test_the_same_rows_give_the_same_bytes(text: str) -> None:
    assert report({"tiny": SPEC}, "mini", some_rows()) == text


def test_another_number_gives_another_page(text: str) -> None:
    rows = some_rows()
    rows[1] = rows[1].model_copy(update={"result": make_row({"tiny": 50.1}, cost=rows[1].result.cost)})
    assert report({"tiny": SPEC}, "mini", rows) != text


# Which figures, of what.


def captions(spec: TableSpec, rows: list[Published]) -> list[tuple[str, bool]]:
    looks = page_looks({"tiny": spec}, "mini", rows)["tiny"]
    every = [one for part in backbones(spec, "mini", rows) for one in drawings("tiny", part, looks)]
    return [(one.caption, one.svg is not None) for one in every]


def test_what_cannot_be_drawn_is_said() -> None:
    bare = [one.model_copy(update={"geometry": None}) for one in published("encoder", [make_row(seed=None)])]
    found = captions(SPEC, bare)
    assert [drawn for _, drawn in found] == [False] * 4
    assert [caption.partition(":")[0].partition(" is not drawn")[0] for caption, _ in found] == [
        "The score against the interval", "Dev curves are not drawn", "The score against compute",
        "Alignment against uniformity",
    ]  # fmt: skip
    assert captions(SPEC, []) == []


def test_each_backbone_has_figures_of_its_own() -> None:
    models: dict[str, list[str]] = {"bert_base": [], "roberta_base": []}
    spec = make_spec(figures=["curves"], profiles={"mini": {"seeds": [0], "models": models}})
    rows = [one for model in models for one in published("simcse", costly(rows_of(1.0, 2.0), 100), model=model)]
    assert [caption.split(":")[0] for caption, _ in captions(spec, rows)] == ["bert_base", "roberta_base"]


Drawn = Callable[..., Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What each figure was given; they are drawn and tested elsewhere."""
    given: dict[str, list[Any]] = {}

    def record(name: str) -> Drawn:
        def draw(*arguments: Any) -> Figure:
            given.setdefault(name, []).append(arguments)
            return Figure(figsize=(1, 1))

        return draw

    for name in ("curves", "against_compute", "against_interval", "geometry"):
        monkeypatch.setattr(otfkd.tables.drawings, name, record(name))
    return given


def test_the_interval_is_drawn_of_its_sweep_and_levels(drawn: Mapping[str, list[Any]]) -> None:
    captions(SPEC, some_rows())
    points, measure, levels, _, looks = drawn["against_interval"][0]
    assert [(point.label, point.x, point.scores) for point in points] == [
        ("Every N steps", 10.0, (62.0, 61.0)), ("Every N steps", 20.0, (64.0, 66.0)),
    ]  # fmt: skip
    assert levels == {"Encoder": (30.0,), "SimCSE": (50.0, 51.0), "On the fly": (60.0, 61.2)}
    assert measure == "Spearman × 100, tiny"
    assert looks["Every N steps"] == looks["Every 10 steps"] != looks["Every 20 steps"]


def test_compute_counts_the_teachers_too(drawn: Mapping[str, list[Any]]) -> None:
    captions(SPEC, some_rows())
    points, _, _, _ = drawn["against_compute"][0]
    assert {point.label: point.x for point in points} == {
        "SimCSE": 100, "On the fly": 220, "Every 10 steps": 220, "Every 20 steps": 210,
    }  # fmt: skip


def test_compute_counts_what_a_fine_tuned_model_was_made_of(drawn: Mapping[str, list[Any]]) -> None:
    tuned = {"name": "tuned", "label": "Fine-tuned", "experiment": "finetune_stsb", "student": "otfkd"}
    spec = make_spec(rows=[*ROWS, tuned], figures=["compute"])
    rows = {"simcse": costly(rows_of(1.0), 100), "otfkd": costly(rows_of(2.0), 120), "tuned": costly(rows_of(3.0), 30)}
    captions(spec, [one for name, made in rows.items() for one in published(name, made)])
    points, _, _, _ = drawn["against_compute"][0]
    assert {point.label: point.x for point in points} == {"SimCSE": 100, "On the fly": 220, "Fine-tuned": 250}
    captions(spec, [one for name in ("simcse", "tuned") for one in published(name, rows[name])])
    points, _, _, _ = drawn["against_compute"][1]
    assert [point.label for point in points] == ["SimCSE"]  # what the other was made of is not known


def test_curves_are_of_the_rows_with_their_rotations(drawn: Mapping[str, list[Any]]) -> None:
    captions(SPEC, some_rows())
    ((methods, _),) = drawn["curves"]
    assert [method.label for method in methods] == ["SimCSE", "On the fly", "Every 10 steps", "Every 20 steps"]
    assert [run.seed for run in methods[1].runs] == [0, 1]
    assert (methods[1].runs[0].dev, methods[1].runs[0].rotated) == ({10: 40.0, 20: 45.0}, (10,))


def test_many_methods_are_drawn_in_several_figures_beside_the_baseline(drawn: Mapping[str, list[Any]]) -> None:
    rows = [{"name": f"row{n}", "label": f"Row {n}", "experiment": "otfkd"} for n in range(8)]
    spec = make_spec(rows=rows, baseline="row3", figures=["curves"])
    captions(spec, [one for n in range(8) for one in published(f"row{n}", costly(rows_of(1.0), 100))])
    assert [[method.label[-1] for method in methods] for methods, _ in drawn["curves"]] == [
        ["3", "0", "1", "2", "4"], ["3", "5", "6", "7"],
    ]  # fmt: skip


def test_a_figure_holds_more_methods_than_there_are_colours() -> None:
    rows = [{"name": f"row{n}", "label": f"Row {n}", "experiment": "otfkd"} for n in range(12)]
    spec = make_spec(rows=rows, figures=["compute", "geometry"])
    made = [one for n in range(12) for one in published(f"row{n}", costly(rows_of(1.0 + n), 100), known_as=f"{n}")]
    assert [drawn for _, drawn in captions(spec, made)] == [True, True]
    looks = page_looks({"tiny": spec}, "mini", made)["tiny"].values()
    assert (
        len({(look.colour, look.marker) for look in looks})
        == len({(look.colour, str(look.line)) for look in looks})
        == 12
    )


def test_refusals_are_drawn_where_the_rows_know_their_steps(drawn: Mapping[str, list[Any]]) -> None:
    def refused(**known: Any) -> list[Published]:
        cost = make_cost(2.0, 100, [(10, 40.0, 1.0), (20, 45.0, 2.0)], refused=2, **known)
        return published("otfkd", [row.model_copy(update={"cost": cost}) for row in rows_of(1.0)])

    spec = make_spec(figures=["curves"])
    ((caption, _),) = captions(spec, refused(refused_at=(5, 10)))
    assert drawn["curves"][0][0][0].runs[0].refused == (5, 10)
    assert "tell the number" not in caption
    ((caption, _),) = captions(spec, refused())
    assert drawn["curves"][1][0][0].runs[0].refused == ()
    assert caption.endswith("Of some refusals the rows tell the number and not the step (On the fly seed 0: 2).")


# All that is built.


def test_everything_is_built_and_nothing_else_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otfkd.tables.built.load_table", lambda name, profile: make_spec())
    results = tmp_path / "results/mini.jsonl"
    rows = [one for name in ("tiny", "main") for one in published("otfkd", rows_of(60.0, 61.0), table=name)]
    publish(rows, results, ORDER)
    files = built("mini", read_published(results), {})
    kinds = ("md", "csv", "tex")
    assert files.keys() == {"report.html", *(f"{name}.{kind}" for name in ("main", "tiny") for kind in kinds)}
    page = Page.of(files["report.html"])
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == ["main", "tiny", "made"]
    folder = tmp_path / "built/mini"
    assert {*differing(tmp_path)} == {folder / name for name in files}
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    assert differing(tmp_path) == []
    (folder / "report.html").write_text(files["report.html"].replace("60.50", "60.51"))
    (folder / "gone.md").touch()
    assert differing(tmp_path) == [folder / "report.html", folder / "gone.md"]
