"""The report: one HTML page with what each table found, the table, its figures and how each row was made.

It is built from published rows alone and is whole by itself. What depends on a choice, such as the row that others are
compared with, is computed here for every choice; `report.js` only switches what is shown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from otfkd.tables.comparison import Comparison, comparisons
from otfkd.tables.definition import TableSpec, profile_note
from otfkd.tables.drawings import Drawing, drawings
from otfkd.tables.findings import costs, findings
from otfkd.tables.forest import forest
from otfkd.tables.looks import Looks, page_looks, same_method
from otfkd.tables.made import commands, corpora, days, encoders, row_command, run_folders
from otfkd.tables.markup import body, group, inside_file, key, marks, row, table, tag
from otfkd.tables.measured import Backbone, backbones
from otfkd.tables.notes import made_with
from otfkd.tables.published import Published, tabulated
from otfkd.tables.table import MISSING, Cell, Line, Part, Table


def report(specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]) -> str:
    """The page; the same rows give the same bytes.

    Args:
        specs: definitions of the tables to show, by name, in order.
        profile: at which they were made.
        published: their rows; folders are as seen from the results file.
    """
    here = Path(__file__)
    page, style, script = (here.with_suffix(kind).read_text(encoding="utf-8") for kind in (".html", ".css", ".js"))
    contents = [f'<li><a href="#{name}">{escape(spec.title)}</a></li>' for name, spec in specs.items()]
    looks = page_looks(specs, profile, published)
    known = {name: _also(name, specs, profile, published) for name in specs}
    sections = [_Section(name, spec, profile, published, looks[name], known[name]) for name, spec in specs.items()]
    return Template(page).substitute(
        style=style,
        script=script,
        profile=profile,
        note=escape(profile_note(profile)),
        marks=marks(),
        contents="\n".join(contents),
        sections="\n".join(section.html() for section in sections),
        facts=_facts(specs, profile, published),
        commands="\n".join(_commands(name, spec, profile, published) for name, spec in specs.items()),
    )


class _Section:
    """One table of the page, with all that belongs to it."""

    def __init__(
        self,
        name: str,
        spec: TableSpec,
        profile: str,
        published: Sequence[Published],
        looks: Looks,
        also: Sequence[str],
    ) -> None:
        own = [one for one in published if one.table == name]
        self._name, self._spec, self._looks, self._also = name, spec, looks, also
        self._rows = [row.name for row in spec.at(profile)]
        self._table = tabulated(name, spec, profile, published)
        self._backbones = list(backbones(spec, profile, own))
        self._compared = [
            list(comparisons(part, measured, self._table.columns))
            for part, measured in zip(self._table.parts, self._backbones, strict=True)
        ]

    def html(self) -> str:
        figures = [_figure(one) for part in self._backbones for one in drawings(self._name, part, self._looks)]
        notes = [*self._table.notes[1:], *self._also]  # the first is the page's own
        parts = [
            f'<section id="{self._name}">',
            f"<h2>{escape(self._table.title)}</h2>",
            self._tools(),
            *self._variants(),
            self._scores(),
            self._files(),
            tag("div", "".join(f"<p>{escape(note)}</p>" for note in notes), kind="notes"),
            *figures,
            "</section>",
        ]
        return "\n".join(filter(None, parts))

    @property
    def _choices(self) -> dict[str, str]:
        """What rows may be compared with, by the key that stands for it in the page; the first is shown."""
        return {one.key: one.label for every in self._compared for one in every}

    def _tools(self) -> str:
        """What the script works with, hidden where there is none."""
        choices = "".join(tag("option", escape(label), value=key) for key, label in self._choices.items())
        against = f'<label>Compare with <select data-switch="against">{choices}</select></label>' if choices else ""
        search = '<label>Show rows with <input type="search" data-filter size="12"></label>'
        return tag("p", against + search, kind="tools", hidden=True)

    def _variants(self) -> Iterator[str]:
        """Findings and forest plot, once for each choice."""
        first = next(iter(self._choices), None)
        for part, measured, compared in zip(self._table.parts, self._backbones, self._compared, strict=True):
            title = tag("h3", escape(part.model)) if part.model else ""
            if self._spec.kind == "cost":
                yield title + _findings(costs(part, measured, self._table.columns))
            for one in compared:
                shown = _findings(findings(one)) + forest(one, self._looks)
                yield tag("div", f"\n{title}{shown}\n", data_against=one.key, hidden=one.key != first)

    def _scores(self) -> str:
        head = ["", *map(escape, self._table.head)]
        if self._choices:
            head.append(f"difference of {escape(self._compared_column())}")
        if self._spec.kind != "cost":
            head.append("passes")
        return table(
            "scores", head, [body_ for at in range(len(self._backbones)) for body_ in self._bodies(at, len(head))]
        )

    def _compared_column(self) -> str:
        return next(one.column for every in self._compared for one in every)

    def _bodies(self, at: int, width: int) -> Iterator[str]:
        """The measured rows of one backbone, then the quoted ones in a body of their own."""
        part, measured = self._table.parts[at], self._backbones[at]
        lines = [self._line(name, line, at, measured) for name, line in zip(self._rows, part.lines, strict=True)]
        yield body("", [*([group(part.model, width)] if part.model else []), *lines])
        if part.quoted:
            yield body(
                "quoted", [group("Quoted as published, not measured here", width), *_quoted(self._table, part, width)]
            )

    def _line(self, name: str, line: Line, at: int, measured: Backbone) -> str:
        cells = [tag("td", line.counted, data_value=line.n), tag("td", line.generation), *map(_cell, line.cells)]
        if self._choices:
            cells.append(_differences(self._compared[at], name, next(iter(self._choices))))
        if self._spec.kind != "cost":
            spec_row = next((one for one in measured.rows if one.name == name), None)
            passes = None if spec_row is None else measured.compute(spec_row)
            cells.append(tag("td", MISSING if passes is None else f"{passes:,.0f}", data_value=passes))
        return row(key(self._looks.get(name)) + escape(line.marked), cells)

    def _files(self) -> str:
        files = self._table.files(self._name)
        links = " ".join(f"{inside_file(name, text)}{_COPY}" for name, text in files.items())
        return tag("p", f"The table as a file: {links}", kind="files")


_COPY = ' <button type="button" data-copy hidden>copy</button>'


def _findings(said: Iterable[tuple[str, str]]) -> str:
    items = [tag("li", f"{tag('strong', escape(head))}: {escape(rest)}") for head, rest in said]
    return tag("ul", "\n".join(items), kind="findings") + "\n" if items else ""


def _cell(cell: Cell) -> str:
    mean, _, spread = cell.text("|").partition("|")
    text = f"{mean}<span>&nbsp;±&nbsp;{spread}</span>" if spread else mean
    seeds = [f"{'untrained' if seed is None else f'seed {seed}'}: {value:.2f}" for seed, value in cell.values.items()]
    content = tag("strong", text) if cell.better else text
    value = None if cell.mean is None else f"{cell.mean:.4f}"
    if len(seeds) < 2:
        return tag("td", content, data_value=value)
    return tag("td", content, data_value=value, data_seeds="\n".join(seeds), tabindex=0)


def _differences(compared: Sequence[Comparison], name: str, first: str) -> str:
    """A row's difference under each choice, one of which is shown."""
    spans = []
    for one in compared:
        found = one.found.get(name)
        text = MISSING if found is None else found.text
        inside = tag("strong", text) if found is not None and found.apart else text
        value = None if found is None else f"{found.gain:.4f}"
        spans.append(tag("span", inside, data_against=one.key, hidden=one.key != first, data_value=value))
    return tag("td", "".join(spans), kind="difference")


