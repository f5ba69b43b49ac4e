"""Files of text as they come: told by their first bytes and their names, and read by lines or by columns."""

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
from pyarrow import parquet

from otfkd.base.errors import UserError, first_line
from otfkd.base.hashing import sha256_file

Format = Literal["text", "jsonl", "csv", "tsv", "parquet"]
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_ENDINGS = {".gz": "gzip", ".zst": "zstd"}
_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "is a zip archive: unpack it and give the files in it",
    b"%PDF-": "is a PDF: give its text",
    b"\xff\xfe\x00\x00": "is UTF-32: convert it to UTF-8, for instance with iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "is UTF-16: convert it to UTF-8, for instance with iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "is UTF-16: convert it to UTF-8, for instance with iconv -f UTF-16 -t UTF-8",
}
_Reader = Callable[[Sequence[str]], Iterator[tuple[str, dict[str, Any]]]]
_HEAD = 1 << 20  # bytes that are looked at
_TEXT_COLUMNS = ("text", "sentence")


@dataclass(frozen=True)
class TextFile:
    """A file of a user's that has been looked at.

    Attributes:
        path: the file.
        format: lines of text, or rows with named columns.
        compression: that it is unpacked from as it is read.
        key: the config's key that names it, for messages.
    """

    path: Path
    format: Format
    compression: str | None
    key: str = "data.path"

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def sha256(self) -> str:
        """Of the file as it lies there."""
        return sha256_file(self.path)

    @property
    def is_plain(self) -> bool:
        """Whether its bytes are a corpus as they are."""
        return self.format == "text" and self.compression is None

    @cached_property
    def columns(self) -> list[str]:
        """The names of a table's columns; a JSONL's are the keys of its first object."""
        with _reading(self):
            match self.format:
                case "parquet":
                    return list(parquet.read_schema(self.path).names)
                case "jsonl":
                    return next((list(row) for _, row in self._json_rows()), [])
                case _:
                    with self._text() as file:
                        return list(self._csv(file).fieldnames or ())

    def lines(self) -> Iterator[bytes]:
        """A text's lines, with their ends."""
        with _reading(self), self._bytes() as file:
            yield from file

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Where each row of a table is, for a message, and its values of some of the columns.

        Raises:
            UserError: a row that cannot be read.
        """
        readers: dict[str, _Reader] = {"parquet": self._parquet_rows, "jsonl": self._json_rows}
        read = readers.get(self.format, self._csv_rows)
        with _reading(self):
            for number, row in read(columns):
                gone = next((column for column in columns if column not in row), None)
                if gone is not None:
                    raise UserError(
                        f"{self.path} {number} has no {gone} but {', '.join(row) or 'nothing'}: complete or delete it"
                    )
                yield f"{self.path} {number}", tuple(row[column] for column in columns)

    def _bytes(self) -> BinaryIO:
        if self.compression is None:
            return self.path.open("rb")
        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(self.path), compression=self.compression)))

    def _text(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(self._bytes(), encoding="utf-8-sig", newline="")

    def _csv(self, file: io.TextIOWrapper) -> "csv.DictReader[str]":
        if self.format == "tsv":  # there, a quotation mark is one
            return csv.DictReader(file, strict=True, delimiter="\t", quoting=csv.QUOTE_NONE)
        return csv.DictReader(file, strict=True)

    def _parquet_rows(self, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        with parquet.ParquetFile(self.path) as file:
            batches = file.iter_batches(columns=list(columns))
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))

    def _json_rows(self, _: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._bytes() as file:
            for number, raw in enumerate(file, 1):
                if not raw.strip():
                    continue
                row = _json_object(raw)
                if row is None:
                    raise UserError(f"{self.path} line {number} is no JSON object: give one object a line")
                yield f"line {number}", row

    def _csv_rows(self, _: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._text() as text:
            reader = self._csv(text)
            for row in reader:
                where = f"line {reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(
                        f"{self.path} {where} has not as many columns as the first line: quote or complete it"
                    )
                yield where, row


def recognize(path: Path, unnamed: Format = "text", key: str = "data.path") -> TextFile:
    """Look at a file's first bytes, whatever its name says, and then at its name.

    Args:
        path: the file.
        unnamed: what it is where its name says nothing.
        key: the config's key that names it, for messages.

    Raises:
        UserError: it is not there, cannot be read, or is nothing that sentences can be read from.
    """
    start = _first_bytes(path, key)
    named = _ENDINGS.get(path.suffix.lower())
    compression = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
    if named not in (None, compression):
        raise UserError(f"{path} is not compressed as its name says: rename it, or fetch it again")
    inner = path.with_suffix("") if named else path
    found = TextFile(path, _FORMATS.get(inner.suffix.lower(), unnamed), compression, key)
    with _reading(found), found._bytes() as stream:
        head = stream.read(_HEAD)
    if head.startswith(_PARQUET) and compression is None:
        return TextFile(path, "parquet", None, key)
    told = _against(head, found)
    if told is not None:
        raise UserError(f"{path} {told}")
    return found


def _first_bytes(path: Path, key: str) -> bytes:
    if path.is_dir():
        raise UserError(f"{key}={path} is not a file but a folder: name the files in it, as {key}='{path}/*'")
    if not path.is_file():
        raise UserError(f"{key}={path} is not a file: correct the path")
    try:
        with path.open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read ({error.strerror}): check its permissions") from None


def _against(head: bytes, file: TextFile) -> str | None:
    """What is against reading a file as what it seems to be, by its beginning."""
    if head.startswith(_PARQUET):
        return "is a compressed Parquet file: unpack it"
    if file.format == "parquet":
        return "is no Parquet file: name it by what it is, or fetch it again"
    foreign = next((told for magic, told in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign is None and b"\0" in head:
        foreign = "is not text: give text files, JSONL, CSV, TSV or Parquet"
    if foreign is None and file.format == "text":
        foreign = _not_sentences(head)
    return foreign


def text_column(columns: Sequence[str], wanted: str | None, name: str) -> str:
    """The column that holds the sentences: the one asked for, or the one that it clearly is.

    Args:
        columns: those there are.
        wanted: `data.column`.
        name: of the table, for a message.

    Raises:
        UserError: there is no such column, or none is clearly the one.
    """
    if wanted is not None and wanted in columns:
        return wanted
    listed = f"the column{'' if len(columns) == 1 else 's'} {', '.join(columns)}" if columns else "no columns"
    if wanted is not None:
        raise UserError(f"{name} has no column {wanted} but {listed}: correct data.column")
    # A first line that reads like a sentence may be one, and be missed.
    clear = [one for one in columns if one in _TEXT_COLUMNS or (len(columns) == 1 and re.fullmatch(r"[\w.-]+", one))]
    if len(clear) != 1:
        raise UserError(f"{name} has {listed}: say which holds the sentences with data.column=NAME")
    return clear[0]


def as_text(value: object, where: str) -> str:
    """A table's value as text; where there is none, it is empty.

    Raises:
        UserError: it is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where} holds {json.dumps(value, default=str)[:40]}, not text: correct it or the column")
    if re.search(r"[\ud800-\udfff]", value):
        raise UserError(f"{where} holds half a character (a lone surrogate): correct or delete it")
    return value


