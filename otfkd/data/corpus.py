"""A corpus: one sentence per LF, its id the number of its line."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from otfkd.base.errors import UserError


@dataclass(frozen=True)
class Part:
    """What one file gave to a corpus.

    Attributes:
        name: of the file.
        first: the number of its first line in the corpus, from 0.
        column: where it is a table.
    """

    name: str
    first: int
    column: str | None


@dataclass(frozen=True)
class Corpus:
    """A text file that has been found; nothing of it is held in memory.

    Attributes:
        path: the file.
        sha256: its content's hash, which keys every cache made from it.
        parts: the files that it was made of, in order; none where it is a file as it came.
    """

    path: Path
    sha256: str
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        """What a user calls it."""
        if not self.parts:
            return str(self.path)
        columns = ", ".join(sorted({part.column for part in self.parts if part.column is not None}))
        read = f" (column {columns})" if columns else ""
        first, last = self.parts[0].name, self.parts[-1].name
        return f"{first}{read}" if len(self.parts) == 1 else f"{len(self.parts)} files, {first} to {last}{read}"

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Yield (line number from 0, sentence), skipping blank lines.

        Only LF ends a sentence (CRLF is tolerated): U+2028, U+0085, form feeds, lone CRs and a BOM stay inside it.

        Raises:
            UserError: a line that is not UTF-8, by file and line number.
        """
        with self.path.open("rb") as file:
            for number, raw in enumerate(file):
                try:
                    sentence = raw.removesuffix(b"\n").removesuffix(b"\r").decode()
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{self.place(number)} is not UTF-8 ({error.reason} at byte {error.start}): "
                        "convert the file, for instance with iconv"
                    ) from None
                if sentence.strip():
                    yield number, sentence

    def place(self, line: int) -> str:
        """Where a line, counted from 0, comes from: a line of a file, or a row of a table below its names."""
        part = next((one for one in reversed(self.parts) if one.first <= line), Part(str(self.path), 0, None))
        return f"{part.name} {'line' if part.column is None else 'row'} {line - part.first + 1}"

    def count(self) -> int:
        """How many sentences there are; reads the whole file.

        Raises:
            UserError: a line that is not UTF-8.
        """
        return sum(1 for _ in self.sentences())


def repeat_key(sentence: str) -> bytes:
    """Eight bytes that tell sentences apart: of a hundred million, two would share one in 1 case of 4,000."""
    return hashlib.blake2b(sentence.encode(), digest_size=8).digest()
