"""Several files, tables and compressed ones give the corpus, to the bit, that one plain text gives."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otfkd.data.joined
from otfkd.base.errors import UserError
from otfkd.config.composition import load_config
from otfkd.data.corpus import Corpus
from otfkd.data.sources import find_corpus
from otfkd.data.tokens import token_cache
from tests.support.models import make_tokenizer
from tests.support.tables import SENTENCES, write_as

Find = Callable[..., Corpus]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """The corpus that `data.path` and more overrides name, its cache beside the files."""

    def found(path: object, *more: str) -> Corpus:
        listed = f"[{','.join(map(str, path))}]" if isinstance(path, list) else path
        return find_corpus(load_config(["data=text", f"data.path={listed}", *more]).data, tmp_path / "cache")

    return found


def texts(corpus: Corpus) -> list[str]:
    return [sentence for _, sentence in corpus.sentences()]


@pytest.fixture
def whole(tmp_path: Path, find: Find) -> Corpus:
    return find(write_as(tmp_path / "whole.txt", SENTENCES))


def test_a_single_plain_text_is_read_where_it_lies(tmp_path: Path, whole: Corpus) -> None:
    assert whole == Corpus(tmp_path / "whole.txt", whole.sha256)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "names",
    [
        ["a.txt", "b.txt", "c.txt"],
        ["a.jsonl", "b.csv.gz", "c.parquet"],
        ["a.tsv", "b.txt.zst", "c.jsonl.gz"],
        ["a.txt.gz"],
        ["a.parquet"],
    ],
)
def test_shards_give_what_one_file_gives(tmp_path: Path, find: Find, whole: Corpus, names: list[str]) -> None:
    cuts = np.linspace(0, len(SENTENCES), len(names) + 1).astype(int)
    shards = [
        write_as(tmp_path / name, SENTENCES[start:end]) for name, start, end in zip(names, cuts, cuts[1:], strict=False)
    ]
    joined = find(shards)
    assert joined.sha256 == whole.sha256
    tokenizer = make_tokenizer()
    for length in (4, 16):
        one, other = (token_cache(corpus, tokenizer, length, tmp_path / "t") for corpus in (whole, joined))
        assert one.table.equals(other.table)
    assert len(list((tmp_path / "t" / "tokens").glob("*.arrow"))) == 2


def test_a_pattern_is_its_files_by_name_and_a_list_is_in_its_own_order(tmp_path: Path, find: Find) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n")
    (tmp_path / "d.txt").mkdir()
    assert texts(find(f"'{tmp_path}/*.txt'")) == ["a", "b", "c"]
    assert texts(find([tmp_path / "c.txt", f"'{tmp_path}/[ab].txt'"])) == ["c", "a", "b"]
    (tmp_path / "[ab].txt").write_text("a file of that name\n")
    assert texts(find(f"'{tmp_path}/[ab].txt'")) == ["a file of that name"]


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ((b"one\ntwo", b"three\n"), b"one\ntwo\nthree\n"),
        ((b"one\r\n\n", b"two"), b"one\r\n\ntwo"),
        ((b"", b"one\n"), b"one\n"),
    ],
)
def test_texts_are_put_behind_each_other_byte_by_byte(
    tmp_path: Path, find: Find, parts: tuple[bytes, ...], content: bytes
) -> None:
    paths = [tmp_path / f"{place}.txt" for place in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    assert find(paths).path.read_bytes() == content


def test_a_line_is_named_by_the_file_it_came_from(tmp_path: Path, find: Find) -> None:
    paths = [write_as(tmp_path / name, SENTENCES[:2]) for name in ("a.txt", "b.csv")]
    (tmp_path / "c.txt").write_bytes(b"one\n\xe9\n")
    corpus = find([*paths, tmp_path / "c.txt"])
    assert corpus.name == f"3 files, {paths[0]} to {tmp_path / 'c.txt'} (column text)"
    assert [corpus.place(line) for line in (1, 2, 4)] == [
        f"{paths[0]} line 2", f"{paths[1]} row 1", f"{tmp_path / 'c.txt'} line 1"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"c\.txt line 2 is not UTF-8"):
        corpus.count()


def test_what_was_joined_is_made_once_and_anew_when_a_file_changes(
    tmp_path: Path, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_as(tmp_path / name, SENTENCES) for name in ("a.txt", "b.jsonl")]
    first = find(paths)
    with monkeypatch.context() as patch:
        patch.setattr(otfkd.data.joined, "_write", None)
        assert find(paths) == first
    write_as(paths[1], ["another"])
    assert texts(find(paths)) == [*SENTENCES, "another"]


def test_another_column_is_another_text(tmp_path: Path, find: Find) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "one", "title": "two"}\n{"text": null, "title": "a\\nb"}\n')
    assert texts(find(tmp_path / "t.jsonl")) == ["one"]
    assert texts(find(tmp_path / "t.jsonl", "data.column=title")) == ["two", "a b"]


def test_a_file_that_changes_while_it_is_joined_is_refused(
    tmp_path: Path, find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, write = [write_as(tmp_path / name, SENTENCES) for name in ("a.txt", "b.txt")], otfkd.data.joined._write

    def meanwhile(*given: Any) -> Any:
        write_as(paths[1], ["another"])
        return write(*given)

    monkeypatch.setattr(otfkd.data.joined, "_write", meanwhile)
    with pytest.raises(UserError, match=r"b\.txt was changed while it was read: give the command again"):
        find(paths)
    assert [path.name for path in (tmp_path / "cache" / "corpora").glob("[!.]*")] == []


@pytest.mark.parametrize(
    ("files", "given", "told"),
    [
        ({"a.txt": "one\n"}, ["data.column=text"], "data.column=text is for tables, and .*a.txt is plain text"),
        ({"a.txt": "one\n", "b.csv": "n,x\n1,2\n"}, [], "b.csv has the columns n, x: say which holds"),
        ({"a.jsonl": '{"text": 3}\n'}, [], "a.jsonl line 1 holds 3, not text"),
        ({"a.jsonl": '{"text": "\\ud800"}\n'}, [], "a.jsonl line 1 holds half a character"),
    ],
)
def test_what_cannot_be_joined_is_refused(
    tmp_path: Path, find: Find, files: dict[str, str], given: list[str], told: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=told):
        find([tmp_path / name for name in files], *given)


def test_a_pattern_without_files_and_a_file_named_twice_are_refused(tmp_path: Path, find: Find) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"data\.path=.*/\*\.csv matches no file: correct the pattern"):
        find(f"'{tmp_path}/*.csv'")
    with pytest.raises(UserError, match=r"data\.path names .*/a\.txt twice: name it once"):
        find([f"'{tmp_path}/*.txt'", tmp_path / "a.txt"])


def test_unique_keeps_the_first_of_each_sentence_and_the_numbers_of_lines(tmp_path: Path, find: Find) -> None:
    lines = ["one", "two", "", "one", "three", "two ", "two"]
    path = write_as(tmp_path / "a.txt", lines)
    path.write_bytes(path.read_bytes().replace(b"\none\n", b"\none\r\n"))
    corpus = find(path, "data.unique=true")
    assert list(corpus.sentences()) == [(0, "one"), (1, "two"), (4, "three"), (5, "two ")]
    assert (corpus.name, corpus.place(4)) == (str(path), f"{path} line 5")
    cache = token_cache(corpus, make_tokenizer(), 16, tmp_path)
    assert (len(cache), cache.repeats) == (4, 0)


def test_unique_reaches_over_all_files(tmp_path: Path, find: Find) -> None:
    paths = [write_as(tmp_path / name, SENTENCES) for name in ("a.txt", "b.jsonl", "c.parquet")]
    assert texts(find(paths, "data.unique=true")) == list(dict.fromkeys(SENTENCES))


def test_a_split_of_a_folder_is_read_by_datasets_and_the_hub_says_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Corpus
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "set"
    folder.mkdir()
    write_as(folder / "train.jsonl", SENTENCES)

    def split(*given: str) -> Corpus:
        return find_corpus(load_config(["data=dataset", *given]).data, tmp_path / "cache")

    corpus = split(f"data.repo={folder}")
    assert (corpus.sha256, corpus.name) == (whole.sha256, f"{folder} train (column text)")
    part = split(f"data.repo={folder}", "data.split='train[1:3]'")
    assert texts(part) == SENTENCES[1:3]
    with pytest.raises(UserError, match=r"the data set .* nonesuch cannot be had \(.+\): use data=text data\.path=FIL"):
        split(f"data.repo={folder}", "data.split=nonesuch")
    with pytest.raises(UserError, match=r"the data set org/gone train cannot be had \(.+\): use data=text data\.path"):
        split("data.repo=org/gone")


def test_the_starts_of_files_are_kept_beside_the_text(tmp_path: Path, find: Find) -> None:
    find([write_as(tmp_path / name, SENTENCES) for name in ("a.txt", "b.txt")])
    (starts,) = (tmp_path / "cache" / "corpora").glob("joined-*.json")
    assert json.loads(starts.read_text()) == [0, len(SENTENCES)]
