"""Transfer accuracies: the batched trainer against one classifier at a time, the protocols against SentEval's steps."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from otfkd.data.transfer import NAMES, Example, TransferName, TransferTask, load_transfer
from otfkd.evaluation import classifier
from otfkd.evaluation.classifier import Fold, Recipe, fit
from otfkd.evaluation.transfer import (
    PENALTIES,
    PROTOCOLS,
    ProtocolName,
    TransferProtocol,
    combine,
    evaluate_transfer,
    score_transfer,
    stratified_folds,
)
from otfkd.models.encoder import Encoder
from otfkd.models.registry import find_model, load_encoder
from tests.support.models import WORDS

Rows = NDArray[np.int64]
ADAM = Recipe("adam", batch_size=16, tenacity=2, epoch_size=2, seed=1111)
RMSPROP = Recipe("rmsprop", batch_size=16, tenacity=1, epoch_size=1, seed=1111)
RECIPES = pytest.mark.parametrize("recipe", [ADAM, RMSPROP], ids=["adam", "rmsprop"])


def noisy(n: int, width: int, classes: int, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Rows]:
    """Features that tell their class, the better the less noise there is."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (n,), generator=random)
    centres = torch.randn(classes, width, generator=random)
    return centres[labels] + noise * torch.randn(n, width, generator=random), labels.numpy()


class Slow:
    """One classifier trained by torch's own layer, loss and optimizer, in a plain loop."""

    def __init__(self, features: Tensor, labels: Rows, recipe: Recipe, penalty: float):
        self.features, self.labels, self.recipe = features, torch.from_numpy(labels), recipe
        self.random = np.random.RandomState(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.layer = nn.Linear(features.shape[1], int(labels.max()) + 1)
        optimizers = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
        self.optimizer = optimizers[recipe.optimizer](self.layer.parameters(), weight_decay=penalty)
        self.evaluations = 0

    def fit(self, train: Rows, dev: Rows | None) -> float:
        if dev is None:
            shuffled = train[self.random.permutation(len(train))]
            dev, train = shuffled[: int(0.05 * len(train))], shuffled[int(0.05 * len(train)) :]
        best, kept, misses, passes = -1.0, self.layer, 0, 0
        while passes <= 200:
            for _ in range(self.recipe.epoch_size):
                self.one_pass(train)
            passes += self.recipe.epoch_size
            self.evaluations += 1
            accuracy = self.accuracy(dev)
            if accuracy > best:
                best, kept = accuracy, copy.deepcopy(self.layer)
                continue
            if misses >= self.recipe.tenacity:
                break
            misses += 1
        self.layer = kept
        return best

    def one_pass(self, train: Rows) -> None:
        order = train[self.random.permutation(len(train))]
        for start in range(0, len(order), self.recipe.batch_size):
            rows = torch.from_numpy(order[start : start + self.recipe.batch_size])
            loss = nn.functional.cross_entropy(self.layer(self.features[rows]), self.labels[rows])
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()

    def predict(self, rows: Rows) -> Rows:
        guesses: Rows = self.layer(self.features[torch.from_numpy(rows)]).argmax(1).numpy()
        return guesses

    def accuracy(self, rows: Rows) -> float:
        return float((self.predict(rows) == self.labels.numpy()[rows]).mean())

    def weights(self) -> Tensor:
        return torch.cat([self.layer.weight, self.layer.bias[:, None]], 1).detach()


def uneven_folds(n: int) -> list[Fold]:
    """Folds of unlike size and penalties, with a whole last minibatch or a part of one, some with held-out rows."""
    rows = np.random.default_rng(0).permutation(n)
    cuts = [(64, 100), (63, 90), (65, 105), (70, n), (48, 90), (64, 80), (65, 85)]
    parts: list[tuple[Rows, Rows | None]] = [(rows[:train], rows[train:dev]) for train, dev in cuts]
    parts += [(np.roll(rows, shift)[:80], np.roll(rows, shift)[80:]) for shift in range(1, 12)]
    parts += [(rows[:130], None), (rows[::-1][:100], None)]
    return [Fold(train, dev, (1e-5, 0.01 * (i + 1), 0.3)) for i, (train, dev) in enumerate(parts)]


@pytest.mark.parametrize(("recipe", "classes"), [(ADAM, 4), (RMSPROP, 2)], ids=["adam", "rmsprop"])
def test_the_batched_trainer_equals_one_classifier_at_a_time(recipe: Recipe, classes: int) -> None:
    features, labels = noisy(140, 6, classes)
    folds = uneven_folds(len(labels))
    evaluations = set()
    for fold, fitted in zip(folds, fit(features, labels, folds, recipe), strict=True):
        for i, penalty in enumerate(fold.penalties):
            slow = Slow(features, labels, recipe, penalty)
            assert slow.fit(fold.train, fold.dev) == fitted.accuracy[i]
            assert (fitted.weights[i] - slow.weights()).abs().max() < 1e-4
            assert (fitted.predict(features)[:, i] == slow.predict(np.arange(len(labels)))).all()
            evaluations.add(slow.evaluations)
    assert len(evaluations) > 3, "classifiers that all stop at the same time do not test that each stops by itself"
    assert max(evaluations) < 100


@RECIPES
def test_the_penalty_is_felt(recipe: Recipe) -> None:
    features, labels = noisy(140, 6, 2)
    patient = replace(recipe, tenacity=50)
    [fitted] = fit(features, labels, [Fold(np.arange(100), np.arange(100, 140), (0.0, 1.0))], patient)
    free, held = fitted.weights.norm(dim=(1, 2)).tolist()
    assert held < free / 2


def test_training_ends_though_it_never_tires(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[None] = []
    one_pass = classifier._pass
    monkeypatch.setattr(classifier, "_pass", lambda *inputs: passes.append(one_pass(*inputs)))
    features, labels = noisy(40, 3, 2)
    recipe = Recipe("rmsprop", batch_size=16, tenacity=1000, epoch_size=8, seed=1111)
    slow = Slow(features, labels, recipe, 1e-3)
    expected = slow.fit(np.arange(30), np.arange(30, 40))
    [fitted] = fit(features, labels, [Fold(np.arange(30), np.arange(30, 40), (1e-3,))], recipe)
    assert len(passes) == 8 * slow.evaluations == 208
    assert fitted.accuracy.tolist() == [expected]
    assert (fitted.weights[0] - slow.weights()).abs().max() < 1e-4


@pytest.mark.parametrize("count", [1, 3])
def test_a_fold_does_not_feel_its_neighbours(count: int) -> None:
    features, labels = noisy(140, 6, 2)
    folds = uneven_folds(len(labels))
    together, alone = fit(features, labels, folds, ADAM)[:count], fit(features, labels, folds[:count], ADAM)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.weights, other.weights)
        assert one.accuracy.tolist() == other.accuracy.tolist()


def test_training_leaves_the_random_streams_alone() -> None:
    features, labels = noisy(140, 6, 2)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    fit(features, labels, uneven_folds(len(labels)), ADAM)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]


