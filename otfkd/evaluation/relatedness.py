"""Supervised STS-B and SICK-R by SentEval's protocol: grades predicted from frozen embeddings (Conneau & Kiela 2018).

A softmax over five grades is trained on the features |u - v| and u * v, and the prediction is its expectation (Tai et
al. 2015, sec. 4.2). SentEval fits it to the target shares by squared error, and so does this.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from otfkd.base.errors import DivergenceError
from otfkd.data.grades import GradedPairs
from otfkd.data.relatedness import RelatednessTask
from otfkd.evaluation.classifier import one_thread
from otfkd.evaluation.encode import encode
from otfkd.evaluation.transfer import combine
from otfkd.models.encoder import Encoder

SEED = 1111
_GRADES = 5
_BATCH = 64
# Passes between two looks at dev, after how many none starts any more, and looks without a better one forgiven in all.
_EPOCHS, _MAX_EPOCHS, _TENACITY = 50, 1000, 3
# Grades are up to 5, and predicted from float32 shares.
_ROUNDING = 1e-5

PROTOCOL = (
    "SentEval supervised: Pearson x 100 of a softmax regression on |u - v| and u * v, squared error, adam, "
    f"batch {_BATCH}, stopped by dev Pearson, seed {SEED}, words rejoined by single spaces"
)


@dataclass(frozen=True)
class RelatednessScore:
    """How well grades are predicted.

    Attributes:
        pearson: x 100, of the test pairs.
        spearman: x 100, of the test pairs.
        mse: mean squared error of the test grades.
        dev_pearson: x 100, the best on the dev pairs, which chose when to stop.
        n: test pairs.
    """

    pearson: float
    spearman: float
    mse: float
    dev_pearson: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """The numbers of a result row."""
        return asdict(self)


def evaluate_relatedness(
    encoder: Encoder, tasks: Sequence[RelatednessTask], *, batch_size: int, max_length: int
) -> dict[str, RelatednessScore]:
    """Score an encoder on supervised tasks; it is not trained.

    Args:
        encoder: the encoder.
        tasks: from `load_relatedness`.
        batch_size: sentences embedded at a time.
        max_length: tokens read of a sentence.

    Raises:
        DivergenceError: an embedding is not finite, or no prediction has a Pearson.
    """

    def features(pairs: GradedPairs) -> Tensor:
        columns = [left for left, _, _ in pairs], [right for _, right, _ in pairs]
        return combine([encode(encoder, column, batch_size=batch_size, max_length=max_length) for column in columns])

    return {
        task.name: score_relatedness(task, [features(pairs) for pairs in (task.train, task.dev, task.test)])
        for task in tasks
    }


def score_relatedness(task: RelatednessTask, features: Sequence[Tensor]) -> RelatednessScore:
    """Score one task.

    Args:
        task: the task.
        features: (n, d) float32 on the CPU of its train, dev and test pairs. The same ones give the same score, to the
            bit, whatever the threads.

    Raises:
        DivergenceError: no prediction has a Pearson, because they do not differ.
    """
    train, dev, test = (np.array([grade for *_, grade in pairs]) for pairs in (task.train, task.dev, task.test))
    layer, dev_pearson = _fit(features[0], target_shares(train), features[1], dev)
    with one_thread():
        found = _predict(layer, features[2])
    pearson = _pearson(found, test)
    if not np.isfinite(pearson):
        raise DivergenceError("Pearson is undefined, for all test pairs are given the same grade")
    spearman, error = float(spearmanr(found, test).statistic), float(np.mean((found - test) ** 2))
    return RelatednessScore(100 * pearson, 100 * spearman, error, 100 * dev_pearson, len(test))


def target_shares(grades: NDArray[np.float64]) -> Tensor:
    """Each grade shared between the two whole ones around it, (n,) to (n, 5), so that the expectation is the grade.

    There is no share for the grade 0, as in SentEval: below 1 the shares add up to the grade and not to 1.
    """
    steps = torch.arange(1, _GRADES + 1, dtype=torch.float64)
    return (1 - (torch.from_numpy(grades)[:, None] - steps).abs()).clamp(min=0).float()


def _fit(train: Tensor, shares: Tensor, dev: Tensor, dev_grades: NDArray[np.float64]) -> tuple[nn.Linear, float]:
    """The layer with the best Pearson on dev, and that Pearson."""
    random = np.random.RandomState(SEED)  # numpy's old generator, because SentEval draws every order from it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer = nn.Linear(train.shape[1], _GRADES)
    optimizer = torch.optim.Adam(layer.parameters())
    best, best_layer, misses, epochs = -1.0, None, 0, 0
    with one_thread(), torch.enable_grad():
        while epochs <= _MAX_EPOCHS and misses <= _TENACITY:
            for _ in range(_EPOCHS):
                _pass(layer, optimizer, train, shares, torch.from_numpy(random.permutation(len(train))))
            epochs += _EPOCHS
            pearson = _pearson(_predict(layer, dev), dev_grades)
            if pearson > best:
                best, best_layer = pearson, copy.deepcopy(layer)
            else:
                misses += 1
    if best_layer is None:
        raise DivergenceError("Pearson is undefined, for all dev pairs are given the same grade")
    return best_layer, best


def _pass(layer: nn.Linear, optimizer: torch.optim.Optimizer, train: Tensor, shares: Tensor, order: Tensor) -> None:
    for rows in torch.split(order, _BATCH):
        # The sum of squares, not the mean; Adam makes next to nothing of the difference.
        loss = (layer(train[rows]).softmax(1) - shares[rows]).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _predict(layer: nn.Linear, features: Tensor) -> NDArray[np.float64]:
    """The expected grade of each row, (n, d) to (n,)."""
    with torch.no_grad():
        grades: NDArray[np.float64] = (layer(features).softmax(1).double() @ torch.arange(1.0, 6).double()).numpy()
    return grades


def _pearson(found: NDArray[np.float64], gold: NDArray[np.float64]) -> float:
    """Pearson's correlation; not a number where predictions differ by their rounding alone."""
    return float(pearsonr(found, gold).statistic) if np.ptp(found) > _ROUNDING else math.nan
