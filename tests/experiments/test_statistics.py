"""What statistics promise is simulated: intervals hold the truth, tests find nothing where nothing is, power is as said."""

import numpy as np
import pytest
from scipy import stats

from experiments.statistics import BOOTSTRAP_FROM, detectable, holm, mean, paired, resampled

TABLES = 2000


def draws(*shape, seed: int = 0):
    return np.random.default_rng(seed).normal(size=shape)


def test_intervals_at_5_seeds_hold_the_truth_in_95_percent_of_tables():
    """Of means, and of paired differences that share what the seed brings."""
    values, common = 3 + 0.5 * draws(TABLES, 5), draws(TABLES, 5, seed=1)
    covered = np.mean([low <= 3 <= high for _, low, high in map(mean, values)])
    assert 0.93 <= covered <= 0.97
    other = 2 + common + 0.2 * draws(TABLES, 5, seed=2)
    tests = [paired(a, b) for a, b in zip(common + 0.3 * draws(TABLES, 5, seed=3), other, strict=True)]
    assert 0.93 <= np.mean([t.low <= -2 <= t.high for t in tests]) <= 0.97


def test_identical_cells_are_told_apart_in_at_most_5_percent_of_tables():
    """Four cells against one baseline, all from the same distribution: any p below 0.05 in the table is a false finding."""
    found = 0
    for common, table in zip(draws(TABLES, 5), draws(TABLES, 5, 5, seed=1), strict=True):
        cells = common + 0.5 * table
        found += min(holm([paired(cell, cells[0]).p for cell in cells[1:]])) < 0.05
    assert found / TABLES <= 0.05
    assert found / TABLES > 0.01, "a test that never finds anything would pass too"


def test_the_detectable_difference_is_found_four_times_in_five():
    n, sd = 5, 0.7
    pilot = [sd * draws(2000, seed=4)]
    exact = detectable([row[:n] for row in (np.array([-1, -1, 0, 1, 1]) * sd / np.std([-1, -1, 0, 1, 1], ddof=1),)])
    found = np.mean([paired(exact + row, np.zeros(n)).p < 0.05 for row in sd * draws(4000, n, seed=5)])
    assert found == pytest.approx(0.8, abs=0.03)
    assert detectable(pilot) < detectable([pilot[0][:20]]) < detectable([pilot[0][:5]])
    assert detectable([pilot[0][:20]] * 7) > detectable([pilot[0][:20]])


def test_a_mean_is_students_below_20_seeds_and_bootstrapped_from_there_on():
    few = draws(BOOTSTRAP_FROM - 1)
    assert mean(few)[1:] == pytest.approx(stats.t.interval(0.95, len(few) - 1, few.mean(), stats.sem(few)))
    many = np.exp(draws(BOOTSTRAP_FROM))
    found = mean(many)
    assert found.high - found.value > 1.2 * (found.value - found.low), "skewed data have a skewed interval"
    assert found == mean(many)


def test_paired_is_scipys():
    a, b = draws(2, 7)
    expected = stats.ttest_rel(a, b)
    found = paired(a, b)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_too_little_says_nothing_and_no_spread_is_no_test():
    assert np.isnan(mean([1.0])[1:]).all()
    assert np.isnan(mean([])).all()
    assert mean([0.1] * 3) == (0.1, 0.1, 0.1), "whose standard deviation is not 0 in floating point"
    assert mean([0.1] * 20) == (0.1, 0.1, 0.1)
    assert np.isnan(paired([1.0], [2.0])[1:]).all()
    assert paired([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0, 1)
    assert np.isnan(paired([2.0, 3.0], [1.0, 2.0]).p)
    assert np.isnan(detectable([[1.0], []]))
    assert detectable([[0.0, 0.0, 0.0]]) == 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    found = holm([0.01, np.nan, 0.02])
    assert found[::2] == pytest.approx([0.02, 0.02])
    assert np.isnan(found[1])
    assert holm([]) == []


def test_overlapping_splits_are_less_sure_by_the_correction():
    """By hand: ten splits, one ninth; 1/n becomes 1/n + 1/9."""
    a, b = draws(10), np.zeros(10)
    t = a.mean() / np.sqrt((1 / 10 + 1 / 9) * a.var(ddof=1))
    found = resampled(a, b, 1 / 9)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 9))
    plain = paired(a, b)
    assert (found.high - found.low) / (plain.high - plain.low) == pytest.approx(np.sqrt(1 + 10 / 9))
    assert np.ptp(mean(a, 1 / 9)[1:]) / np.ptp(mean(a)[1:]) == pytest.approx(np.sqrt(1 + 10 / 9))
    assert detectable([a], 1 / 9) / detectable([a]) == pytest.approx(np.sqrt(1 + 10 / 9))
    with pytest.raises(ValueError, match="test_share is 0"):
        resampled(a, b, 0)


def test_the_correction_holds_its_level_where_splits_overlap():
    """Ten folds of two methods that are equally good, whose differences are correlated by test / (train + test), as it assumes."""
    shared, own = draws(TABLES, 1), draws(TABLES, 10, seed=1)
    differences = np.sqrt(0.1) * shared + np.sqrt(0.9) * own
    found = np.mean([resampled(d, np.zeros(10), 1 / 9).p < 0.05 for d in differences])
    plain = np.mean([paired(d, np.zeros(10)).p < 0.05 for d in differences])
    assert 0.035 <= found <= 0.065
    assert plain > 0.1