def test_training_takes_one_thread_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = noisy(140, 6, 2)
    seen = set()
    one_pass = classifier._pass

    def watched(*inputs: Any) -> None:
        seen.add(torch.get_num_threads())
        one_pass(*inputs)

    monkeypatch.setattr(classifier, "_pass", watched)
    torch.set_num_threads(2)
    try:
        fit(features, labels, uneven_folds(len(labels)), RMSPROP)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == {1}


@pytest.mark.parametrize(("n", "classes", "folds"), [(100, 2, 10), (97, 2, 10), (203, 6, 5), (64, 3, 4)])
def test_folds_are_scikit_learns(n: int, classes: int, folds: int) -> None:
    sklearn: Any = pytest.importorskip("sklearn.model_selection")
    _, labels = noisy(n, 2, classes, seed=n)
    expected = sklearn.StratifiedKFold(folds, shuffle=True, random_state=1111).split(labels, labels)
    found = list(stratified_folds(labels, folds))
    for (train, test), (expected_train, expected_test) in zip(found, expected, strict=True):
        assert train.tolist() == expected_train.tolist()
        assert test.tolist() == expected_test.tolist()


def make_task(
    labels: Rows, name: TransferName = "CR", *, dev: int = 0, test: int = 0, texts: tuple[str, ...] = ("a",)
) -> TransferTask:
    """A task whose last examples are dev and test."""
    examples = tuple(Example(texts, int(label)) for label in labels)
    train = len(examples) - dev - test
    return TransferTask(name, examples[:train], examples[train : train + dev], examples[train + dev :], blank=0)


KINDS = pytest.mark.parametrize(("dev", "test"), [(0, 0), (0, 60), (50, 60)], ids=["nested", "folds", "split"])
PROTOCOL = pytest.mark.parametrize("protocol", ["full", "fast"])


