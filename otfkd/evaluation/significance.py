"""Whether two methods differ: intervals and tests over training seeds and over sentence pairs.

Seeds and pairs are crossed, not nested: every seed of every method is scored on the same pairs. Each interval here
lets one of the two vary, and says which. Scores are Spearman x 100, differences are method minus baseline in points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import nct, norm, permutation_test, rankdata, t, ttest_rel

from otfkd.base.errors import UserError

Array = NDArray[np.float64]
Interval = tuple[float, float]

ALPHA = 0.05
RESAMPLES = 1000
# With n seeds the smallest two-sided p is 2 / 2^n, which is above 0.05 up to n = 5.
MIN_PERMUTATION_SEEDS = 6

_EXACT_FLIPS = 2**14
_BATCH = 50
# Scores are decimals of the order of 100: what lies below this between two differences is rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Verdict:
    """Whether a method differs from the baseline on one task.

    Attributes:
        task: its name.
        baseline: mean score over the common seeds.
        method: mean score over the common seeds.
        n: common seeds.
        interval: 95 % for the mean difference over seeds (paired t); None for one seed.
        p: of no difference: paired t, or Williams' test for one seed.
        adjusted: p after Holm's correction over the tests made together.
        permutation_p: of no difference by sign flips over seeds; None for fewer than 6 seeds.
        pairs: 95 % for the mean difference over sentence pairs (bootstrap); None where similarities were not had.
    """

    task: str
    baseline: float
    method: float
    n: int
    interval: Interval | None
    p: float
    adjusted: float
    permutation_p: float | None = None
    pairs: Interval | None = None

    @property
    def difference(self) -> float:
        return self.method - self.baseline

    @property
    def word(self) -> str:
        """What may be claimed at 5 %, after Holm's correction."""
        return "different" if self.adjusted < ALPHA else "not distinguishable"


def over_seeds(task: str, baseline: Array, method: Array) -> Verdict:
    """Judge one task by its scores, (n,) each and matched by seed; n is at least 2.

    Raises:
        UserError: as `paired_t`.
    """
    interval, p = paired_t(baseline, method)
    means = float(baseline.mean()), float(method.mean())
    return Verdict(task, *means, len(method), interval, p, p, sign_flip(baseline, method))


def adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The same verdicts with Holm's correction over all of them."""
    adjusted = holm([verdict.p for verdict in verdicts])
    return [replace(verdict, adjusted=p) for verdict, p in zip(verdicts, adjusted, strict=True)]


def paired_t(baseline: Array, method: Array) -> tuple[Interval, float]:
    """Student's 95 % interval of the mean difference over seeds, and the p of no difference.

    Args:
        baseline: (n,) scores, n at least 2.
        method: (n,) scores of the same seeds.

    Raises:
        UserError: a score is not finite, fewer than two seeds, or differences that are the same for every seed.
    """
    differences = _differences(baseline, method)
    if len(differences) < 2:
        raise UserError("one common seed gives no interval over seeds: train both methods with at least two")
    if alike(baseline, method):
        if abs(differences[0]) < _ROUNDING:
            return (0.0, 0.0), 1.0
        raise UserError(
            f"the difference is {differences[0]:.4f} for every seed, so the seeds tell nothing of its spread: "
            "check that the runs are not copies of one"
        )
    result = ttest_rel(method, baseline)
    low, high = result.confidence_interval(1 - ALPHA)
    return (float(low), float(high)), float(result.pvalue)


def alike(baseline: Array, method: Array) -> bool:
    """Whether (n,) and (n,) scores differ by the same for every seed, which says nothing of the spread."""
    return bool(np.ptp(_differences(baseline, method)) < _ROUNDING)


def sign_flip(baseline: Array, method: Array) -> float | None:
    """Two-sided p of no difference by flipping the signs of the seeds' differences (Fisher 1935, sec. 21).

    Every flip is counted up to 14 seeds, 16,384 random ones above.

    Args:
        baseline: (n,) scores.
        method: (n,) scores of the same seeds.

    Returns:
        None for fewer than 6 seeds, where no p could be below 0.05.

    Raises:
        UserError: a score is not finite.
    """
    differences = _differences(baseline, method)
    if len(differences) < MIN_PERMUTATION_SEEDS:
        return None
    result = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=_EXACT_FLIPS, vectorized=True, rng=0
    )
    return float(result.pvalue)


