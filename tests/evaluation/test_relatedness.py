"""Supervised grades against SentEval's procedure, worked out by hand in numpy."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from otfkd.base.errors import DivergenceError
from otfkd.data.grades import GradedPairs
from otfkd.data.relatedness import RelatednessTask
from otfkd.evaluation import relatedness
from otfkd.evaluation.relatedness import evaluate_relatedness, score_relatedness, target_shares
from otfkd.models.encoder import Encoder

Array = NDArray[np.float64]
SIZES = (110, 60, 70)


def graded(seed: int, noise: float = 1.0) -> tuple[RelatednessTask, list[Tensor]]:
    """A task, and features of its splits that tell the grade, the better the less noise there is."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=6)
    splits, features = [], []
    for size in SIZES:
        grades = np.round(random.uniform(0, 5, size), 1)
        rows = (grades - 2.5)[:, None] * direction + noise * random.normal(size=(size, 6))
        splits.append(tuple(("a", "b", float(grade)) for grade in grades))
        features.append(torch.tensor(rows, dtype=torch.float32))
    return RelatednessTask("toy", *splits), features


def slow_shares(grade: float) -> list[float]:
    """Tai et al.'s sparse target: a grade between k and k + 1 belongs to both, to each the more the nearer it is."""
    shares, floor = [0.0] * 6, int(grade)
    shares[floor] += floor + 1 - grade
    if floor < 5:
        shares[floor + 1] += grade - floor
    return shares[1:]  # there is no class for 0


class Slow:
    """The same classifier with its gradient and Adam written out, in double precision."""

    def __init__(self, width: int):
        torch.manual_seed(1111)
        layer = nn.Linear(width, 5)
        self.weights = torch.cat([layer.weight, layer.bias[:, None]], 1).detach().double().numpy()
        self.first, self.second, self.steps = np.zeros_like(self.weights), np.zeros_like(self.weights), 0
        self.random = np.random.RandomState(1111)

    @staticmethod
    def softmax(scores: Array) -> Array:
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True))

    def epoch(self, inputs: Array, targets: Array) -> None:
        order = self.random.permutation(len(inputs))
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            shares = self.softmax(inputs[rows] @ self.weights.T)
            slope = 2 * (shares - targets[rows])
            errors = shares * (slope - (slope * shares).sum(1, keepdims=True))
            self.adam(errors.T @ inputs[rows])

    def adam(self, gradient: Array) -> None:
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        self.weights = self.weights - 0.001 * first / (np.sqrt(second) + 1e-8)

    def predict(self, inputs: Array, weights: Array) -> Array:
        return self.softmax(inputs @ weights.T) @ np.arange(1, 6)

    def run(self, task: RelatednessTask, features: list[Tensor]) -> tuple[Array, float, int]:
        """Test predictions, the best Pearson on dev, and the passes made."""
        train, dev, test = (np.c_[rows.double().numpy(), np.ones(len(rows))] for rows in features)
        targets = np.array([slow_shares(grade) for *_, grade in task.train])
        gold = np.array([grade for *_, grade in task.dev])
        best, kept, early, epochs, stop = -1.0, self.weights, 0, 0, False
        while not stop and epochs <= 1000:
            for _ in range(50):
                self.epoch(train, targets)
            epochs += 50
            pearson = float(np.corrcoef(self.predict(dev, self.weights), gold)[0, 1])
            if pearson > best:
                best, kept = pearson, self.weights
            else:
                if early >= 3:
                    stop = True
                early += 1
        return self.predict(test, kept), best, epochs


