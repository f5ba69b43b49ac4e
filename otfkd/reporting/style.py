"""How every figure looks and is written: read on paper, in grey and without colour vision; the same bytes each time."""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from otfkd.base.errors import UserError
from otfkd.base.files import write_bytes

COLUMN, PAGE = 3.4, 7.0  # inches: one column of a two-column page, and both

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # long enough to show a line's dashes
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "savefig.dpi": 200,
    "svg.fonttype": "path",  # outlines: vector text that needs no font at the reader's
    "svg.hashsalt": "otfkd",
}


@dataclass(frozen=True)
class Look:
    """What a series is told apart by: colour, line style and marker, each of which is enough alone."""

    colour: str
    line: Any
    marker: str


_UNDATED = {"Date": None, "Creator": None}

# Colours of Okabe and Ito 2008 without yellow, which is lost on white, from dark to light and back; then grey, brown.
LOOKS = (
    Look("#000000", "-", "o"),
    Look("#D55E00", "--", "s"),
    Look("#0072B2", "-.", "^"),
    Look("#E69F00", (0, (5, 1, 1, 1, 1, 1)), "D"),
    Look("#009E73", ":", "v"),
    Look("#CC79A7", (0, (7, 3)), "P"),
    Look("#56B4E9", (0, (2, 1)), "X"),
    Look("#7F7F7F", (0, (3, 1, 1, 1)), "<"),
    Look("#7A4A00", (0, (6, 1, 1, 1, 1, 1, 1, 1)), ">"),
)


def looks(number: int) -> tuple[Look, ...]:
    """A look for each of some series.

    Raises:
        UserError: more series than can be told apart.
    """
    if number > len(LOOKS):
        raise UserError(f"a figure tells {len(LOOKS)} methods apart, not {number}: name fewer runs")
    return LOOKS[:number]


def many_looks(number: int) -> tuple[Look, ...]:
    """Looks for more series than one figure holds: a colour comes again with another line and another marker."""
    kinds = len(LOOKS)
    pairs = [(LOOKS[at % kinds], LOOKS[(at + at // kinds) % kinds]) for at in range(number)]
    return tuple(Look(first.colour, second.line, second.marker) for first, second in pairs)


def looks_for(labels: Sequence[str], known: Mapping[str, Look] | None) -> tuple[Look, ...]:
    """A look for each of some series: the known ones, or else the first ones.

    Raises:
        UserError: as `looks`.
    """
    return looks(len(labels)) if known is None else tuple(known[label] for label in labels)


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Our settings over matplotlib's own defaults, whatever the user's; put back afterwards."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def width_for(methods: int) -> float:
    """A column for one or two methods, a page for more."""
    return COLUMN if methods <= 2 else PAGE


def put_legend(figure: Figure, axes: Axes, extra: Sequence[Artist]) -> None:
    """What has a label, and some more, above all panels."""
    legend_above(figure, [*axes.get_legend_handles_labels()[0], *extra])


def legend_above(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """A legend above all panels, in as many columns as its longest label leaves room for; more rows make it taller."""
    lines = [str(handle.get_label()).splitlines() for handle in handles]
    longest = max(len(line) for label in lines for line in label)
    columns = max(1, min(4, int(figure.get_figwidth() / (0.6 + 0.047 * longest))))  # inches: the sample, then letters
    figure.set_figheight(figure.get_figheight() + 0.13 * max(0, -(-sum(map(len, lines)) // columns) - 3))
    figure.legend(handles=list(handles), loc="outside upper left", ncols=columns)


@styled()
def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg; neither holds a date or a version."""
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("svg", _UNDATED)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=metadata)
        paths.append(folder / f"{name}.{kind}")
        write_bytes(paths[-1], buffer.getvalue())
    return paths


@styled()
def inline_svg(figure: Figure, name: str) -> str:
    """An <svg> to stand in a page beside others: its ids begin with its name, and it links to nothing outside.

    Its letters are text, which can be searched and set in a page's own fonts, and it has no ground of its own.
    Matplotlib's ids of clips and markers are hashes of floats, of which processors round the last bit differently; here
    they count.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={**_UNDATED, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].rstrip()
    hashes = dict.fromkeys(re.findall(r'\bid="([a-z][0-9a-f]{10})"', text))
    for number, hashed in enumerate(hashes, 1):
        text = text.replace(hashed, f"x{number}")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", text)
