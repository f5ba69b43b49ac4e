"""Edits of a file's lines, for tests of what a reader says of a broken file."""

from collections.abc import Callable

Change = Callable[[list[str]], list[str]]


def line(number: int, old: str, new: str) -> Change:
    """A change of one line, counted from 1; it must be there to be changed."""

    def change(lines: list[str]) -> list[str]:
        assert old in lines[number - 1]
        lines[number - 1] = lines[number - 1].replace(old, new)
        return lines

    return change
