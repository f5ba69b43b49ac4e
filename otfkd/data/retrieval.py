"""Retrieval tasks in BEIR's layout (Thakur et al. 2021): queries, a corpus, and which documents answer which query."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from otfkd.base.errors import UserError
from otfkd.base.hashing import sha256_bytes
from otfkd.config.sections import EvaluationConfig
from otfkd.data.corpus import repeat_key
from otfkd.data.formats import TextFile, as_text, filled, recognize
from otfkd.data.grades import finite
from otfkd.data.hub import load_split
from otfkd.data.joined import Table

log = logging.getLogger("otfkd")

_JUDGED = ("query-id", "corpus-id", "score")

# The thirteen tasks of NanoBEIR, as splits of its subsets queries, corpus and qrels.
NANO = (
    "NanoClimateFEVER", "NanoDBPedia", "NanoFEVER", "NanoFiQA2018", "NanoHotpotQA", "NanoMSMARCO", "NanoNFCorpus",
    "NanoNQ", "NanoQuoraRetrieval", "NanoSCIDOCS", "NanoArguAna", "NanoSciFact", "NanoTouche2020",
)  # fmt: skip


@dataclass(frozen=True)
class RetrievalTask:
    """Queries with the documents that answer them; the documents stay in their file.

    Attributes:
        name: of the task; of a user's own files the folder that holds the corpus, as BEIR's data sets are called.
        queries: the text of each query that something answers, by its id.
        relevant: the documents that answer each, by their ids.
        corpus: the documents.
    """

    name: str
    queries: dict[str, str]
    relevant: dict[str, frozenset[str]]
    corpus: TextFile | Table

    def documents(self) -> Iterator[tuple[str, str]]:
        """Each document's id and text, its title before it, in the order of the file.

        Raises:
            UserError: a document that cannot be read.
        """
        titled = "title" in self.corpus.columns
        for where, (name, text, *title) in self.corpus.rows(["_id", "text", *(["title"] if titled else [])]):
            yield _id(name, where), " ".join(as_text(part, where) for part in (*title, text)).strip()

    @cached_property
    def checksum(self) -> str:
        """The sha256 over all queries, documents and answers."""
        judged = ((query, document) for query in sorted(self.relevant) for document in sorted(self.relevant[query]))
        parts = (self.queries.items(), judged, self.documents())
        return sha256_bytes(f"{one}\t{other}\n".encode() for part in parts for one, other in part)


def checksum(tasks: Sequence[RetrievalTask]) -> str:
    """The sha256 over tasks; of one its own."""
    own = [task.checksum for task in tasks]
    return own[0] if len(own) == 1 else sha256_bytes(one.encode() for one in own)


def load_retrieval(config: EvaluationConfig) -> RetrievalTask:
    """The retrieval task that a config names.

    Raises:
        UserError: a file is missing, is not what it should be, or does not fit the others.
    """
    queries, corpus, qrels = (
        _table(f"evaluation.{key}", path, columns)
        for key, path, columns in (
            ("queries", config.queries, ("_id", "text")),
            ("corpus", config.corpus, ("_id", "text")),
            ("qrels", config.qrels, _JUDGED),
        )
    )
    return _task(corpus.path.absolute().parent.name, queries, corpus, qrels)


def load_nano(config: EvaluationConfig) -> list[RetrievalTask]:
    """The tasks of NanoBEIR that a config names, from the hub or from a folder that is a copy of its data set.

    Raises:
        UserError: there is no such task, or its data cannot be had or is not what it should be.
    """
    source = config.path or config.repo
    if source is None:
        raise UserError(
            "evaluation.suite=beir_nano needs evaluation.path or evaluation.repo: take evaluation=beir_nano"
        )
    names = NANO if config.tasks is None else config.tasks
    if unknown := [name for name in names if name not in NANO]:
        raise UserError(f"evaluation.tasks names {unknown[0]}, which NanoBEIR has not: take of {', '.join(NANO)}")
    instead = "evaluation.path=FOLDER that holds a copy of it"
    return [
        _task(name, *(load_split(source, subset, name, instead) for subset in ("queries", "corpus", "qrels")))
        for name in names
    ]


def _task(name: str, queries: TextFile | Table, corpus: TextFile | Table, qrels: TextFile | Table) -> RetrievalTask:
    relevant = _relevant(qrels)
    texts: dict[str, str] = {}
    for where, (query, text) in queries.rows(["_id", "text"]):
        if (known := _id(query, where)) in texts:
            raise UserError(f"{where} has the _id {known} again: give each query one of its own")
        texts[known] = filled(text, where)
    unknown = next((query for query in relevant if query not in texts), None)
    if unknown is not None:
        raise UserError(
            f"{qrels.name} names the query {unknown}, and {queries.name} has none: give the files of one set"
        )
    asked = {query: text for query, text in texts.items() if query in relevant}
    task = RetrievalTask(name, asked, relevant, corpus)
    _check_documents(task)
    return task


def _table(key: str, path: str | None, columns: tuple[str, ...]) -> TextFile:
    if path is None:
        raise UserError(f"{key} must be given with evaluation=retrieval: add {key}=FILE")
    table = recognize(Path(path), unnamed="csv", key=key)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        listed = ", ".join(name[:40] for name in table.columns) or "no names"
        raise UserError(f"{path} has the columns {listed}, not {missing[0]}: {key} reads {', '.join(columns)}")
    return table


def _relevant(qrels: TextFile | Table) -> dict[str, frozenset[str]]:
    """The documents that answer each query, of those that any answers; NanoBEIR lists only answers, without a score."""
    found: dict[str, set[str]] = {}
    for where, (query, document, *grade) in qrels.rows([name for name in _JUDGED if name in qrels.columns]):
        if not grade or _grade(grade[0], where) > 0:
            answers = document if isinstance(document, list) else [document]
            found.setdefault(_id(query, where), set()).update(_id(answer, where) for answer in answers)
    if not found:
        raise UserError(f"{qrels.name} has no score above 0, so no query has an answer: give one with answers")
    return {query: frozenset(documents) for query, documents in found.items()}


def _check_documents(task: RetrievalTask) -> None:
    """Each document has an id of its own; an answer that is no document is never found."""
    keys = bytearray()  # eight bytes a document: the ids of a large corpus may not fit in memory
    missing = set().union(*task.relevant.values())
    wanted = len(missing)
    for name, _ in task.documents():
        keys += repeat_key(name)
        missing.discard(name)
    if len(np.unique(np.frombuffer(keys, np.uint64))) < len(keys) // 8:
        raise UserError(f"{task.corpus.name} has an _id more than once: give each document one of its own")
    if len(missing) == wanted:
        raise UserError(f"{task.corpus.name} holds no answer to any query: give the corpus that evaluation.qrels is of")
    if missing:
        log.warning(
            "%s lacks %d of the %d documents that answer a query: they count as not found",
            task.corpus.name, len(missing), wanted,
        )  # fmt: skip


def _id(value: Any, where: str) -> str:
    """An id as text; JSON may have it as a number."""
    if value is None or isinstance(value, float | bool | list | dict) or not str(value).strip():
        raise UserError(f"{where} has no id: give text or a whole number")
    return str(value)


def _grade(value: Any, where: str) -> float:
    grade = finite(value)
    if grade is None:
        raise UserError(f"{where} has the score {str(value)[:40]!r}: give a number, above 0 for an answer")
    return grade
