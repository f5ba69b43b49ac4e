"""Retrieval by cosine, scored as the field does: nDCG@10, MRR@10 and Recall@100 (Thakur et al. 2021).

As in sentence-transformers' InformationRetrievalEvaluator a document answers a query or does not, whatever its grade.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import Tensor
from torch.nn.functional import normalize

from otfkd.base.errors import DivergenceError
from otfkd.data.retrieval import RetrievalTask
from otfkd.evaluation.encode import encode
from otfkd.evaluation.sts import ROUNDING
from otfkd.models.encoder import Encoder

PROTOCOL = "float32 embeddings, cosine, nDCG@10, MRR@10 and Recall@100 x 100, ties by document id"

_TOP, _DEEP = 10, 100
# Documents that are embedded and kept at once, and queries that are compared with them at once.
_CHUNK, _QUERIES = 10_000, 1000

# Minus the cosine and the id: in this order the best comes first, and of equals the smallest id.
Hit = tuple[float, str]


@dataclass(frozen=True)
class RetrievalScore:
    """How well a task's answers are found, each number x 100 and a mean over queries.

    Attributes:
        ndcg: of the first 10 documents.
        mrr: one over the place of the first answer among the first 10, or 0.
        recall: the share of a query's answers among the first 100.
        queries: how many.
        documents: how many were searched.
    """

    ndcg: float
    mrr: float
    recall: float
    queries: int
    documents: int

    def as_dict(self) -> dict[str, float | None]:
        """The numbers of a result row."""
        return {
            f"ndcg@{_TOP}": self.ndcg, f"mrr@{_TOP}": self.mrr, f"recall@{_DEEP}": self.recall,
            "queries": self.queries, "documents": self.documents,
        }  # fmt: skip


def evaluate_retrieval(
    encoder: Encoder, task: RetrievalTask, prompts: Mapping[str, str], *, batch_size: int, max_length: int
) -> RetrievalScore:
    """Score an encoder on a task, a chunk of the corpus at a time.

    Args:
        encoder: the encoder.
        task: from `load_retrieval`.
        prompts: of the model by name; as in sentence-transformers those called `query` and `document` are put before
            texts of either kind, and its default prompt is not.
        batch_size: texts embedded at a time.
        max_length: tokens read of a text.

    Raises:
        DivergenceError: an embedding is not finite, or no cosine differs from another.
    """

    def embed(texts: Sequence[str], kind: str) -> Tensor:
        reader = encoder.with_prompt(prompts.get(kind) or "")
        return normalize(encode(reader, texts, batch_size=batch_size, max_length=max_length).double(), dim=1)

    queries = embed(list(task.queries.values()), "query")
    best: list[list[Hit]] = [[] for _ in queries]
    documents, low, high = 0, math.inf, -math.inf
    for chunk in _chunks(task.documents()):
        names = [name for name, _ in chunk]
        found = embed([text for _, text in chunk], "document")
        for first in range(0, len(queries), _QUERIES):
            cosines = queries[first : first + _QUERIES] @ found.T
            low, high = min(low, float(cosines.min())), max(high, float(cosines.max()))
            for place, row in enumerate(cosines, first):
                best[place] = heapq.nsmallest(_DEEP, [*best[place], *_hits(row, names)])
        documents += len(chunk)
    if high - low <= ROUNDING:
        raise DivergenceError("no document is nearer to a query than another: the embeddings collapsed")
    answers = [task.relevant[query] for query in task.queries]
    return score([[name for _, name in hits] for hits in best], answers, documents)


def score(ranked: Sequence[Sequence[str]], relevant: Sequence[frozenset[str]], documents: int) -> RetrievalScore:
    """Score rankings, the best document first, by the answers of each query."""
    each = [_of_query(found, answers) for found, answers in zip(ranked, relevant, strict=True)]
    ndcg, mrr, recall = (100 * fmean(values) for values in zip(*each, strict=True))
    return RetrievalScore(ndcg, mrr, recall, len(each), documents)


def _of_query(found: Sequence[str], answers: frozenset[str]) -> tuple[float, float, float]:
    places = [place for place, name in enumerate(found, 1) if name in answers]
    top = [place for place in places if place <= _TOP]
    gain = sum(1 / math.log2(place + 1) for place in top)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(_TOP, len(answers)) + 1))
    return gain / ideal, 1 / top[0] if top else 0.0, len([place for place in places if place <= _DEEP]) / len(answers)


def _hits(cosines: Tensor, names: Sequence[str]) -> list[Hit]:
    """The best documents of a chunk for one query, (n,), with all that are as good as the last of them."""
    threshold = cosines.topk(min(_DEEP, len(names))).values[-1]
    places = (cosines >= threshold).nonzero().flatten()
    return [(-cosine, names[place]) for cosine, place in zip(cosines[places].tolist(), places.tolist(), strict=True)]


def _chunks(documents: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while chunk := list(itertools.islice(documents, _CHUNK)):
        yield chunk
