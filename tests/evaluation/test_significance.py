"""Intervals and tests against closed forms, published examples, slow oracles and simulation."""

import itertools
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import Generator
from scipy.stats import binom, rankdata, spearmanr

from otfkd.base.errors import UserError
from otfkd.evaluation.significance import (
    Array,
    Verdict,
    adjust,
    bootstrap_pairs,
    holm,
    over_seeds,
    paired_t,
    percentile_interval,
    seeds_needed,
    sign_flip,
    williams,
    williams_spearman,
)


@pytest.fixture
def rng() -> Generator:
    return np.random.default_rng(2024)


def array(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def graded(rng: Generator, *shape: int, noise: float = 2.0) -> tuple[Array, Array]:
    """Grades in steps of a fifth, as people give them, and similarities that follow them with noise."""
    gold = np.round(rng.uniform(0, 5, shape[-1]) * 5) / 5
    return gold, gold + rng.normal(0, noise, shape)


def between(rate: float, trials: int) -> tuple[float, float]:
    """Where all but one in a thousand observed rates lie (two-sided, binomial)."""
    low, high = binom.ppf([0.0005, 0.9995], trials, rate) / trials
    return float(low), float(high)


# Over seeds.


def test_the_t_interval_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1; t of 0.975 with 2 degrees of freedom is 4.302653.
    (low, high), p = paired_t(array(70, 75, 71), array(71, 77, 74))
    half = 4.302653 / math.sqrt(3)
    assert [low, high] == pytest.approx([2 - half, 2 + half], abs=1e-5)
    # The distribution with 2 degrees of freedom is closed: P(|T| > x) = 1 - x / sqrt(x^2 + 2).
    x = 2 * math.sqrt(3)
    assert p == pytest.approx(1 - x / math.sqrt(x * x + 2))


def test_the_sign_says_which_is_better() -> None:
    a, b = array(70, 75, 71), array(71, 77, 74)
    (low, high), p = paired_t(a, b)
    (swapped_low, swapped_high), swapped_p = paired_t(b, a)
    assert [swapped_low, swapped_high, swapped_p] == pytest.approx([-high, -low, p])
    assert low + high > 0


SIMULATIONS = 2000


@pytest.mark.parametrize("n", [3, pytest.param(5, marks=pytest.mark.slow), 10])
def test_the_t_interval_covers_a_known_difference_at_its_rate(rng: Generator, n: int) -> None:
    known = 0.7
    covered = 0
    for _ in range(SIMULATIONS):
        seeds = rng.normal(75, 1.5, n)  # what a seed does to both methods
        (low, high), _p = paired_t(seeds + rng.normal(0, 0.5, n), seeds + known + rng.normal(0, 0.5, n))
        covered += low <= known <= high
    low, high = between(0.95, SIMULATIONS)
    assert low <= covered / SIMULATIONS <= high


@pytest.mark.parametrize("n", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 10))])
def test_equal_methods_are_called_different_in_one_case_of_twenty(rng: Generator, n: int) -> None:
    called = 0
    for _ in range(SIMULATIONS):
        seeds = rng.normal(75, 1.5, n)
        verdict = over_seeds("task", seeds + rng.normal(0, 0.5, n), seeds + rng.normal(0, 0.5, n))
        called += verdict.word == "different"
    low, high = between(0.05, SIMULATIONS)
    assert low <= called / SIMULATIONS <= high


def test_equal_methods_differ_on_any_of_seven_tasks_in_at_most_one_case_of_twenty(rng: Generator) -> None:
    cases, tasks, n = 300, 7, 5
    called = 0
    for _ in range(cases):
        seeds = rng.normal(75, 1.5, n)
        arms = rng.normal(0, 0.5, (2, tasks, n)) + seeds
        verdicts = adjust([over_seeds(str(i), arms[0, i], arms[1, i]) for i in range(tasks)])
        called += any(verdict.word == "different" for verdict in verdicts)
    assert called / cases <= between(0.05, cases)[1]


def test_a_method_is_not_distinguishable_from_itself() -> None:
    scores = array(70.1, 75.2, 71.3)
    verdict = over_seeds("task", scores, scores.copy())
    assert (verdict.interval, verdict.p, verdict.word) == ((0.0, 0.0), 1.0, "not distinguishable")


def test_differences_that_no_seed_changes_are_refused() -> None:
    with pytest.raises(UserError, match=r"0\.1000 for every seed"):
        paired_t(array(70.0, 60.0, 50.0), array(70.1, 60.1, 50.1))


def test_one_seed_has_no_interval() -> None:
    with pytest.raises(UserError, match="one common seed"):
        paired_t(array(70), array(71))


def test_sign_flips_equal_an_enumeration() -> None:
    a, b = array(70, 71, 72, 73, 74, 75, 76), array(71.3, 70.8, 72.9, 73.1, 75.2, 74.6, 77.7)
    differences = b - a
    flips = [float(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=7)]
    extreme = sum(abs(flip) >= abs(differences.sum()) - 1e-9 for flip in flips)
    assert 0 < extreme < len(flips)
    assert sign_flip(a, b) == pytest.approx(extreme / 2**7)


