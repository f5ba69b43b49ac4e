"""From files as they come to one plain text: several of them, tables, compressed ones, and each line only once."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock

from otfkd.base.errors import UserError
from otfkd.base.files import atomic_file, clear_unfinished, write_text
from otfkd.base.hashing import sha256_bytes, sha256_file
from otfkd.data.corpus import Corpus, Part, repeat_key
from otfkd.data.formats import TextFile, as_line, as_text, text_column

FORMAT = 1


class Table(Protocol):
    """What has rows and columns: a file, or a split of a data set."""

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def columns(self) -> list[str]: ...
    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]: ...


def join(sources: Sequence[TextFile | Table], column: str | None, cache: Path) -> Corpus:
    """One text of several sources, in their order; made once, and kept in the cache.

    Texts are put behind each other byte by byte, so the shards of a file give the corpus that the file gives.

    Args:
        sources: texts and tables.
        column: of the tables; None: the one that clearly holds sentences.
        cache: where the text is kept.

    Raises:
        UserError: a source cannot be read, or it is not clear which column to read.
    """
    columns = [None if _plain(one) else text_column(one.columns, column, one.name) for one in sources]
    hashes = [source.sha256 for source in sources]
    recipe = [FORMAT, *zip(hashes, (source.format for source in sources), columns, strict=True)]
    key = sha256_bytes([json.dumps(recipe).encode()])[:16]
    text, starts = cache / "corpora" / f"joined-{key}.txt", cache / "corpora" / f"joined-{key}.json"
    text.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(text.with_name(f".{text.name}.lock")):  # the next job of a sweep waits, and then finds it made
        if not (text.is_file() and starts.is_file()):
            clear_unfinished(text.parent, text.name)
            with atomic_file(text) as temporary:
                begins = _write(temporary, sources, columns)
                changed = [one.name for one, before in zip(sources, hashes, strict=True) if one.sha256 != before]
                if changed:
                    raise UserError(f"{changed[0]} was changed while it was read: give the command again")
            write_text(starts, json.dumps(begins))
    begins = json.loads(starts.read_text())
    parts = (Part(one.name, first, chosen) for one, first, chosen in zip(sources, begins, columns, strict=True))
    return Corpus(text, sha256_file(text), tuple(parts))


def unique(corpus: Corpus, cache: Path) -> Corpus:
    """A corpus with each distinct sentence once, where it comes first; later ones are blank lines, to keep numbers.

    Raises:
        UserError: a line that is not UTF-8.
    """
    path = cache / "corpora" / f"unique-{corpus.sha256[:16]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.is_file():
            clear_unfinished(path.parent, path.name)
            # Read twice, with eight bytes a line: a large text's lines themselves may not fit in memory.
            keys = bytearray()
            for _, sentence in corpus.sentences():
                keys += repeat_key(sentence)
            first = np.zeros(len(keys) // 8, bool)
            first[np.unique(np.frombuffer(keys, np.uint64), return_index=True)[1]] = True
            kept = (number for keep, (number, _) in zip(first, corpus.sentences(), strict=False) if keep)
            with atomic_file(path) as temporary:
                _write_kept(temporary, corpus, kept)
                if sha256_file(corpus.path) != corpus.sha256:
                    raise UserError(f"{corpus.name} was changed while it was read: give the command again")
    return Corpus(path, sha256_file(path), corpus.parts or (Part(corpus.name, 0, None),))


def _plain(source: TextFile | Table) -> bool:
    return source.format == "text"


def _write(path: Path, sources: Sequence[TextFile | Table], columns: Sequence[str | None]) -> list[int]:
    """Write all lines; gives the number of each source's first."""
    begins, count, last = [], 0, b"\n"
    with path.open("wb") as file:
        for source, column in zip(sources, columns, strict=True):
            begins.append(count)
            for line in _lines(source, column):
                if not last.endswith(b"\n"):
                    file.write(b"\n")  # the file before it has none at its end
                file.write(line)
                count, last = count + 1, line
    return begins


def _lines(source: TextFile | Table, column: str | None) -> Iterator[bytes]:
    if column is None:
        assert isinstance(source, TextFile)
        return source.lines()
    return (as_line(as_text(value, where)) for where, (value,) in source.rows([column]))


def _write_kept(path: Path, corpus: Corpus, kept: Iterator[int]) -> None:
    ahead = next(kept, None)
    with corpus.path.open("rb") as source, path.open("wb") as file:
        for number, line in enumerate(source):
            if number == ahead:
                ahead = next(kept, None)
                file.write(line)
            else:
                file.write(b"\n")
