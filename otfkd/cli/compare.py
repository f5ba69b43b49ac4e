"""otfkd-compare: say whether methods differ from a baseline, by their finished runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from otfkd.cli.common import command_parser, exit_with


def main() -> None:
    parser = command_parser("otfkd-compare", __doc__)
    where = "a results.jsonl, a run's folder, or that of several seeds (runs/NAME/HASH)"
    parser.add_argument("baseline", type=Path, metavar="A", help=f"the baseline: {where}")
    parser.add_argument("methods", type=Path, nargs="+", metavar="B", help="what to compare with it, given likewise")
    more = "also embed the test pairs with each run's model (minutes): for an interval over pairs, or a single seed"
    parser.add_argument("--pairs", action="store_true", help=more)
    arguments = parser.parse_args()
    exit_with(lambda: _compare([arguments.baseline, *arguments.methods], with_pairs=arguments.pairs))


def _compare(paths: Sequence[Path], *, with_pairs: bool) -> None:
    from otfkd.reporting.comparison import judge, read_matches
    from otfkd.reporting.comparison_text import comparison_text

    matches = read_matches(paths, with_pairs=with_pairs)
    sys.stdout.write(comparison_text(matches, judge(matches)))