@pytest.mark.parametrize("n", [6, 10, 14])
def test_differences_of_one_sign_have_the_smallest_p_there_is(n: int) -> None:
    assert sign_flip(np.zeros(n), np.arange(1.0, n + 1)) == pytest.approx(2 / 2**n)


def test_many_seeds_are_flipped_at_random_but_the_same_each_time(rng: Generator) -> None:
    a, b = rng.normal(0, 1, 18), rng.normal(0.5, 1, 18)
    p = sign_flip(a, b)
    assert p is not None and p == sign_flip(a, b)
    assert p == pytest.approx(paired_t(a, b)[1], abs=0.03)


def test_below_six_seeds_there_is_no_permutation_p() -> None:
    assert sign_flip(np.zeros(5), np.arange(1.0, 6)) is None
    assert sign_flip(np.zeros(6), np.arange(1.0, 7)) is not None
    assert over_seeds("task", np.zeros(5), array(1, 2, 3, 4, 5)).permutation_p is None


# Over pairs.


def slow_bootstrap(baseline: Array, method: Array, gold: Array, resamples: int, seed: int) -> list[float]:
    """One resample and one seed at a time, by scipy's Spearman."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        rows = rng.integers(len(gold), size=len(gold))
        scores = [
            statistics.fmean(float(spearmanr(own[rows], gold[rows]).statistic) for own in arm)
            for arm in (method, baseline)
        ]
        found.append(100 * (scores[0] - scores[1]))
    return found


def test_the_bootstrap_equals_a_slow_one(rng: Generator) -> None:
    gold, baseline = graded(rng, 3, 40)
    method = np.round(gold + rng.normal(0, 1, (3, 40)))  # similarities may tie too
    fast = bootstrap_pairs(baseline, method, gold, resamples=60, seed=5)
    assert fast == pytest.approx(slow_bootstrap(baseline, method, gold, 60, 5))


def test_the_same_arm_twice_differs_by_exactly_nothing(rng: Generator) -> None:
    gold, similarities = graded(rng, 4, 101)
    differences = bootstrap_pairs(similarities, similarities.copy(), gold)
    assert percentile_interval(differences) == (0.0, 0.0)


def test_all_seeds_see_the_same_pairs(rng: Generator) -> None:
    gold, baseline = graded(rng, 1, 101)
    method = gold + rng.normal(0, 1, (1, 101))
    once = bootstrap_pairs(baseline, method, gold)
    thrice = bootstrap_pairs(baseline.repeat(3, axis=0), method.repeat(3, axis=0), gold)
    assert thrice == pytest.approx(once, abs=1e-9)


def test_the_bootstrap_interval_covers_a_known_difference_at_its_rate(rng: Generator) -> None:
    def score(noise: float) -> float:
        gold, similarities = graded(rng, 400_000, noise=noise)
        return 100 * float(spearmanr(similarities, gold).statistic)

    known, trials, covered = score(1.2) - score(2.0), 150, 0
    for trial in range(trials):
        gold, baseline = graded(rng, 2, 200)
        method = gold + rng.normal(0, 1.2, (2, 200))
        low, high = percentile_interval(bootstrap_pairs(baseline, method, gold, resamples=300, seed=trial))
        covered += low <= known <= high
    assert covered / trials >= between(0.95, trials)[0]


def test_a_percentile_interval_by_hand() -> None:
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))


def test_a_thousand_resamples_of_the_largest_task_take_seconds(rng: Generator) -> None:
    gold, baseline = graded(rng, 5, 4927)
    start = time.process_time()
    assert len(bootstrap_pairs(baseline, gold + rng.normal(0, 1.9, (5, 4927)), gold)) == 1000
    assert time.process_time() - start < 15


def test_resamples_without_a_spearman_are_refused() -> None:
    with pytest.raises(UserError, match="3 pairs has no Spearman"):
        bootstrap_pairs(array(1, 2, 3)[None], array(3, 1, 2)[None], array(1, 2, 3))


def test_arms_of_other_seeds_or_pairs_are_refused() -> None:
    for method in (np.eye(2, 9), np.eye(3, 8)):
        with pytest.raises(UserError, match="not scored on the same"):
            bootstrap_pairs(np.eye(3, 9), method, np.arange(9.0))


# Two checkpoints.


@pytest.mark.parametrize(
    ("baseline", "method", "shared", "n", "statistic", "p"),
    [
        # Howell, Statistical Methods for Psychology (6th ed., p. 262), worked in full there: t 1.36 with 23 degrees.
        (0.72, 0.80, 0.89, 26, 1.361, 0.187),
        # The example of R's bruceR::cor_diff: t(97) = -4.56, p = 1e-05.
        (0.45, 0.20, 0.80, 100, -4.56, 1e-5),
    ],
    ids=["howell", "bruceR"],
)
def test_williams_equals_published_examples(
    baseline: float, method: float, shared: float, n: int, statistic: float, p: float
) -> None:
    found, found_p = williams(baseline, method, shared, n)
    assert found == pytest.approx(statistic, abs=0.005)
    assert found_p == pytest.approx(p, abs=0.005 if p > 1e-3 else 1e-5)


def test_williams_works_on_ranks(rng: Generator) -> None:
    gold, (first, second) = graded(rng, 2, 60)
    correlation = {
        (a, b): float(spearmanr(x, y).statistic)
        for (a, x), (b, y) in itertools.combinations(enumerate([first, second, gold]), 2)
    }
    _, p = williams(correlation[0, 2], correlation[1, 2], correlation[0, 1], 60)
    assert williams_spearman(first, second, gold) == pytest.approx(p)
    assert williams_spearman(np.exp(first), rankdata(second), gold) == pytest.approx(p)


def test_equal_checkpoints_are_called_different_in_one_case_of_twenty(rng: Generator) -> None:
    trials = 1500
    called = 0
    for _ in range(trials):
        gold = rng.normal(size=80)
        shared = gold + rng.normal(0, 0.7, 80)
        p = williams_spearman(shared + rng.normal(0, 0.5, 80), shared + rng.normal(0, 0.5, 80), gold)
        called += p < 0.05
    low, high = between(0.05, trials)
    assert low - 0.01 <= called / trials <= high + 0.01  # ranks of normal variables are nearly normal


def test_a_checkpoint_does_not_differ_from_itself(rng: Generator) -> None:
    gold, similarities = graded(rng, 60)
    assert williams_spearman(similarities, similarities.copy(), gold) == 1.0


def test_williams_needs_pairs_that_differ() -> None:
    with pytest.raises(UserError, match="4 pairs"):
        williams(0.1, 0.2, 0.3, 3)
    with pytest.raises(UserError, match="all pairs are alike"):
        williams_spearman(np.ones(9), np.arange(9.0), np.arange(9.0))


# Many tasks.


def test_holm_by_hand() -> None:
    # In order 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stops_at_one_and_leaves_one_test_alone() -> None:
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_the_verdict_follows_the_adjusted_p() -> None:
    alone = Verdict("one", 70, 71, 3, (0.1, 1.9), 0.04, 0.04)
    assert (alone.difference, alone.word) == (1, "different")
    first, second = adjust([alone, Verdict("two", 70, 71, 3, (0.1, 1.9), 0.03, 0.03)])
    assert [first.adjusted, second.adjusted] == pytest.approx([0.06, 0.06])
    assert first.word == second.word == "not distinguishable"


# How many seeds.


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_equal_those_of_cohens_effect_sizes(effect: float, n: int) -> None:
    # G*Power's answers for a two-sided paired t test, 5 %, power 0.80.
    assert seeds_needed(effect * 1.7, 1.7) == n
    assert seeds_needed(-effect * 1.7, 1.7) == n


def test_seeds_needed_find_the_difference_in_four_cases_of_five(rng: Generator) -> None:
    n = seeds_needed(1.0, 0.9)
    assert n is not None

    def rate(seeds: int) -> float:
        found = [paired_t(np.zeros(seeds), rng.normal(1.0, 0.9, seeds))[1] < 0.05 for _ in range(SIMULATIONS)]
        return statistics.fmean(found)

    assert rate(n) >= between(0.8, SIMULATIONS)[0]
    assert rate(n - 1) <= between(0.8, SIMULATIONS)[1]


def test_huge_and_absent_differences_need_two_and_no_number_of_seeds() -> None:
    assert seeds_needed(1000, 1) == 2
    assert seeds_needed(0, 1) is None


# What is missing.


@pytest.mark.parametrize("missing", [math.nan, math.inf])
@pytest.mark.parametrize(
    "measure",
    [
        lambda bad: paired_t(array(1, 2, 4), bad),
        lambda bad: paired_t(bad, array(1, 2, 4)),
        lambda bad: sign_flip(bad, array(1, 2, 4)),
        lambda bad: bootstrap_pairs(array(1, 2, 4)[None], bad[None], array(1, 2, 4)),
        lambda bad: bootstrap_pairs(array(1, 2, 4)[None], array(1, 2, 4)[None], bad),
        lambda bad: williams_spearman(array(1, 2, 4), array(1, 4, 2), bad),
        lambda bad: williams(float(bad[1]), 0.2, 0.3, 50),
        lambda bad: holm(list(bad)),
        lambda bad: seeds_needed(float(bad[1]), 1.0),
    ],
)
def test_a_missing_score_is_refused(measure: Callable[[Array], object], missing: float) -> None:
    with pytest.raises(UserError, match="missing or not a number"):
        measure(array(0.1, missing, 0.3))


def test_scores_without_a_partner_are_refused() -> None:
    with pytest.raises(UserError, match="3 scores cannot be paired with 1"):
        paired_t(array(1, 2, 4), array(1))
