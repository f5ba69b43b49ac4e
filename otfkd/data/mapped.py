"""Data from Python, `data=custom data.path=package.module:Class`: a map from a number to a sentence or an example."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otfkd.base.errors import UserError
from otfkd.base.files import temporary_beside
from otfkd.base.hashing import sha256_file
from otfkd.config.parts import Part, blaming, resolve
from otfkd.data.corpus import Corpus
from otfkd.data.corpus import Part as From
from otfkd.data.formats import as_line, as_text

_CLASS = "give a class that is made without arguments and has __len__, and __getitem__ from a number from 0 to"
_SIGNATURE = f"{_CLASS} a string"


def mapped(path: str, cache: Path) -> Corpus:
    """All sentences of a map, written as plain text to the cache, where the file is named by its content.

    The map is read anew each time: what it reads itself may have changed though its source has not.

    Args:
        path: the import path of the map's class.
        cache: where the text is kept.

    Raises:
        UserError: it cannot be imported, is no map, fails, or gives something other than text.
    """
    part = resolve("data.path", path)
    folder = cache / "corpora"
    with temporary_beside(folder / "mapped.txt") as temporary:
        written = temporary / "mapped.txt"
        _write(written, part)
        sha256 = sha256_file(written)
        kept = folder / f"mapped-{sha256[:16]}.txt"
        if not kept.is_file():
            written.replace(kept)
    return Corpus(kept, sha256, (From(path, 0, None),))


def mapped_rows(path: str, columns: tuple[str, str, str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Where each example of a map is, for a message, and its values.

    Args:
        path: the import path of the map's class.
        columns: what the values are.

    Raises:
        UserError: it cannot be imported, is no map, fails, or gives something other than so many values.
    """
    part = resolve("data.path", path)
    signature = f"{_CLASS} a tuple ({', '.join(columns)})"
    with blaming(part):
        examples, size = _made(part, signature)
        for number in range(size):
            where, example = f"{part}: example {number + 1}", examples[number]
            if not isinstance(example, tuple | list) or len(example) != len(columns):
                raise UserError(f"{where} is {example!r:.60}: {signature}")
            yield where, tuple(example)


def _write(file: Path, part: Part) -> None:
    with blaming(part):
        texts, size = _made(part, _SIGNATURE)
        with file.open("wb") as lines:
            for number in range(size):
                where = f"{part}: line {number + 1}"
                text = texts[number]
                if text is None:
                    raise UserError(f"{where} holds null, not text: {_SIGNATURE}")
                lines.write(as_line(as_text(text, where)))


def _made(part: Part, signature: str) -> tuple[Any, int]:
    """The map and its size."""
    if not all(callable(getattr(part.value, name, None)) for name in ("__call__", "__len__", "__getitem__")):
        raise UserError(f"{part} is no map: {signature}")
    texts = part.value()
    return texts, len(texts)
