"""Transfer accuracies by SentEval's two protocols: logistic regression on frozen embeddings (Conneau & Kiela 2018)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otfkd.data.transfer import TransferTask
from otfkd.evaluation.classifier import Fitted, Fold, Recipe, fit
from otfkd.evaluation.encode import encode
from otfkd.models.encoder import Encoder

SEED = 1111
# SentEval's grid for its torch classifier; the one for scikit-learn's holds other numbers, which mean something else.
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2)

ProtocolName = Literal["full", "fast"]


@dataclass(frozen=True)
class TransferProtocol:
    """What the accuracies of two models must share to be compared.

    Attributes:
        name: `full`, the one that papers report, or `fast`, which is for prototypes and lower.
        folds: of the cross-validation, inner and outer.
        recipe: how each classifier is trained.
    """

    name: ProtocolName
    folds: int
    recipe: Recipe

    @property
    def description(self) -> str:
        """The protocol in words, for result rows and headers."""
        recipe = self.recipe
        return (
            f"SentEval {self.name}: accuracy, {self.folds} folds, no hidden layer, {recipe.optimizer}, batch "
            f"{recipe.batch_size}, tenacity {recipe.tenacity}, epoch size {recipe.epoch_size}, seed {recipe.seed}"
        )


PROTOCOLS: dict[ProtocolName, TransferProtocol] = {
    "full": TransferProtocol("full", 10, Recipe("adam", batch_size=64, tenacity=5, epoch_size=4, seed=SEED)),
    "fast": TransferProtocol("fast", 5, Recipe("rmsprop", batch_size=128, tenacity=3, epoch_size=2, seed=SEED)),
}


@dataclass(frozen=True)
class TransferScore:
    """How well one task is learnt from embeddings.

    Attributes:
        accuracy: per cent of the test examples; where there are none, the mean over outer folds.
        f1: per cent, of class 1; for tasks of pairs, else None.
        dev_accuracy: per cent, of the penalty that was chosen, on the examples that chose it.
        n: test examples.
        blank: sentences without words, read as a placeholder.
        protocol: by which the accuracies were made.
    """

    accuracy: float
    f1: float | None
    dev_accuracy: float
    n: int
    blank: int
    protocol: ProtocolName

    def as_dict(self) -> dict[str, Any]:
        """The numbers of a result row; the protocol goes in the row's own field."""
        values = {"accuracy": self.accuracy, "dev_accuracy": self.dev_accuracy, "n": self.n, "blank": self.blank}
        return values if self.f1 is None else {**values, "f1": self.f1}


def evaluate_transfer(
    encoder: Encoder, tasks: Sequence[TransferTask], protocol: ProtocolName, *, batch_size: int, max_length: int
) -> dict[str, TransferScore]:
    """Score an encoder on transfer tasks.

    Args:
        encoder: the encoder; it is not trained.
        tasks: from `load_transfer`.
        protocol: `full` or `fast`.
        batch_size: sentences embedded at a time.
        max_length: tokens read of a sentence.

    Raises:
        DivergenceError: an embedding is not finite.
    """
    scores: dict[str, TransferScore] = {}
    for task in tasks:
        columns = zip(*(example.texts for example in task.examples()), strict=True)
        vectors = [encode(encoder, column, batch_size=batch_size, max_length=max_length) for column in columns]
        scores[task.name] = score_transfer(task, combine(vectors), PROTOCOLS[protocol])
    return scores


def combine(vectors: Sequence[Tensor]) -> Tensor:
    """What the classifier sees: (n, d) of sentences as they are, of pairs |u - v| beside u * v as (n, 2d)."""
    if len(vectors) == 1:
        return vectors[0]
    left, right = vectors
    return torch.cat([(left - right).abs(), left * right], 1)


def score_transfer(task: TransferTask, features: Tensor, protocol: TransferProtocol) -> TransferScore:
    """Score one task.

    Args:
        task: the task.
        features: (n, d) float32 on the CPU, a row for each of the task's examples, in their order.
        protocol: how. The same features give the same score, to the bit.
    """
    labels = np.array([example.label for example in task.examples()])
    evaluation = _Evaluation(features, labels, protocol)
    rows = np.arange(len(labels))
    train, dev, test = np.split(rows, np.cumsum([len(task.train), len(task.dev)]))
    if not task.test:
        accuracy, dev_accuracy = evaluation.nested(train)
        return TransferScore(accuracy, None, dev_accuracy, len(train), task.blank, protocol.name)
    guesses, dev_accuracy = evaluation.on_dev(train, dev, test) if task.dev else evaluation.on_folds(train, test)
    f1 = _f1(guesses, labels[test]) if len(task.test[0].texts) == 2 else None
    accuracy = _per_cent((guesses == labels[test]).mean())
    return TransferScore(accuracy, f1, dev_accuracy, len(test), task.blank, protocol.name)


