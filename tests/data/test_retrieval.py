"""Retrieval tasks: what is read of BEIR's layout, and what is refused."""

import logging
from pathlib import Path

import pytest

from otfkd.base.errors import UserError
from otfkd.config.composition import load_evaluate_config
from otfkd.data.retrieval import RetrievalTask, load_retrieval
from tests.support.beir import given, write_beir, write_lines

QUERIES = {"q1": "where is the cat", "q2": "who ran", "q3": "nobody asks this"}
CORPUS = [("d1", "Cats", "the cat is on the mat"), ("d2", "", "a dog ran"), ("d3", "Moon", "")]
ANSWERS = {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1, "d1": 1}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_beir(tmp_path / "own", QUERIES, CORPUS, ANSWERS)
    return tmp_path / "own"


def load(folder: Path) -> RetrievalTask:
    return load_retrieval(load_evaluate_config(given(folder)).evaluation)


def test_a_task_is_read_as_it_lies_there(folder: Path) -> None:
    task = load(folder)
    assert task.name == "own"
    assert task.queries == {"q1": "where is the cat", "q2": "who ran"}  # no document answers the third
    assert task.relevant == {"q1": {"d1"}, "q2": {"d1", "d2"}}
    assert list(task.documents()) == [("d1", "Cats the cat is on the mat"), ("d2", "a dog ran"), ("d3", "Moon")]


def test_titles_may_lack_and_ids_may_be_numbers(folder: Path) -> None:
    write_lines(folder / "corpus.jsonl", [{"_id": 7, "text": "one"}, {"_id": "d1", "text": "two"}])
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t7\t1\n")
    task = load(folder)
    assert (list(task.documents()), task.relevant) == ([("7", "one"), ("d1", "two")], {"q1": frozenset({"7"})})


def test_the_checksum_is_of_all_that_counts(folder: Path, tmp_path: Path) -> None:
    def changed(name: str, old: str, new: str) -> str:
        path = folder / name
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new))
        found = load(folder).checksum
        path.write_text(before)
        return found

    own = load(folder).checksum
    write_beir(tmp_path / "elsewhere", QUERIES, CORPUS, ANSWERS)
    assert load(tmp_path / "elsewhere").checksum == own == changed("queries.jsonl", "nobody", "somebody")
    edits = [("queries.jsonl", "cat", "dog"), ("corpus.jsonl", "Moon", "Sun"), ("qrels.tsv", "d3\t0", "d3\t1")]
    assert len({own, *(changed(*edit) for edit in edits)}) == 4


def test_answers_that_are_no_documents_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_beir(folder, QUERIES, CORPUS, {**ANSWERS, "q3": {"gone": 1}})
    with caplog.at_level(logging.WARNING, logger="otfkd"):
        assert load(folder).relevant["q3"] == {"gone"}
    assert "lacks 1 of the 3 documents that answer a query: they count as not found" in caplog.text


HEAD = "query-id\tcorpus-id\tscore\n"
BAD = [
    ("qrels.tsv", "q1 0 d1 1\n", "has the columns q1 0 d1 1, not query-id: evaluation.qrels reads query-id, corpus-id"),
    ("qrels.tsv", f"{HEAD}q1\td1\t0\n", "has no score above 0"),
    ("qrels.tsv", f"{HEAD}q1\td1\tyes\n", "line 2 has the score 'yes': give a number"),
    ("qrels.tsv", f"{HEAD}q9\td1\t1\n", "names the query q9, and"),
    ("qrels.tsv", f"{HEAD}q1\td9\t1\n", "holds no answer to any query"),
    ("qrels.tsv", f"{HEAD}\td1\t1\n", "line 2 has no id"),
    ("queries.jsonl", '{"_id": "q1", "text": "a"}\n{"_id": "q1", "text": "b"}\n', "line 2 has the _id q1 again"),
    ("queries.jsonl", '{"_id": "q1", "text": " "}\n', "line 1 has an empty sentence"),
    ("queries.jsonl", '{"id": "q1", "text": "a"}\n', "has the columns id, text, not _id: evaluation.queries reads"),
    ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n' * 2, "has an _id more than once"),
    ("corpus.jsonl", '{"_id": "d1", "text": 3}\n', "line 1 holds 3, not text"),
    ("corpus.jsonl", '{"_id": 1.5, "text": "a"}\n', "line 1 has no id: give text or a whole number"),
]


@pytest.mark.parametrize(("name", "text", "told"), BAD, ids=range(len(BAD)))
def test_what_does_not_fit_is_refused(folder: Path, name: str, text: str, told: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UserError) as refused:
        load(folder)
    assert str(folder) in str(refused.value) and told in str(refused.value)


def test_all_three_files_are_asked_for(folder: Path) -> None:
    for key in ("queries", "corpus", "qrels"):
        some = [text for text in given(folder) if key not in text]
        with pytest.raises(UserError, match=f"evaluation.{key} must be given with evaluation=retrieval"):
            load_retrieval(load_evaluate_config(some).evaluation)
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(UserError, match=r"evaluation.corpus=.*corpus.jsonl is not a file"):
        load(folder)
