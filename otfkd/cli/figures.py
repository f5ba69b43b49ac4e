"""otfkd-figures: draw what runs did, from their folders alone."""

import functools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otfkd.base.errors import UserError
from otfkd.cli.common import command_parser, exit_with

if TYPE_CHECKING:
    from otfkd.reporting.space import DevPairs

log = logging.getLogger("otfkd")

KINDS = ("curves", "agreement", "similarity", "geometry")


def main() -> None:
    parser = command_parser("otfkd-figures", __doc__)
    where = "a run's folder, or one with runs in it; seeds of one config are one method"
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help=where)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="receives a PNG and an SVG of each")
    what = f"of {','.join(KINDS)}, with commas; the last two embed dev pairs (default: all that the runs have data for)"
    parser.add_argument("--what", help=what)
    arguments = parser.parse_args()
    exit_with(lambda: _draw(arguments.runs, arguments.out, arguments.what))


def _draw(paths: Sequence[Path], out: Path, what: str | None) -> None:
    wanted = KINDS if what is None else tuple(what.split(","))
    for kind in wanted:
        if kind not in KINDS:
            raise UserError(f"--what {kind} is not a figure: take some of {', '.join(KINDS)}")
    from otfkd.reporting import figures, space
    from otfkd.reporting.methods import read_methods
    from otfkd.reporting.style import save

    methods = read_methods(paths)

    @functools.cache
    def dev_pairs() -> "list[DevPairs]":
        from otfkd.reporting.dev_pairs import read_dev

        return read_dev(methods, every_seed="geometry" in wanted)

    draw = {
        "curves": lambda: figures.curves(methods),
        "agreement": lambda: figures.agreement(methods),
        "similarity": lambda: space.similarity(dev_pairs()),
        "geometry": lambda: space.geometry(dev_pairs()),
    }
    written: list[Path] = []
    for kind in wanted:
        try:
            written += save(draw[kind](), out, kind)
        except UserError as error:
            if what is not None:
                raise
            log.info("no %s: %s", kind, error)
    sys.stdout.write("".join(f"{path}\n" for path in written))
