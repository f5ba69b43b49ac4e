"""STS scores as the field reports them: Spearman of cosines against gold grades (Gao et al. 2021, app. B)."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity

from otfkd.base.errors import DivergenceError
from otfkd.config.sections import Compute
from otfkd.data.sts import Task
from otfkd.evaluation.encode import encode
from otfkd.models.encoder import Encoder

log = logging.getLogger("otfkd")

# Rounding in float32 turns an embedding by up to 1e-5, and a cosine of nearly 1 changes by half the square of that; the
# narrowest cones that were seen, of an encoder's first layers, have cosines that spread over 1e-6.
ROUNDING = 1e-10

COLLAPSED = "Spearman is undefined, for all pairs have the same similarity: the embeddings collapsed"

PROTOCOL = "float32 embeddings, cosine, Spearman x 100, no regressor"


@dataclass(frozen=True)
class StsScore:
    """Spearman x 100 of one task, aggregated in the three ways papers differ in; None where it is undefined.

    Attributes:
        all: over all pairs of the task at once; the number that tables show.
        mean: plain mean over subsets.
        wmean: mean over subsets weighted by their size.
        pairs: scored pairs.
    """

    all: float | None
    mean: float | None
    wmean: float | None
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def spearman(similarities: NDArray[np.float64], gold: NDArray[np.float64]) -> float:
    """Spearman x 100.

    Raises:
        DivergenceError: it is undefined, because the similarities do not differ by more than rounding.
    """
    value = float("nan") if np.ptp(similarities) <= ROUNDING else float(spearmanr(similarities, gold).statistic) * 100
    if not np.isfinite(value):
        raise DivergenceError(COLLAPSED)
    return value


def similarities(left: Tensor, right: Tensor) -> NDArray[np.float64]:
    """Cosine of each row with its partner, (n, d) and (n, d) to (n,).

    In double precision: where embeddings crowd into a narrow cone, as those of a cut encoder do, float32 cosines are
    all but equal, and their rounding, which differs with the batch size, would rank the pairs.
    """
    return cosine_similarity(left.double(), right.double()).numpy()


def score_task(task: Task, vectors: dict[str, Tensor]) -> StsScore:
    """Score a task from the embeddings of its sentences.

    Where all pairs have the same similarity there is no score, nor a mean over the subsets of which one is such.
    """
    parts = []
    for subset in task.subsets:
        left, right, gold = zip(*subset.pairs, strict=True)
        rows = [_stack(vectors, left), _stack(vectors, right)]
        parts.append((similarities(*rows), np.array(gold)))
    sizes = np.array([len(gold) for _, gold in parts])
    pooled = _defined(np.concatenate([sims for sims, _ in parts]), np.concatenate([gold for _, gold in parts]))
    each = [score for part in parts if (score := _defined(*part)) is not None]
    if len(each) < len(parts):
        return StsScore(pooled, None, None, int(sizes.sum()))
    return StsScore(pooled, float(np.mean(each)), float(np.average(each, weights=sizes)), int(sizes.sum()))


def cut(vectors: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """The first numbers of each embedding, as sentence-transformers' `truncate_dim` gives them."""
    return {sentence: vector[:size] for sentence, vector in vectors.items()}


def _defined(similarities: NDArray[np.float64], gold: NDArray[np.float64]) -> float | None:
    try:
        return spearman(similarities, gold)
    except DivergenceError:
        return None


def _stack(vectors: dict[str, Tensor], sentences: tuple[str, ...]) -> Tensor:
    return torch.stack([vectors[sentence] for sentence in sentences])


def embed(
    encoder: Encoder, tasks: Sequence[Task], *, batch_size: int, max_length: int, compute: Compute = "float32"
) -> dict[str, Tensor]:
    """The embedding of each distinct sentence of some tasks, (d,) each."""
    sentences = list(dict.fromkeys(sentence for task in tasks for sentence in task.sentences()))
    vectors = encode(encoder, sentences, batch_size=batch_size, max_length=max_length, compute=compute)
    vanished = (vectors == 0).all(dim=-1).nonzero().flatten().tolist()
    if vanished:
        log.warning(
            "%d of %d sentences have the zero vector as their embedding, the first %r: their cosines count as 0",
            len(vanished), len(sentences), sentences[vanished[0]],
        )  # fmt: skip
    return dict(zip(sentences, vectors, strict=True))


def evaluate(
    encoder: Encoder, tasks: Sequence[Task], *, batch_size: int, max_length: int, compute: Compute = "float32"
) -> dict[str, StsScore]:
    """Score an encoder on tasks, encoding each distinct sentence of all of them once."""
    vectors = embed(encoder, tasks, batch_size=batch_size, max_length=max_length, compute=compute)
    return {task.name: score_task(task, vectors) for task in tasks}


def average(scores: dict[str, StsScore]) -> float | None:
    """Mean of the tasks' 'all' scores, each rounded to two decimals first, as the field's scripts do.

    None where a task has none: a mean over fewer tasks is another number.
    """
    known = [round(score.all, 2) for score in scores.values() if score.all is not None]
    return float(np.mean(known)) if len(known) == len(scores) else None