class SlowEvaluation:
    """SentEval's three validations step by step, on scikit-learn's folds and one classifier at a time."""

    def __init__(self, features: Tensor, labels: Rows, protocol: TransferProtocol, penalties: tuple[float, ...]):
        sklearn: Any = pytest.importorskip("sklearn.model_selection")
        self.features, self.labels, self.recipe = features, labels, protocol.recipe
        self.penalties, self.taken = penalties, set[float]()
        self.folds = sklearn.StratifiedKFold(protocol.folds, shuffle=True, random_state=1111)

    def classifier(self, penalty: float) -> Slow:
        return Slow(self.features, self.labels, self.recipe, penalty)

    def chosen(self, rows: Rows) -> tuple[float, float]:
        scores = [
            round(100 * float(np.mean([self.classifier(penalty).fit(*fold) for fold in self.split(rows)])), 2)
            for penalty in self.penalties
        ]
        return self.best(scores), max(scores)

    def best(self, scores: list[float]) -> float:
        best = self.penalties[int(np.argmax(scores))]
        self.taken.add(best)
        return best

    def split(self, rows: Rows) -> list[tuple[Rows, Rows]]:
        return [(rows[train], rows[test]) for train, test in self.folds.split(rows, self.labels[rows])]

    def refit(self, rows: Rows, penalty: float, test: Rows) -> float:
        classifier = self.classifier(penalty)
        classifier.fit(rows, None)
        return round(100 * classifier.accuracy(test), 2)

    def run(self, train: Rows, dev: Rows, test: Rows) -> tuple[float, float]:
        """Test and dev accuracy."""
        if len(dev):
            scores = [round(100 * self.classifier(penalty).fit(train, dev), 2) for penalty in self.penalties]
            again = self.classifier(self.best(scores))
            again.fit(train, dev)
            return round(100 * again.accuracy(test), 2), max(scores)
        if len(test):
            penalty, score = self.chosen(train)
            return self.refit(train, penalty, test), score
        choices = [(rows, held_out, *self.chosen(rows)) for rows, held_out in self.split(train)]
        tests = [self.refit(rows, penalty, held_out) for rows, held_out, penalty, _ in choices]
        return round(float(np.mean(tests)), 2), round(float(np.mean([score for *_, score in choices])), 2)


@RECIPES
@KINDS
def test_each_kind_of_task_is_scored_as_senteval_scores_it(
    monkeypatch: pytest.MonkeyPatch, recipe: Recipe, dev: int, test: int
) -> None:
    # On data this small SentEval's own penalties are all alike.
    penalties = (0.01, 0.1, 1.0, 10.0)
    monkeypatch.setattr("otfkd.evaluation.transfer.PENALTIES", penalties)
    features, labels = noisy(150 + dev + test, 5, 2, noise=1.5)
    protocol = TransferProtocol("fast", 4, recipe)
    score = score_transfer(make_task(labels, dev=dev, test=test), features, protocol)
    slow = SlowEvaluation(features, labels, protocol, penalties)
    rows = np.split(np.arange(len(labels)), [150, 150 + dev])
    assert (score.accuracy, score.dev_accuracy) == slow.run(*rows)
    assert slow.taken - {penalties[0]}, "a choice that is always the first tests no choice"
    assert score.n == (test or 150)


@PROTOCOL
@KINDS
def test_separable_classes_are_learnt(protocol: ProtocolName, dev: int, test: int) -> None:
    features, labels = noisy(480 + dev + test, 16, 3, noise=0.05)
    score = score_transfer(make_task(labels, dev=dev, test=test), 5 * features, PROTOCOLS[protocol])
    assert (score.accuracy, score.dev_accuracy) == (100, 100)


@PROTOCOL
@KINDS
def test_random_labels_are_not(protocol: ProtocolName, dev: int, test: int) -> None:
    features = noisy(800 + dev + 5 * test, 8, 2)[0]
    labels = np.random.default_rng(1).integers(0, 2, len(features))
    score = score_transfer(make_task(labels, dev=dev, test=5 * test), features, PROTOCOLS[protocol])
    assert 43 < score.accuracy < 57


@KINDS
def test_the_same_features_give_the_same_score(dev: int, test: int) -> None:
    features, labels = noisy(200 + dev + test, 8, 2, noise=3.0)
    task = make_task(labels, dev=dev, test=test)
    first = score_transfer(task, features, PROTOCOLS["fast"])
    torch.manual_seed(5)
    np.random.seed(5)
    assert score_transfer(task, features, PROTOCOLS["fast"]) == first


@pytest.mark.parametrize("dev", [0, 50])
def test_test_labels_choose_nothing(dev: int) -> None:
    features, labels = noisy(260 + dev, 8, 2, noise=3.0)
    score = score_transfer(make_task(labels, dev=dev, test=60), features, PROTOCOLS["fast"])
    labels[-60:] = 1 - labels[-60:]
    flipped = score_transfer(make_task(labels, dev=dev, test=60), features, PROTOCOLS["fast"])
    assert flipped.dev_accuracy == score.dev_accuracy
    assert flipped.accuracy == pytest.approx(100 - score.accuracy)