def stratified_folds(
    labels: NDArray[np.int64], folds: int, seed: int = SEED
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The (train, test) row numbers of scikit-learn's shuffled StratifiedKFold, the one SentEval's folds come from.

    Args:
        labels: (n,) classes from 0.
        folds: how many.
        seed: of the shuffling.
    """
    random = np.random.RandomState(seed)
    classes = list(dict.fromkeys(labels.tolist()))
    by_class = np.concatenate([np.full((labels == one).sum(), i) for i, one in enumerate(classes)])
    fold = np.empty(len(labels), np.int64)
    for i, one in enumerate(classes):
        sizes = [(by_class[start::folds] == i).sum() for start in range(folds)]
        members = np.arange(folds).repeat(sizes)
        random.shuffle(members)
        fold[labels == one] = members
    for number in range(folds):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


@dataclass(frozen=True)
class _Evaluation:
    """SentEval's three ways to choose a penalty and to test it (its `tools/validation.py`), rounding as it does."""

    features: Tensor
    labels: NDArray[np.int64]
    protocol: TransferProtocol

    def nested(self, rows: NDArray[np.int64]) -> tuple[float, float]:
        """Mean test and dev accuracy over outer folds, each with inner folds that choose its penalty."""
        outer = [(rows[train], rows[test]) for train, test in self._split(rows)]
        inner = self._fit([fold for train, _ in outer for fold in self._grid(train)])
        size = self.protocol.folds
        choices = [_choose(inner[start : start + size]) for start in range(0, len(inner), size)]
        refits = self._fit(
            [Fold(train, None, (penalty,)) for (train, _), (penalty, _) in zip(outer, choices, strict=True)]
        )
        accuracies = [
            _per_cent((self._guess(fitted, test) == self.labels[test]).mean())
            for fitted, (_, test) in zip(refits, outer, strict=True)
        ]
        return _mean(accuracies), _mean([accuracy for _, accuracy in choices])

    def on_folds(self, train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        """Guesses for the test rows and dev accuracy, where folds of the training rows choose the penalty."""
        penalty, accuracy = _choose(self._fit(self._grid(train)))
        [refit] = self._fit([Fold(train, None, (penalty,))])
        return self._guess(refit, test), accuracy

    def on_dev(
        self, train: NDArray[np.int64], dev: NDArray[np.int64], test: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], float]:
        """Guesses for the test rows and dev accuracy, where dev rows choose the penalty."""
        [fitted] = self._fit([Fold(train, dev, PENALTIES)])
        penalty, accuracy = _choose([fitted])
        # SentEval trains once more with this penalty, on the same rows from the same seed: the same classifier.
        return self._guess(fitted, test, PENALTIES.index(penalty)), accuracy

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        return stratified_folds(self.labels[rows], self.protocol.folds)

    def _grid(self, rows: NDArray[np.int64]) -> list[Fold]:
        return [Fold(rows[train], rows[dev], PENALTIES) for train, dev in self._split(rows)]

    def _fit(self, folds: Sequence[Fold]) -> list[Fitted]:
        return fit(self.features, self.labels, folds, self.protocol.recipe)

    def _guess(self, fitted: Fitted, rows: NDArray[np.int64], choice: int = 0) -> NDArray[np.int64]:
        return fitted.predict(self.features[torch.from_numpy(rows)])[:, choice]


def _choose(fitted: Sequence[Fitted]) -> tuple[float, float]:
    """The penalty with the best mean dev accuracy, the smallest of equals, and that accuracy in per cent."""
    accuracies = np.round(100 * np.mean([one.accuracy for one in fitted], axis=0), 2)
    best = int(accuracies.argmax())
    return PENALTIES[best], float(accuracies[best])


def _f1(guesses: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    hits = ((guesses == 1) & (labels == 1)).sum()
    return _per_cent(2 * hits / ((guesses == 1).sum() + (labels == 1).sum()))


def _per_cent(fraction: float) -> float:
    return round(100 * float(fraction), 2)


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 2)