def filled(value: object, where: str) -> str:
    """A table's value as text that is not blank.

    Raises:
        UserError: it is something else.
    """
    text = as_text(value, where)
    if not text.strip():
        raise UserError(f"{where} has an empty sentence: complete or delete it")
    return text


def as_line(text: str) -> bytes:
    """A text as a line of its own: line ends inside it become spaces."""
    return re.sub(r"[\r\n]+", " ", text.strip("\r\n")).encode() + b"\n"


def _not_sentences(head: bytes) -> str | None:
    """What is against reading the beginning of a file as a sentence a line."""
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()][:5]
    if lines and all(_json_object(line) is not None for line in lines):
        return "holds JSON objects: name it .jsonl, and give data.column"
    if b"\n" not in head and b"\r" in head[:-1]:
        return "has the line ends of old Macs (CR alone): convert them, for instance with tr '\\r' '\\n'"
    for separator, ending in ((b",", "csv"), (b"\t", "tsv")):
        names = [name.strip(b' \r"').decode(errors="replace") for name in lines[0].split(separator)] if lines else []
        if len(names) > 1 and {*names} & {*_TEXT_COLUMNS} and all(re.fullmatch(r"[\w.-]+", name) for name in names):
            return f"begins with the names of columns: name it .{ending}, and give data.column"
    return None


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def _reading(file: TextFile) -> Iterator[None]:
    """Say of what cannot be read which file it is.

    Raises:
        UserError: in the place of what the readers raise.
    """
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        kind = {"text": "text", "jsonl": "JSONL", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet"}[file.format]
        raise UserError(
            f"{file.key}={file.path} cannot be read as {kind} ({first_line(error)}): give a whole file in UTF-8"
        ) from None
