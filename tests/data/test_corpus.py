"""A corpus: what ends a sentence, what does not, and what is refused."""

from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes
from otfkd.config.sections import DataConfig
from otfkd.data.corpus import Corpus
from otfkd.data.sources import find_corpus

EXOTIC = [
    "\ufeffa BOM stays",
    "line\u2028separator",
    "paragraph\u2029separator",
    "",
    "next\u0085line and form\x0cfeed",
    "lone\rcarriage return",
]


def text_config(path: Path) -> DataConfig:
    return DataConfig(source="text", path=str(path), repo=None, file=None, batch_size=2, max_length=16)


def read(path: Path, content: bytes) -> list[tuple[int, str]]:
    path.write_bytes(content)
    return list(Corpus(path, "").sentences())


def test_only_lf_ends_a_sentence_and_ids_are_line_numbers(tmp_path: Path) -> None:
    content = "".join(f"{line}\n" for line in EXOTIC).encode()
    assert read(tmp_path / "c", content) == [(i, line) for i, line in enumerate(EXOTIC) if i != 3]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\r\ntwo\r\n", [(0, "one"), (1, "two")]),
        (b"one\r\r\n", [(0, "one\r")]),
        (b"one\ntwo", [(0, "one"), (1, "two")]),
        (b"one\ntwo\r", [(0, "one"), (1, "two")]),
        (b"\n\r\n \t\none", [(3, "one")]),
        (b" one \n", [(0, " one ")]),
        (b"", []),
    ],
    ids=["CRLF", "CR before CRLF", "no last LF", "no last LF of CRLF", "blanks", "spaces kept", "empty"],
)
def test_line_ends(tmp_path: Path, content: bytes, expected: list[tuple[int, str]]) -> None:
    assert read(tmp_path / "c", content) == expected


def test_undecodable_byte_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    with pytest.raises(UserError, match=rf"{path} line 3 is not UTF-8 .* byte 3"):
        read(path, b"one\n\ncaf\xe9\n")


def test_the_same_content_has_the_same_hash_wherever_it_lies(tmp_path: Path) -> None:
    hashes = []
    for name, content in [("a", "one\n"), ("b", "one\n"), ("c", "two\n")]:
        (tmp_path / name).write_text(content)
        hashes.append(find_corpus(text_config(tmp_path / name), tmp_path).sha256)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir], ids=["missing", "folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, make: object) -> None:
    path = tmp_path / "corpus.txt"
    assert callable(make)
    make(path)
    with pytest.raises(UserError, match=rf"data.path={path} is not a file"):
        find_corpus(text_config(path), tmp_path)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("one\n")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Removing the permission itself would not stop a test that runs as root.
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(UserError, match=rf"data.path={path} cannot be read \(Permission denied\)"):
        find_corpus(text_config(path), tmp_path)


def test_the_mini_corpus_is_generated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from otfkd.data import mini

    monkeypatch.setattr(mini, "corpus", lambda: ("one", "two"))
    monkeypatch.setattr(mini, "CORPUS_SHA256", sha256_bytes([b"one\ntwo\n"]))
    config = DataConfig(source="mini", path=None, repo=None, file=None, batch_size=2, max_length=16)
    corpus = find_corpus(config, tmp_path)
    written = corpus.path.stat().st_mtime_ns
    assert [sentence for _, sentence in corpus.sentences()] == ["one", "two"]
    assert find_corpus(config, tmp_path) == corpus
    assert corpus.path.stat().st_mtime_ns == written
    corpus.path.write_text("one\n")  # a copy that broke off
    assert [sentence for _, sentence in find_corpus(config, tmp_path).sentences()] == ["one", "two"]
    monkeypatch.setattr(mini, "corpus", lambda: pytest.fail("generated again"))
    assert find_corpus(config, tmp_path) == corpus
