"""Many logistic regressions at once, each trained as SentEval trains one (its `tools/classifier.py`, no hidden layer).

SentEval fits thousands, one after the other, that differ only in their rows and their L2 penalty. Here each fold reads
a minibatch once for all its penalties, and many folds take a step together as one batched product.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# A pass over the rows after which no further one may start; SentEval counts it so.
_MAX_PASSES = 200
# The share of a fold's rows that stops it where it has no dev rows of its own.
_HELD_OUT = 0.05
# Folds that step together: enough to hide the cost of a call, few enough for their minibatches to stay in the cache.
_TOGETHER = 10


@dataclass(frozen=True)
class Recipe:
    """How one classifier is trained.

    Attributes:
        optimizer: with torch's default settings.
        batch_size: rows a step; the loss is their mean.
        tenacity: evaluations without a better dev accuracy that are forgiven, in all and not in a row.
        epoch_size: passes over the rows between two evaluations.
        seed: of the first weights, the held-out rows and the order of rows; the same for every classifier.
    """

    optimizer: Literal["adam", "rmsprop"]
    batch_size: int
    tenacity: int
    epoch_size: int
    seed: int


@dataclass(frozen=True)
class Fold:
    """Rows to train on, under each of some penalties.

    Attributes:
        train: row numbers.
        dev: row numbers that stop the training and score it; None: a twentieth of `train`, drawn at random, does.
        penalties: L2, on weights and bias.
    """

    train: NDArray[np.int64]
    dev: NDArray[np.int64] | None
    penalties: tuple[float, ...]


@dataclass(frozen=True)
class Fitted:
    """The best classifiers of a fold, one a penalty.

    Attributes:
        weights: (penalties, classes, d + 1), the bias last.
        accuracy: (penalties,) of the fold's dev rows, as a fraction.
    """

    weights: Tensor
    accuracy: NDArray[np.float64]

    def predict(self, features: Tensor) -> NDArray[np.int64]:
        """The classes of some rows, (n, d) to (n, penalties)."""
        return _classes(_with_bias(features), self.weights)


def fit(features: Tensor, labels: NDArray[np.int64], folds: Sequence[Fold], recipe: Recipe) -> list[Fitted]:
    """Train every classifier of every fold.

    Args:
        features: (n, d) float32 on the CPU.
        labels: (n,) classes from 0, every one of them present.
        folds: all with the same number of penalties.
        recipe: how to train each.

    Returns:
        One for each fold, in their order. The same bits for the same input and versions, whatever the threads.
    """
    data = _Data(_with_bias(features), labels, torch.eye(int(labels.max()) + 1)[torch.from_numpy(labels)])
    start = _first_weights(features.shape[1], data.classes, recipe.seed)
    runs = [_Run.of(fold, recipe.seed) for fold in folds]
    fitted: dict[int, Fitted] = {}
    with one_thread():
        for group in _alike(runs, recipe.batch_size):
            fitted |= zip(group, _fit_together(data, start, [runs[i] for i in group], recipe), strict=True)
    return [fitted[i] for i in range(len(folds))]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for many small steps, and the others back after them."""
    # A step takes less than a millisecond: two threads that wait for each other at its every product are 1.4 times as
    # fast on two free cores and twenty times as slow on busy ones.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Data:
    features: Tensor  # (n, d + 1)
    labels: NDArray[np.int64]  # (n,)
    targets: Tensor  # (n, classes), one-hot

    @property
    def classes(self) -> int:
        return self.targets.shape[1]


@dataclass(frozen=True)
class _Run:
    train: NDArray[np.int64]
    dev: NDArray[np.int64]
    penalties: tuple[float, ...]
    random: np.random.RandomState

    @classmethod
    def of(cls, fold: Fold, seed: int) -> "_Run":
        # numpy's old generator, because SentEval draws the held-out rows and then every order from it.
        random = np.random.RandomState(seed)
        if fold.dev is not None:
            return cls(fold.train, fold.dev, fold.penalties, random)
        shuffled = fold.train[random.permutation(len(fold.train))]
        cut = int(_HELD_OUT * len(shuffled))
        return cls(shuffled[cut:], shuffled[:cut], fold.penalties, random)

    def order(self) -> NDArray[np.int64]:
        return self.train[self.random.permutation(len(self.train))]


