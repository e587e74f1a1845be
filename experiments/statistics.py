"""What a handful of seeds can say: intervals, paired differences, corrected p values, and what could have been seen at all.

Runs of two cells with the same seed share data order and initialisation, so differences are taken seed by seed. All tests are
two-sided. scipy does the distributions; what is here says which one is asked.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

LEVEL, POWER = 0.95, 0.8
BOOTSTRAP_FROM = 20  # seeds: with fewer, a bootstrap's intervals are too short
RESAMPLES = 9999


class Mean(NamedTuple):
    """A mean and its 95 % interval; nan where too few numbers say nothing."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A mean paired difference, its 95 % interval and the p value of there being none."""

    value: float
    low: float
    high: float
    p: float


def mean(values: Sequence[float], test_share: float | None = None) -> Mean:
    """The mean over seeds with its interval: Student's t below 20 seeds, from there on the BCa bootstrap (Efron 1987).

    Args:
      test_share: as for `resampled`, where seeds are overlapping splits; then t with its correction, however many there are.
    """
    x = np.asarray(values, float)
    if len(x) < 2:
        return Mean(float(x.mean()) if len(x) else math.nan, math.nan, math.nan)
    if not np.ptp(x):
        return Mean(float(x[0]), float(x[0]), float(x[0]))
    if len(x) < BOOTSTRAP_FROM or test_share:
        error = stats.sem(x) * math.sqrt(1 + len(x) * (test_share or 0.0))
        return Mean(float(x.mean()), *_t_interval(x.mean(), error, len(x) - 1))
    draws = stats.bootstrap((x,), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", rng=0)
    return Mean(float(x.mean()), *map(float, draws.confidence_interval))


def paired(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """values − baseline, number by number, by the paired t test.

    Differences that are all alike have no t: p is 1 where they are 0, and nan where they are not.
    """
    return _t_test(np.subtract(values, baseline), variance_factor=1.0)


def resampled(values: Sequence[float], baseline: Sequence[float], test_share: float) -> Difference:
    """values − baseline over splits of the same data, whose training sets overlap: the corrected resampled t test.

    t = d̄ / √((1/n + test/train) · s²), as splits are not independent and 1/n alone is far too sure (Nadeau and Bengio 2003,
    "Inference for the generalization error", section 5; Bouckaert and Frank 2004 for folds).

    Args:
      test_share: test examples divided by training examples of a split; 1/9 for ten folds, more where some
        of the nine are for validation.
    """
    if not test_share > 0:
        raise ValueError(f"test_share is {test_share}; expected test examples divided by training examples")
    differences = np.subtract(values, baseline)
    return _t_test(differences, variance_factor=1 + len(differences) * test_share)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected so that, over all of them, one false finding in twenty tables is what 0.05 means (Holm 1979).

    The k-th smallest of m becomes (m − k + 1) times itself, at least as much as the one before it, at most 1; nan stays and does
    not count.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return corrected.tolist()


def detectable(differences: Sequence[Sequence[float]], test_share: float = 0.0) -> float:
    """The smallest true difference that a table would have found four times out of five.

    By a paired t test with the spread that the differences have together, their commonest number of seeds, and a level of 5 %
    divided by the number of comparisons (Holm's first step). nan where there is nothing to go by, 0 where nothing varies.

    Args:
      differences: paired differences of each comparison. test_share: as for `resampled`, where splits overlap.
    """
    rows = [np.asarray(row, float) for row in differences if len(row) > 1]
    if not rows:
        return math.nan
    freedom = [len(row) - 1 for row in rows]
    spread = math.sqrt(np.average([row.var(ddof=1) for row in rows], weights=freedom))
    n = int(np.bincount([len(row) for row in rows]).argmax())
    if not spread:
        return 0.0
    # t² of a shift δ/σ·√n has a noncentral F distribution.
    critical = stats.f.isf((1 - LEVEL) / len(rows), 1, n - 1)
    missing = lambda squared: stats.ncf.sf(critical, 1, n - 1, squared) - POWER
    high = critical
    while missing(high) < 0:
        high *= 2
    return float(math.sqrt(optimize.brentq(missing, 0, high) * (1 / n + test_share)) * spread)


def _t_test(differences: np.ndarray, variance_factor: float) -> Difference:
    n = len(differences)
    if n < 2:
        return Difference(float(differences.mean()) if n else math.nan, math.nan, math.nan, math.nan)
    value, error = float(differences.mean()), math.sqrt(differences.var(ddof=1) / n * variance_factor)
    if error <= 1e-12 * abs(value) or not error:
        return Difference(value, value, value, math.nan if value else 1.0)
    return Difference(value, *_t_interval(value, error, n - 1), float(2 * stats.t.sf(abs(value) / error, n - 1)))


def _t_interval(value: float, error: float, freedom: int) -> tuple[float, float]:
    reach = stats.t.isf((1 - LEVEL) / 2, freedom) * error
    return float(value - reach), float(value + reach)
