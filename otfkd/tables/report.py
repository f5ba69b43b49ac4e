"""The report: one HTML page with every table, its figures and how each row was made, from published rows alone."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path, PurePosixPath
from string import Template

from otfkd.tables.definition import RowSpec, TableSpec, profile_note
from otfkd.tables.drawings import Drawing, drawings
from otfkd.tables.notes import made_with
from otfkd.tables.published import Published, tabulated
from otfkd.tables.table import Cell, Part, Table


def report(specs: Mapping[str, TableSpec], profile: str, published: Sequence[Published]) -> str:
    """The page; the same rows give the same bytes.

    Args:
        specs: definitions of the tables to show, by name, in order.
        profile: at which they were made.
        published: their rows; folders are as seen from the results file.
    """
    page = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    contents = [f'<li><a href="#{name}">{escape(spec.title)}</a></li>' for name, spec in specs.items()]
    return page.substitute(
        profile=profile,
        note=escape(profile_note(profile)),
        contents="\n".join(contents),
        sections="\n".join(_section(name, spec, profile, published) for name, spec in specs.items()),
        facts=_facts(profile, list(specs), published),
        commands="\n".join(_commands(name, spec, profile, published) for name, spec in specs.items()),
    )


def _section(name: str, spec: TableSpec, profile: str, published: Sequence[Published]) -> str:
    table, own = tabulated(name, spec, profile, published), [one for one in published if one.table == name]
    notes = [f"<p>{escape(note)}</p>" for note in table.notes[1:]]  # the first is the page's own
    head = ["", *map(escape, table.head)]
    parts = [
        f'<section id="{name}">',
        f"<h2>{escape(table.title)}</h2>",
        _table("scores", head, [body for part in table.parts for body in _bodies(table, part)]),
        f'<div class="notes">{"".join(notes)}</div>',
        *(_figure(drawing) for drawing in drawings(name, spec, profile, own)),
        "</section>",
    ]
    return "\n".join(parts)


def _table(kind: str, head: Sequence[str], bodies: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    top = f"<thead><tr>{cells}</tr></thead>\n" if head else ""
    return f'<div class="wide"><table class="{kind}">\n{top}{"".join(bodies)}</table></div>'


def _body(kind: str, rows: Sequence[str]) -> str:
    return f"<tbody{f' class={kind}' if kind else ''}>\n{''.join(rows)}</tbody>\n"


def _row(label: str, cells: Sequence[str]) -> str:
    """A row of cells, which are HTML, after its label, which is text."""
    return f'<tr><th scope="row">{escape(label)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'


def _bodies(table: Table, part: Part) -> Iterator[str]:
    """The measured rows of one backbone, then the quoted ones in a body of their own."""
    width = 1 + len(table.head)
    lines = [_row(line.marked, [line.counted, line.generation, *map(_cell, line.cells)]) for line in part.lines]
    yield _body("", [*([_group(part.model, width)] if part.model else []), *lines])
    if part.quoted:
        quoted = [_row(f"{one.label} ({one.source})", table.published(one)) for one in part.quoted]
        yield _body("quoted", [_group("Quoted as published, not measured here", width), *quoted])


def _group(label: str, width: int) -> str:
    return f'<tr class="group"><th colspan="{width}" scope="rowgroup">{escape(label)}</th></tr>\n'


def _cell(cell: Cell) -> str:
    mean, _, spread = cell.text("|").partition("|")
    text = f"{mean}<span>&nbsp;±&nbsp;{spread}</span>" if spread else mean
    return f"<strong>{text}</strong>" if cell.better else text


def _figure(drawing: Drawing) -> str:
    caption = escape(drawing.caption)
    if drawing.svg is None:
        return f'<p class="notes">{caption}</p>'
    svg = drawing.svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
    return f"<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>"


def _commands(name: str, spec: TableSpec, profile: str, published: Sequence[Published]) -> str:
    """For each row of a table its command and its runs."""
    lines = []
    for model in spec.profiles[profile].models or (None,):
        for row in spec.at(profile):
            runs = [one for one in published if (one.table, one.model, one.row) == (name, model, row.name)]
            if runs:
                label = row.label if model is None else f"{model}: {row.label}"
                command = escape(_command(spec, profile, row, runs))
                lines.append(_row(label, [f"<code>{command}</code>", _links(runs)]))
    return f"<h3>{escape(spec.title)}</h3>\n{_table('made', ['Row', 'Command', 'Runs'], [_body('', lines)])}"


def _command(spec: TableSpec, profile: str, row: RowSpec, runs: Sequence[Published]) -> str:
    first, seeds = runs[0], [str(one.result.seed) for one in runs]
    if first.result.seed is None:
        return f"otfkd-eval model={first.result.name} model.pooler={first.result.pooler}"
    arguments = [one for one in first.arguments if not one.startswith("seed=")]
    labels = {other.name: other.label for other in spec.at(profile)}
    starts = [f"{group}=(run of '{labels[other]}', same seed)" for group, other in row.starts.items()]
    sweep = ["-m"] if len(seeds) > 1 else []
    return " ".join(["otfkd-train", *sweep, *arguments, f"seed={','.join(seeds)}", *starts])


def _links(runs: Sequence[Published]) -> str:
    """The folder that the seeds share, and each one's own as a link."""
    links = []
    for one in runs:
        # The page lies in built/PROFILE, the results file, from which folders are told, in results.
        target = posixpath.normpath(posixpath.join("../../results", one.folder))
        links.append(f'<a href="{escape(target)}">{PurePosixPath(one.folder).name}</a>')
    shared = "/".join(PurePosixPath(runs[0].folder).parts[-3:-1])
    return f"<code>{escape(shared)}</code> {' '.join(links)}"


def _facts(profile: str, tables: Sequence[str], published: Sequence[Published]) -> str:
    rows = [one.result for one in published]
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    facts = {
        "Command": [f"<code>otfkd-reproduce --profile {profile} --tables {','.join(tables)}</code>"],
        "Seeds": [", ".join(map(str, seeds))],
        "Made with": [escape(made) for made in sorted({made_with(row) for row in rows})],
        "Trained on": sorted({f"sha256 <code>{row.corpus_sha256}</code>" for row in rows if row.corpus_sha256}),
        "Scored on": sorted({f"{escape(row.suite)}, sha256 <code>{row.suite_sha256}</code>" for row in rows}),
        "Protocols": sorted({escape(row.protocol) for row in rows}),
    }
    return _table("made", [], [_body("", [_row(what, ["<br>".join(found)]) for what, found in facts.items()])])
