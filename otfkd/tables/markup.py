"""Pieces of HTML that the report is made of."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import quote

from otfkd.reporting.style import Look

# Matplotlib's markers as paths around (0, 0), 10 wide.
_SHAPES = {
    "o": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "s": "M-4-4H4V4H-4z",
    "^": "M0-5L5 4H-5z",
    "D": "M0-5.5L5.5 0L0 5.5L-5.5 0z",
    "v": "M0 5L5-4H-5z",
    "P": "M-1.8-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5V-1.8H-1.8z",
    "X": "M-5-2.5L-2.5-5L0-2.5L2.5-5L5-2.5L2.5 0L5 2.5L2.5 5L0 2.5L-2.5 5L-5 2.5L-2.5 0z",
    "<": "M-5 0L4-5V5z",
    ">": "M5 0L-4-5V5z",
}
_NUMBERS = {marker: number for number, marker in enumerate(_SHAPES)}


def marks() -> str:
    """The shapes that `mark` refers to, once in a page."""
    shapes = "".join(f'<path id="mark-{_NUMBERS[marker]}" d="{path}"/>' for marker, path in _SHAPES.items())
    return f'<svg class="shapes" aria-hidden="true"><defs>{shapes}</defs></svg>'


def mark(look: Look, x: str = "0", y: str = "0", *, filled: bool = True) -> str:
    """A method's marker, for within an <svg>."""
    fill = look.colour if filled else "#fff"
    return f'<use href="#mark-{_NUMBERS[look.marker]}" x="{x}" y="{y}" fill="{fill}" stroke="{look.colour}"/>'


def key(look: Look | None) -> str:
    """A method's marker in front of its name; nothing for a row without results."""
    if look is None:
        return ""
    return f'<svg class="key" viewBox="-7 -7 14 14" aria-hidden="true">{mark(look)}</svg>'


def tag(name: str, content: str, **attributes: object) -> str:
    """An element; `kind` is its class. An attribute that is None or False is left out, a True one has no value."""
    return f"<{name}{_attributes(attributes)}>{content}</{name}>"


def _attributes(attributes: Mapping[str, object]) -> str:
    named = {("class" if name == "kind" else name.replace("_", "-")): value for name, value in attributes.items()}
    return "".join(
        f" {name}" if value is True else f' {name}="{escape(str(value))}"'
        for name, value in named.items()
        if value is not None and value is not False
    )


def table(kind: str, head: Sequence[str], bodies: Sequence[str]) -> str:
    """A table that scrolls in a box of its own; `head` and `bodies` are HTML."""
    cells = "".join(tag("th", cell, scope="col") for cell in head)
    top = f"<thead><tr>{cells}</tr></thead>\n" if head else ""
    inside = tag("table", f"\n{top}{''.join(bodies)}", kind=kind)
    return tag("div", inside, kind="wide", tabindex=0, role="region", aria_label="table")


def body(kind: str, rows: Sequence[str]) -> str:
    return tag("tbody", f"\n{''.join(rows)}", kind=kind or None) + "\n"


def row(label: str, cells: Sequence[str]) -> str:
    """A row of whole cells after its label, all of them HTML."""
    return f"<tr>{tag('th', label, scope='row')}{''.join(cells)}</tr>\n"


def group(label: str, width: int) -> str:
    return f'<tr class="group">{tag("th", escape(label), colspan=width, scope="rowgroup")}</tr>\n'


def inside_file(name: str, text: str) -> str:
    """A link to a file that the page itself holds."""
    kind = {"csv": "text/csv", "tex": "text/x-tex", "md": "text/markdown"}[name.rpartition(".")[2]]
    return tag("a", escape(name), href=f"data:{kind};charset=utf-8,{quote(text)}", download=name)