def bootstrap_pairs(baseline: Array, method: Array, gold: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Differences in Spearman x 100, averaged over seeds, on resampled sentence pairs.

    A resample draws pairs with replacement, the same ones for every seed of both methods (paired bootstrap, Koehn
    2004), so that what the two share on a pair cancels.

    Args:
        baseline: (seeds, pairs) similarities.
        method: (seeds, pairs) similarities of the same seeds and pairs.
        gold: (pairs,) grades.
        resamples: how many.
        seed: of the resampling.

    Returns:
        (resamples,) differences, for `percentile_interval`.

    Raises:
        UserError: a similarity is missing or not finite, or a resample has no Spearman.
    """
    _refuse_missing(baseline, method, gold)
    if not baseline.shape == method.shape == (len(baseline), len(gold)):
        raise UserError("the methods were not scored on the same seeds and pairs: score them again on one suite")
    rng = np.random.default_rng(seed)
    pairs = len(gold)
    found = []
    for start in range(0, resamples, _BATCH):
        drawn = rng.integers(pairs, size=(min(_BATCH, resamples - start), pairs))
        counts = np.stack([np.bincount(row, minlength=pairs) for row in drawn])
        grades = _ranks(gold, counts)
        found.append(_spearmans(method, grades, counts) - _spearmans(baseline, grades, counts))
    differences: Array = np.concatenate(found)
    if not np.isfinite(differences).all():
        raise UserError(f"a resample of {pairs} pairs has no Spearman, all being alike: score more pairs")
    return differences


def percentile_interval(draws: Array) -> Interval:
    """The middle 95 % of bootstrap draws, (resamples,) (Efron & Tibshirani 1993, sec. 13.3)."""
    low, high = np.quantile(draws, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _spearmans(similarities: Array, grades: Array, counts: NDArray[np.int64]) -> Array:
    """Mean over seeds of Spearman x 100 in each resample, (seeds, pairs) to (resamples,)."""
    total = np.zeros(len(counts))
    for own in similarities:
        ranks = _ranks(own, counts)
        shared = (counts * ranks * grades).sum(axis=1)
        with np.errstate(invalid="ignore"):  # 0 / 0 is refused by the caller
            total += shared / np.sqrt((counts * ranks**2).sum(axis=1) * (counts * grades**2).sum(axis=1))
    return 100 * total / len(similarities)


def _ranks(values: Array, counts: NDArray[np.int64]) -> Array:
    """Centred average ranks of values, (pairs,), in resamples that hold each so many times, (resamples, pairs)."""
    # The order never changes, only how often each value counts: sorting once is ten times faster than ranking anew.
    place = rankdata(values, method="dense").astype(np.int64) - 1
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    held = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks: Array = (np.cumsum(held, axis=1) - (held - 1) / 2)[:, place]
    return ranks - (len(values) + 1) / 2


def williams(baseline: float, method: float, between: float, n: int) -> tuple[float, float]:
    """Williams' test of two dependent correlations that share a variable (Williams 1959; T2, Steiger 1980, eq. 7).

    Args:
        baseline: the baseline's correlation with the shared variable.
        method: the method's.
        between: the correlation of the two with each other.
        n: observations.

    Returns:
        T2, positive where the method's is larger, and its two-sided p with n - 3 degrees of freedom.

    Raises:
        UserError: a correlation is not finite, or fewer than 4 observations.
    """
    _refuse_missing(np.array([baseline, method, between]))
    if n < 4:
        raise UserError(f"Williams' test needs 4 pairs, not {n}: score more pairs")
    if baseline == method:
        return 0.0, 1.0
    determinant = 1 - baseline**2 - method**2 - between**2 + 2 * baseline * method * between
    mean = (baseline + method) / 2
    scale = 2 * determinant * (n - 1) / (n - 3) + mean**2 * (1 - between) ** 3
    statistic = (method - baseline) * math.sqrt((n - 1) * (1 + between) / scale)
    return statistic, float(2 * t.sf(abs(statistic), n - 3))


def williams_spearman(baseline: Array, method: Array, gold: Array) -> float:
    """Williams' test between the Spearmans of two checkpoints, which is the test on ranks: its two-sided p.

    Args:
        baseline: (pairs,) similarities.
        method: (pairs,) similarities of the same pairs.
        gold: (pairs,) grades.

    Raises:
        UserError: a similarity is not finite, all are alike, or fewer than 4 pairs.
    """
    _refuse_missing(baseline, method, gold)
    if min(np.ptp(baseline), np.ptp(method), np.ptp(gold)) == 0:
        raise UserError("all pairs are alike, which has no Spearman: check the grades and the models")
    shared = np.corrcoef(rankdata([gold, baseline, method], axis=1))
    return williams(float(shared[0, 1]), float(shared[0, 2]), float(shared[1, 2]), len(gold))[1]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down rule (Holm 1979); they keep their order.

    Raises:
        UserError: a p value is not finite.
    """
    p = np.array(p_values, dtype=np.float64)
    _refuse_missing(p)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return [float(value) for value in adjusted]


def seeds_needed(claim: float, spread: float, *, power: float = 0.8) -> int | None:
    """The fewest seeds with which a two-sided paired t test at 5 % finds a difference (Cohen 1988, ch. 2).

    Args:
        claim: the difference to be found, in points.
        spread: standard deviation of the seeds' differences, in points, above 0.
        power: the wanted probability of finding it.

    Returns:
        Seeds, each trained with both methods; None for a difference of 0, which no number finds.

    Raises:
        UserError: the claim or the spread is not finite.
    """
    _refuse_missing(np.array([claim, spread]))
    if abs(claim) < _ROUNDING:
        return None
    effect = abs(claim) / spread
    # A t test never needs fewer than a test that knows the spread.
    n = max(2, int(((norm.isf(ALPHA / 2) + norm.ppf(power)) / effect) ** 2))
    while _power(effect, n) < power:
        n += 1
    return n


def _power(effect: float, n: int) -> float:
    critical = t.isf(ALPHA / 2, n - 1)
    shift = effect * math.sqrt(n)
    return float(nct.sf(critical, n - 1, shift) + nct.cdf(-critical, n - 1, shift))


def _differences(baseline: Array, method: Array) -> Array:
    _refuse_missing(baseline, method)
    if baseline.shape != method.shape:
        raise UserError(f"{len(baseline)} scores cannot be paired with {len(method)}: give those of the same seeds")
    differences: Array = method - baseline
    return differences


def _refuse_missing(*values: Array) -> None:
    if not all(np.isfinite(array).all() for array in values):
        raise UserError("a score is missing or not a number, and nothing is averaged around it: score that run again")
