"""The report's script in a browser: it shows what Python computed, and changes none of it."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from otfkd.tables.report import report
from tests.support.published import make_spec, published, rows_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROWS = [{"name": name, "label": name.upper(), "experiment": "otfkd"} for name in ("base", "low", "high")]
SPEC = make_spec(rows=ROWS, baseline="base")
SCORES = {"base": (50.0, 51.0), "low": (40.0, 42.0), "high": (60.0, 62.0)}
# What is seen of a table: whole rows, but for those that are hidden and the choices that are.
SEEN = """
function seen() {
  const text = (cell) => [...cell.childNodes]
    .filter((node) => !node.hidden && node.nodeName !== "svg").map((node) => node.textContent).join("");
  return [...document.querySelectorAll("table.scores tbody tr")].filter((row) => !row.hidden)
    .map((row) => [text(row.cells[0]), text(row.querySelector(".difference"))]);
}
"""


def page() -> str:
    return report(
        {"tiny": SPEC}, "mini", [one for name, own in SCORES.items() for one in published(name, rows_of(*own))]
    )


def in_browser(folder: Path, actions: str) -> Any:
    """What some JavaScript gives at the end of the page, after the page's own script."""
    script = f"<script>{SEEN}document.title = JSON.stringify((() => {{ {actions} }})());</script></body>"
    (folder / "page.html").write_text(page().replace("</body>", script), encoding="utf-8")
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder}/profile",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, f"file://{folder}/page.html"], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(_Title.of(done.stdout))


class _Title(HTMLParser):
    title, _inside = "", False

    @classmethod
    def of(cls, text: str) -> str:
        parser = cls()
        parser.feed(text)
        return parser.title

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        self.title += data if self._inside else ""


class _Spans(HTMLParser):
    """The text of each choice in the column of differences, in the order of the page, and which are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, bool, str]] = []
        self._open: tuple[str, bool] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "span" and (key := known.get("data-against")) is not None:
            self._open = (key, "hidden" in known)
            self.found.append((*self._open, ""))

    def handle_endtag(self, tag: str) -> None:
        self._open = None if tag == "span" else self._open

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            key, hidden, text = self.found[-1]
            self.found[-1] = (key, hidden, text + data)


def test_differences_from_every_row_are_in_the_page_and_one_choice_is_shown() -> None:
    """What the script would have to compute is written by Python: it only changes what is hidden."""
    spans = _Spans()
    spans.feed(page())
    first = [(key, text.partition(" (")[0]) for key, hidden, text in spans.found if not hidden]
    assert first == [("base", "—"), ("base", "−9.50"), ("base", "+10.50")]
    by_key = {key: [text.partition(" (")[0] for own, _, text in spans.found if own == key] for key in SCORES}
    assert by_key == {
        "base": ["—", "−9.50", "+10.50"], "low": ["+9.50", "—", "+20.00"], "high": ["−10.50", "−20.00", "—"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        pytest.param("return seen();", [["BASE", "—"], ["LOW", "−9.50"], ["HIGH", "+10.50"]], id="as it comes"),
        pytest.param(
            "const choice = document.querySelector('select'); choice.value = 'low';"
            "choice.dispatchEvent(new Event('change')); return seen();",
            [["BASE", "+9.50"], ["LOW", "—"], ["HIGH", "+20.00"]],
            id="switch",
        ),
        pytest.param(
            "const heads = document.querySelectorAll('table.scores thead button'); heads[4].click(); return seen();",
            [["HIGH", "+10.50"], ["LOW", "−9.50"], ["BASE", "—"]],
            id="sort by the difference that is shown",
        ),
        pytest.param(
            "const heads = document.querySelectorAll('table.scores thead button'); heads[3].click(); heads[3].click();"
            "return seen();",
            [["LOW", "−9.50"], ["BASE", "—"], ["HIGH", "+10.50"]],
            id="sort twice, lowest first",
        ),
        pytest.param(
            "const input = document.querySelector('[data-filter]'); input.value = 'hi';"
            "input.dispatchEvent(new Event('input')); return seen();",
            [["HIGH", "+10.50"]],
            id="filter",
        ),
    ],
)
@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_script_switches_sorts_and_filters(actions: str, wanted: list[list[str]], tmp_path: Path) -> None:
    found = in_browser(tmp_path, actions)
    assert [[name, difference.partition(" (")[0]] for name, difference in found] == wanted


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_copy_is_of_the_file_in_the_link_before_it(tmp_path: Path) -> None:
    given = "return [...document.querySelectorAll('.files [data-copy]')].map(textFor);"
    markdown, table, latex = in_browser(tmp_path, given)
    assert markdown.startswith("**Title**") and latex.startswith("% Title")
    assert table.splitlines()[1].startswith(",BASE,measured,2,2,")
