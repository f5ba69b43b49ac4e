"""`--explain KEY`: what keys mean, in the terminal."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from otfkd.config.keys import Key, explained
from otfkd.config.schema import Root

_WIDTH = 120  # where there is no terminal to fit
_COLUMNS = ("key", "meaning", "may be", "default", "read, for instance, with")


def explain(schema: type[Root], asked: str) -> None:
    """Print a section, a key, a group or, for the empty text, everything.

    Raises:
        UserError: there is no such thing.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    choices, keys = explained(schema, asked)
    if choices:
        console.print(_table(("choice", "meaning"), ((one.name, one.meaning) for one in choices)))
    if choices and keys:
        console.print()
    if keys:
        console.print(_table(_COLUMNS, map(_cells, keys)))


def _cells(key: Key) -> tuple[str, ...]:
    return key.name, key.meaning, key.takes, key.default, key.needs


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(Text, row))  # as it is: brackets would be rich's markup
    return table
