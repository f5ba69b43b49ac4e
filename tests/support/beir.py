"""Small retrieval tasks in BEIR's layout."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.texts import sentence

Answers = Mapping[str, Mapping[str, int]]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_beir(
    folder: Path, queries: Mapping[str, str], corpus: Sequence[tuple[str, str, str]], answers: Answers
) -> None:
    """Write a task: queries by id, (id, title, text) of documents, and the grade of each judged document."""
    write_lines(
        folder / "queries.jsonl", ({"_id": name, "text": text, "metadata": {}} for name, text in queries.items())
    )
    write_lines(folder / "corpus.jsonl", ({"_id": name, "title": title, "text": text} for name, title, text in corpus))
    judged = [(query, name, grade) for query, documents in answers.items() for name, grade in documents.items()]
    lines = [("query-id", "corpus-id", "score"), *judged]
    (folder / "qrels.tsv").write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))


def given(folder: Path) -> list[str]:
    """The overrides that name a task."""
    files = {"queries": "queries.jsonl", "corpus": "corpus.jsonl", "qrels": "qrels.tsv"}
    return ["evaluation=retrieval", *(f"evaluation.{key}={folder / name}" for key, name in files.items())]


def random_task(seed: int = 0) -> tuple[dict[str, str], list[tuple[str, str, str]], dict[str, dict[str, int]]]:
    """Forty queries, of which thirty have answers, and 260 documents.

    A fifth are copies of others, which are no answers: rounding may order copies in different batches.
    """
    rng = random.Random(seed)
    texts = [sentence(rng) for _ in range(208)]
    copied = rng.sample(texts, 52)
    texts += copied
    rng.shuffle(texts)
    names = [f"d{number}" for number in rng.sample(range(1000), len(texts))]
    corpus = [(name, "moon" if rng.random() < 0.5 else "", text) for name, text in zip(names, texts, strict=True)]
    single = [name for name, text in zip(names, texts, strict=True) if text not in copied]
    queries = {f"q{number}": sentence(rng) for number in range(40)}
    answers = {
        query: {name: rng.choice([1, 2, 0]) for name in rng.sample(single, rng.randint(1, 14))}
        | {rng.choice(single): 1}
        for query in list(queries)[:30]
    }
    return queries, corpus, answers
