"""Files as they come: what is recognised by its first bytes and its name, and what is refused."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.data.formats import as_line, recognize, text_column
from tests.support.tables import SENTENCES, write_as

NAMES = ["t.jsonl", "t.csv", "t.tsv", "t.parquet", "t.jsonl.gz", "t.csv.gz", "t.tsv.zst", "t.jsonl.zst"]


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a.txt", "one\n")
    return content.getvalue()


def read(path: Path) -> list[object]:
    """All that is in a file."""
    found = recognize(path)
    return list(found.lines() if found.format == "text" else found.rows(found.columns))


def refusal(path: Path) -> str:
    """The sentence with which a file is refused."""
    with pytest.raises(UserError) as caught:
        recognize(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_any_format_has_the_same_columns_and_values(tmp_path: Path, name: str) -> None:
    table = recognize(write_as(tmp_path / name, SENTENCES))
    assert table.columns == ["n", "text"]
    assert [text for _, (text,) in table.rows(["text"])] == SENTENCES
    assert [(str(n), text) for _, (text, n) in table.rows(["text", "n"])] == [
        (str(n), text) for n, text in enumerate(SENTENCES)
    ]


@pytest.mark.parametrize("name", ["t.txt", "t", "t.txt.gz", "t.zst"])
def test_a_text_is_its_bytes_line_by_line(tmp_path: Path, name: str) -> None:
    text = recognize(write_as(tmp_path / name, SENTENCES))
    assert text.format == "text"
    assert b"".join(text.lines()).decode() == "".join(f"{sentence}\n" for sentence in SENTENCES)


def test_first_bytes_count_more_than_a_name(tmp_path: Path) -> None:
    packed = write_as(tmp_path / "t.csv.gz", SENTENCES).rename(tmp_path / "packed.csv")
    assert [text for _, (text,) in recognize(packed).rows(["text"])] == SENTENCES
    parquet = write_as(tmp_path / "t.parquet", SENTENCES).rename(tmp_path / "parquet.txt")
    assert [text for _, (text,) in recognize(parquet).rows(["text"])] == SENTENCES


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.txt", zipped(), "is a zip archive: unpack it"),
        ("t.txt", "one\ntwo\n".encode("utf-16"), "is UTF-16: convert it to UTF-8"),
        ("t.csv", b"\xfe\xff" + "text\none\n".encode("utf-16-be"), "is UTF-16: convert it to UTF-8"),
        ("t.txt", "one\n".encode("utf-32"), "is UTF-32: convert it to UTF-8"),
        ("t.txt", b"\x89some\0binary\n", "is not text"),
        ("t.txt", b"%PDF-1.7\n", "is a PDF"),
        ("t.parquet", b"one\n", "is no Parquet file"),
        ("t.txt.gz", b"one\ntwo\n", "is not compressed as its name says"),
        ("t.txt", b"one\rtwo\rthree\r", "line ends of old Macs"),
        ("t.txt", gzip.compress(b"one\rtwo", mtime=0), "line ends of old Macs"),
        (
            "t.txt",
            b'\n{"text": "one"}\n\n{"text": "two"}\n',
            "holds JSON objects: name it .jsonl, and give data.column",
        ),
        ("t.txt", b"\xef\xbb\xbf{}\r\n", "holds JSON objects"),
        ("t.txt", b"\xef\xbb\xbfid,text,label\r\n1,one,0\n", "begins with the names of columns: name it .csv"),
        ("t.txt", b'"id"\t"sentence"\n1\tone\n', "begins with the names of columns: name it .tsv"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert told in refusal(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"one\ntwo\r",
        b"one\r",
        b"{not json}\n{}\n",
        b'{"text": "one"}\nand then a sentence\n',
        b"[1, 2]\n",
        b"text, sentence and word\none\n",
        b"the text,a word\n",
        b"text\none\n",
        b"",
    ],
)
def test_what_may_be_sentences_is_taken_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    assert recognize(tmp_path / "t.txt").is_plain


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("t.jsonl", b'{"text": "one"}\nword\n', "t.jsonl line 2 is no JSON object: give one object a line"),
        ("t.json", b'[{"text": "one"}]\n', "t.json line 1 is no JSON object"),
        ("t.jsonl", b'{"text": "one"}\n\n{"n": 1}\n', "t.jsonl line 3 has no text but n: complete or delete it"),
        ("t.jsonl", b'{"text": "one"}\n{"text": "\xe9"}\n', "line 2 is no JSON object"),
        ("t.csv", b"n,text\n1,one\n2\n", "t.csv line 3 has not as many columns as the first line"),
        ("t.tsv", b"n\ttext\n1\tone\ttwo\n", "t.tsv line 2 has not as many columns as the first line"),
        ("t.csv", b"n,text\n1,\xe9\n", "cannot be read as CSV"),
        ("t.csv", b'n,text\n1,"one\n', "cannot be read as CSV"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        list(recognize(tmp_path / name).rows(["text"]))


@pytest.mark.parametrize("name", ["t.txt.gz", "t.txt.zst", "t.parquet"])
def test_half_a_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write_as(tmp_path / name, [f"{n} {n * n}" for n in range(100_000)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"data\.path={path} cannot be read as (text|Parquet) \(.+\): give a whole"):
        read(path)


@pytest.mark.parametrize(
    ("columns", "wanted", "column"),
    [
        (["n", "text"], None, "text"),
        (["sentence", "label"], None, "sentence"),
        (["title", "body"], "body", "body"),
        (["quote"], None, "quote"),
        (["text", "sentence"], "sentence", "sentence"),
    ],
)
def test_the_column_is_the_one_asked_for_or_the_clear_one(columns: list[str], wanted: str | None, column: str) -> None:
    assert text_column(columns, wanted, "t.csv") == column


@pytest.mark.parametrize(
    ("columns", "wanted", "told"),
    [
        (["title", "body"], None, r"t\.csv has the columns title, body: say which holds the sentences with data"),
        (["text", "sentence"], None, "has the columns text, sentence: say which"),
        (["A cat sat."], None, r"has the column A cat sat\.: say which"),
        (["n", "text"], "txt", r"t\.csv has no column txt but the columns n, text: correct data\.column"),
        ([], None, "t.csv has no columns"),
    ],
)
def test_a_column_that_is_not_clear_is_refused_with_those_there_are(
    columns: list[str], wanted: str | None, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        text_column(columns, wanted, "t.csv")


@pytest.mark.parametrize(
    ("text", "line"), [("a\nb\r\nc", "a b c"), ("a\n", "a"), ("\r\n", ""), ("a\u2028b ", "a\u2028b ")]
)
def test_a_value_becomes_a_line(text: str, line: str) -> None:
    assert as_line(text) == f"{line}\n".encode()