def _quoted(found: Table, part: Part, width: int) -> Iterator[str]:
    for one in part.quoted:
        cells = [tag("td", escape(text)) for text in found.published(one)]
        cells += ["<td></td>"] * (width - 1 - len(cells))
        yield row(f"{escape(one.label)} ({escape(one.source)})", cells)


def _figure(drawing: Drawing) -> str:
    caption = escape(drawing.caption)
    if drawing.svg is None:
        return f'<p class="notes">{caption}</p>'
    svg = drawing.svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
    return f'<figure class="drawn">\n{tag("div", svg)}\n<figcaption>{caption}</figcaption>\n</figure>'


def _also(name: str, specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]) -> list[str]:
    """Which rows are rows of other tables too, under whatever name."""
    labels = {(table_, row_.name): row_.label for table_, spec in specs.items() for row_ in spec.at(profile)}
    models: dict[tuple[str, str], set[str]] = {}
    for one in published:
        models.setdefault((one.table, one.row), set()).add(one.result.weights_sha256)
    pairs = [
        f"{labels[place]} is ‘{labels[other]}’ of table {other[0]}"
        + ("" if models[place] & models[other] else ", trained anew there")
        for place, others in same_method(specs, profile, published).items()
        if place[0] == name
        for other in others
    ]
    return [f"The same config in another table has the same colour and marker: {'; '.join(pairs)}."] if pairs else []


def _commands(name: str, spec: TableSpec, profile: str, published: Sequence[Published]) -> str:
    """For each row of a table its command and its runs."""
    own = [one for one in published if one.table == name]
    items = []
    for measured in backbones(spec, profile, own):
        of_model = [one for runs in measured.runs.values() for one in runs]
        for spec_row in measured.rows:
            runs = measured.runs[spec_row.name]
            label = spec_row.label if measured.model is None else f"{measured.model}: {spec_row.label}"
            command = escape(row_command(spec, spec_row, runs, of_model))
            items.append(f"<dt>{escape(label)}</dt>\n<dd><code>{command}</code>{_COPY}<br>{_links(runs)}</dd>\n")
    return f"<h3>{escape(spec.title)}</h3>\n{tag('dl', ''.join(items), kind='made')}"


def _links(runs: Sequence[Published]) -> str:
    """The folder that the seeds share, and each one's own as a link where others have it there too."""
    shared, named = run_folders(runs)
    links = [name if address is None else tag("a", escape(name), href=address) for name, address in named]
    return f'<span class="runs"><code>{escape(shared)}</code> {" ".join(links)}</span>'


def _facts(specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]) -> str:
    rows = [one.result for one in published]
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    facts = {
        "Command": [f"<code>{escape(one)}</code>{_COPY}" for one in commands(specs, profile, published)],
        "Encoder": [escape(one) for one in encoders(profile, published)],
        "Seeds": [", ".join(map(str, seeds))],
        "Runs ended": [days(published)],
        "Made with": [escape(made) for made in sorted({made_with(row) for row in rows})],
        "Trained on": [f"{escape(text)}, sha256 <code>{sha}</code>" for text, sha in corpora(profile, published)],
        "Scored on": sorted({f"{escape(row.suite)}, sha256 <code>{row.suite_sha256}</code>" for row in rows}),
        "Protocols": sorted({escape(row.protocol) for row in rows}),
    }
    return table("facts", [], [body("", [row(what, [tag("td", "<br>".join(told))]) for what, told in facts.items()])])