@pytest.mark.parametrize(("seed", "noise"), [(0, 1.0), (1, 6.0)])
def test_a_task_is_scored_as_senteval_scores_it(seed: int, noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    task, features = graded(seed, noise)
    passes: list[None] = []
    one_pass = relatedness._pass
    monkeypatch.setattr(relatedness, "_pass", lambda *inputs: passes.append(one_pass(*inputs)))
    found = score_relatedness(task, features)
    predictions, dev_pearson, epochs = Slow(6).run(task, features)
    gold = np.array([grade for *_, grade in task.test])
    ranks = [np.array([(v < row).sum() + ((v == row).sum() + 1) / 2 for v in row]) for row in (-predictions, -gold)]
    assert len(passes) == epochs < 1000
    assert found.dev_pearson == pytest.approx(100 * dev_pearson, abs=0.01)
    assert found.pearson == pytest.approx(100 * np.corrcoef(predictions, gold)[0, 1], abs=0.01)
    assert found.spearman == pytest.approx(100 * np.corrcoef(ranks[0], ranks[1])[0, 1], abs=0.1)
    assert found.mse == pytest.approx(np.mean((predictions - gold) ** 2), abs=1e-3)
    assert found.n == 70


def test_training_ends_though_it_never_tires(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[None] = []
    one_pass = relatedness._pass
    monkeypatch.setattr(relatedness, "_pass", lambda *inputs: passes.append(one_pass(*inputs)))
    monkeypatch.setattr(relatedness, "_TENACITY", 1000)
    monkeypatch.setattr(relatedness, "_MAX_EPOCHS", 200)
    score_relatedness(*graded(0))
    assert len(passes) == 250


@pytest.mark.parametrize("grade", [0.0, 0.4, 1.0, 2.25, 3.999, 4.5, 5.0])
def test_a_grade_is_shared_between_its_neighbours(grade: float) -> None:
    (shares,) = target_shares(np.array([grade])).tolist()
    assert shares == pytest.approx(slow_shares(grade), abs=1e-6)
    assert sum(share * step for step, share in enumerate(shares, 1)) == pytest.approx(grade, abs=1e-5)


def test_grades_that_features_tell_are_learnt_and_noise_is_not() -> None:
    task, features = graded(3, noise=0.1)
    found = score_relatedness(task, features)
    assert found.pearson > 97
    assert found.spearman > 97
    blind = score_relatedness(task, [torch.randn_like(rows) for rows in features])
    assert abs(blind.pearson) < 45


def test_the_same_features_give_the_same_bits_whatever_the_state() -> None:
    task, features = graded(4)
    before = score_relatedness(task, features)
    torch.manual_seed(7)
    np.random.seed(7)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            assert score_relatedness(task, features) == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_test_grades_choose_nothing() -> None:
    task, features = graded(5)
    turned = replace(task, test=tuple((a, b, 5 - grade) for a, b, grade in task.test))
    one, other = score_relatedness(task, features), score_relatedness(turned, features)
    assert one.dev_pearson == other.dev_pearson
    assert one.pearson == pytest.approx(-other.pearson)


@pytest.mark.parametrize(("split", "name"), [(1, "dev"), (2, "test")])
def test_predictions_that_do_not_differ_have_no_score(split: int, name: str) -> None:
    task, features = graded(6)
    features[split] = torch.ones_like(features[split])
    with pytest.raises(DivergenceError, match=f"all {name} pairs are given the same grade"):
        score_relatedness(task, features)


def test_an_encoder_is_scored_by_its_own_features(tiny_encoder: Encoder) -> None:
    words = ["the cat", "a dog", "the moon", "a river", "old bread", "new song"]
    random = np.random.default_rng(0)

    def pairs(n: int) -> GradedPairs:
        drawn = random.integers(0, 6, (n, 2))
        return tuple((words[a], words[b], 5.0 if a == b else 1.0) for a, b in drawn)

    task = RelatednessTask("twins", pairs(120), pairs(40), pairs(40))
    tiny_encoder.train()
    (score,) = evaluate_relatedness(tiny_encoder, [task], batch_size=8, max_length=16).values()
    assert score.pearson > 90
    assert tiny_encoder.training


@pytest.mark.slow
@pytest.mark.data
def test_minilm_predicts_grades(real_data: Path) -> None:
    """No published number: what SentEval's own procedure gives for these features (Slow) is the reference."""
    from otfkd.data.relatedness import load_relatedness
    from otfkd.evaluation.encode import encode
    from otfkd.evaluation.transfer import combine
    from otfkd.models.registry import find_model, load_encoder

    encoder = load_encoder(find_model("minilm"), "mean")
    task = load_relatedness(real_data / "senteval" / "downstream")[1]
    columns = [[[pair[side] for pair in split] for side in (0, 1)] for split in (task.train, task.dev, task.test)]
    features = [
        combine([encode(encoder, list(map(str, column)), batch_size=128, max_length=512) for column in split])
        for split in columns
    ]
    found = score_relatedness(task, features)
    predictions, dev_pearson, _ = Slow(features[0].shape[1]).run(task, features)
    gold = np.array([grade for *_, grade in task.test])
    assert found.dev_pearson == pytest.approx(100 * dev_pearson, abs=0.1)
    assert found.pearson == pytest.approx(100 * np.corrcoef(predictions, gold)[0, 1], abs=0.1)