def test_pairs_have_an_f1_of_the_first_class_and_sentences_none() -> None:
    features, labels = noisy(240, 16, 2, noise=0.1)
    labels[-40:] = [0] * 30 + [1] * 10
    features[-40:] = features[[int(np.flatnonzero(labels == label)[0]) for label in labels[-40:]]]
    # The classifier gets all right, so changed labels make its mistakes: it finds 8 of the 12 of class 1, and 2 more.
    labels[-40:] = [1] * 4 + [0] * 26 + [1] * 8 + [0] * 2
    score = score_transfer(make_task(labels, "MRPC", test=40, texts=("a", "b")), features, PROTOCOLS["fast"])
    assert score.accuracy == 85
    assert score.f1 == round(100 * 2 * 8 / (10 + 12), 2)
    assert score.as_dict()["f1"] == score.f1
    single = score_transfer(make_task(labels, test=40), features, PROTOCOLS["fast"])
    assert single.f1 is None
    assert "f1" not in single.as_dict()


def test_pairs_are_their_difference_beside_their_product() -> None:
    left, right = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    assert combine([left, right]).tolist() == [[2, 6, 3, -8]]
    assert combine([left]) is left


def test_the_protocols_are_sentevals() -> None:
    assert PROTOCOLS["full"].description == (
        "SentEval full: accuracy, 10 folds, no hidden layer, adam, batch 64, tenacity 5, epoch size 4, seed 1111"
    )
    assert PROTOCOLS["fast"].description == (
        "SentEval fast: accuracy, 5 folds, no hidden layer, rmsprop, batch 128, tenacity 3, epoch size 2, seed 1111"
    )
    assert PENALTIES == (1e-5, 1e-4, 1e-3, 1e-2)


def spoken(labels: Sequence[int], name: TransferName, *, pair: bool = False, test: int = 0) -> TransferTask:
    """A task whose sentences hold one word for each class among others; of pairs, whether it is the same in both."""
    random = np.random.default_rng(0)

    def sentence(word: str) -> str:
        return " ".join([word] * 4 + [WORDS[i] for i in random.integers(10, 20, 2)])

    def texts(label: int) -> tuple[str, ...]:
        if not pair:
            return (sentence(["moon", "bread"][label]),)
        return sentence("moon"), sentence(["bread", "moon"][label])

    examples = tuple(Example(texts(label), label) for label in labels)
    cut = len(examples) - test
    return TransferTask(name, examples[:cut], (), examples[cut:], blank=2)


def test_an_encoder_is_scored_on_sentences_and_pairs(tiny_encoder: Encoder) -> None:
    tasks = [spoken([0, 1] * 60, "CR"), spoken([0, 1] * 80, "MRPC", pair=True, test=40)]
    scores = evaluate_transfer(tiny_encoder, tasks, "fast", batch_size=16, max_length=32)
    assert list(scores) == ["CR", "MRPC"]
    assert scores["CR"].accuracy > 90
    assert scores["MRPC"].accuracy > 75
    assert scores["CR"].f1 is None
    assert scores["MRPC"].f1 is not None
    assert [score.n for score in scores.values()] == [120, 40]
    assert [score.blank for score in scores.values()] == [2, 2]


@PROTOCOL
def test_a_score_names_its_protocol(tiny_encoder: Encoder, protocol: ProtocolName) -> None:
    scores = evaluate_transfer(tiny_encoder, [spoken([0, 1] * 60, "CR")], protocol, batch_size=16, max_length=32)
    assert scores["CR"].protocol == protocol


def test_the_encoder_is_left_as_it_was(tiny_encoder: Encoder) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_encoder.state_dict().items()}
    tiny_encoder.train()
    evaluate_transfer(tiny_encoder, [spoken([0, 1] * 60, "CR")], "fast", batch_size=16, max_length=32)
    assert tiny_encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_encoder.state_dict().items())


# SentEval's own classifiers on the same embeddings (../shared/data/README.md), which were of whole sentences (two of
# SUBJ have over 128 tokens) and of the empty string where a sentence is blank.
REFERENCE: dict[TransferName, float] = {
    "MR": 75.06, "CR": 82.07, "SUBJ": 91.89, "MPQA": 86.96, "SST2": 81.55, "TREC": 88.4, "MRPC": 71.71,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.data
def test_minilm_scores_as_senteval_says(real_data: Path) -> None:
    encoder = load_encoder(find_model("minilm"), "mean")
    scores = evaluate_transfer(encoder, load_transfer(real_data, NAMES), "fast", batch_size=64, max_length=512)
    differences = {name: scores[name].accuracy - REFERENCE[name] for name in NAMES}
    assert {name: gap for name, gap in differences.items() if abs(gap) > 1.5} == {}
    assert abs(np.mean(list(differences.values()))) <= 0.5
    assert scores["MRPC"].f1 == pytest.approx(80.43, abs=1.5)