def _alike(runs: Sequence[_Run], batch_size: int) -> Iterator[list[int]]:
    # Folds that step together must have equally many steps a pass: a step without rows would still move weights.
    by_steps: dict[int, list[int]] = {}
    for i, run in enumerate(runs):
        by_steps.setdefault(-(-len(run.train) // batch_size), []).append(i)
    for same in by_steps.values():
        yield from (same[start : start + _TOGETHER] for start in range(0, len(same), _TOGETHER))


def _fit_together(data: _Data, start: Tensor, runs: Sequence[_Run], recipe: Recipe) -> list[Fitted]:
    penalties = torch.tensor([run.penalties for run in runs])
    weights = start.repeat(*penalties.shape, 1, 1)
    optimizer = _OPTIMIZERS[recipe.optimizer](weights)
    best, best_weights = np.full(penalties.shape, -1.0), weights.clone()
    misses, running = np.zeros(penalties.shape, np.int64), np.ones(penalties.shape, np.bool_)
    live = list(range(len(runs)))
    passes = 0
    while live and passes <= _MAX_PASSES:
        for _ in range(recipe.epoch_size):
            _pass(data, [runs[i] for i in live], weights, penalties[live], optimizer, recipe.batch_size)
        passes += recipe.epoch_size
        for i, candidates in zip(live, weights, strict=True):
            dev = runs[i].dev
            accuracy = (_classes(data.features[dev], candidates) == data.labels[dev][:, None]).mean(0)
            better = running[i] & (accuracy > best[i])
            best[i, better] = accuracy[better]
            best_weights[i, better] = candidates[better]
            missed = running[i] & ~better
            running[i] &= ~(missed & (misses[i] >= recipe.tenacity))
            misses[i] += missed
        still = np.array([running[i].any() for i in live])
        if not still.all():
            live = [i for i, goes_on in zip(live, still, strict=True) if goes_on]
            weights = weights[still]
            optimizer.keep(still)
    return [Fitted(best_weights[i], best[i]) for i in range(len(runs))]


def _pass(
    data: _Data, runs: Sequence[_Run], weights: Tensor, penalties: Tensor, optimizer: "_Optimizer", batch_size: int
) -> None:
    orders, shares = _padded_orders(runs, batch_size)
    for at in range(0, orders.shape[1], batch_size):
        rows, share = orders[:, at : at + batch_size], shares[:, at : at + batch_size]
        inputs, targets = _rows(data.features, rows), _rows(data.targets, rows)
        # Scores with their rows last: (folds, penalties, classes, rows) is several times as fast as classes last.
        scores = torch.bmm(weights.flatten(1, 2), inputs.mT).view(*weights.shape[:3], -1)
        # The gradient of the mean cross-entropy in the scores.
        errors = (scores.softmax(2) - targets.mT[:, None]) * share[:, None, None]
        gradient = torch.bmm(errors.flatten(1, 2), inputs).view_as(weights)
        optimizer.step(weights, gradient.addcmul_(penalties[:, :, None, None], weights))


def _rows(table: Tensor, rows: Tensor) -> Tensor:
    # Indexing by a matrix gives the same and takes three times as long.
    return table.index_select(0, rows.flatten()).view(*rows.shape, -1)


def _padded_orders(runs: Sequence[_Run], batch_size: int) -> tuple[Tensor, Tensor]:
    """Row numbers of each run's pass and each row's share of its minibatch's mean; 0 for rows that pad the last one."""
    steps = -(-len(runs[0].train) // batch_size)
    orders = np.zeros((len(runs), steps * batch_size), np.int64)
    shares = np.zeros(orders.shape, np.float32)
    for i, run in enumerate(runs):
        size, tail = len(run.train), (steps - 1) * batch_size
        orders[i, :size] = run.order()
        shares[i, :tail] = 1 / batch_size
        shares[i, tail:size] = 1 / (size - tail)
    return torch.from_numpy(orders), torch.from_numpy(shares)


def _first_weights(width: int, classes: int, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(width, classes)
    return torch.cat([layer.weight.detach(), layer.bias.detach()[:, None]], 1)


def _with_bias(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones(len(features), 1)], 1)


def _classes(inputs: Tensor, weights: Tensor) -> NDArray[np.int64]:
    """The best class of each row under each penalty, (n, d + 1) and (penalties, classes, d + 1) to (n, penalties)."""
    scores = inputs @ weights.flatten(0, 1).T
    found: NDArray[np.int64] = scores.view(len(inputs), *weights.shape[:2]).argmax(2).numpy()
    return found


class _Optimizer(Protocol):
    """Torch's update of the same name at its default settings, for folds that finish at different times."""

    def __init__(self, weights: Tensor): ...

    def step(self, weights: Tensor, gradient: Tensor) -> None: ...

    def keep(self, rows: NDArray[np.bool_]) -> None: ...


class _Adam:
    def __init__(self, weights: Tensor):
        self.first, self.second, self.steps = torch.zeros_like(weights), torch.zeros_like(weights), 0

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        self.first.lerp_(gradient, 0.1)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = self.second.sqrt().div_((1 - 0.999**self.steps) ** 0.5).add_(1e-8)
        weights.addcdiv_(self.first, scale, value=-0.001 / (1 - 0.9**self.steps))

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.first, self.second = self.first[rows], self.second[rows]


class _RMSprop:
    def __init__(self, weights: Tensor):
        self.square = torch.zeros_like(weights)

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        self.square.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        weights.addcdiv_(gradient, self.square.sqrt().add_(1e-8), value=-0.01)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.square = self.square[rows]


_OPTIMIZERS: dict[str, type[_Optimizer]] = {"adam": _Adam, "rmsprop": _RMSprop}
