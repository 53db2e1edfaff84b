"""Intervals and paired tests, against scipy's tables and numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from autoprune.service.comparisons.statistics import interval, mcnemar, paired_t, wilcoxon


def test_an_interval_is_the_mean_and_t_times_the_standard_error() -> None:
    found = interval([0.80, 0.82, 0.87])
    deviation = math.sqrt((0.03**2 + 0.01**2 + 0.04**2) / 2)
    assert found.mean == pytest.approx(0.83)
    assert found.half == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom
    low, high = stats.t.interval(0.95, 2, loc=0.83, scale=deviation / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_shows_no_spread_and_equal_ones_show_none() -> None:
    one, same = interval([0.5]), interval([0.1 + 0.2, 0.3, 0.3])
    assert (one.half, one.low, one.high, one.n) == (None, None, None, 1)
    assert (same.half, same.n) == (0.0, 3)


def test_the_paired_t_test_is_that_of_two_samples_in_pairs() -> None:
    first, second = [0.80, 0.82, 0.87], [0.79, 0.80, 0.80]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    assert paired_t(differences) == pytest.approx(stats.ttest_rel(first, second).pvalue)
    # mean 1/30, deviation 0.0321455, t = 1.7960, two degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    assert paired_t(differences) == pytest.approx(1 - 1.7960 / math.sqrt(1.7960**2 + 2), abs=1e-4)
    assert paired_t([0.1]) is paired_t([0.1, 0.1, 0.1]) is paired_t([0.0, 0.0]) is None


def test_wilcoxon_needs_six_pairs_that_differ() -> None:
    differences = [0.01, 0.02, 0.03, 0.04, 0.05]
    assert wilcoxon(differences) is wilcoxon([*differences, 0.0]) is None
    assert wilcoxon([*differences, 0.06]) == pytest.approx(2 / 2**6)  # all of one sign: one of 64, on either side
    assert wilcoxon([*differences, -0.06]) == pytest.approx(stats.wilcoxon([1, 2, 3, 4, 5, -6]).pvalue)


def test_mcnemar_looks_at_the_images_on_which_two_networks_differ() -> None:
    first = np.array([True] * 6 + [False] * 1 + [True] * 50 + [False] * 3)
    second = np.array([False] * 6 + [True] * 1 + [True] * 50 + [False] * 3)
    only_first, only_second, p = mcnemar(first, second)
    assert (only_first, only_second) == (6, 1)
    assert p == pytest.approx(2 * (1 + 7) / 2**7)  # as uneven a split of seven coins, or more so
    assert mcnemar(second, first) == (1, 6, p)
    assert mcnemar(first, first) == (0, 0, 1.0)
