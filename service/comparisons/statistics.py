"""What a few seeds, and one set of images, show about two policies: intervals and paired tests, all of them scipy's.

Seeds vary the search alone: an interval over seeds says how much luck the policy had on these images, not how it would
do on others. What the images show is a question of its own, which McNemar's test answers for two given networks.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

#: Of all intervals.
CONFIDENCE = 0.95

#: Differing pairs below which Wilcoxon's test cannot reach 5%: with five the smallest p is 0.0625.
WILCOXON_PAIRS = 6

#: Scores that differ by no more are the same: far less than one image.
_SAME = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its interval.

    Attributes:
        mean: Of all values.
        half: Half the width of Student's 95% interval of the mean; None for a single value, which shows no spread.
        n: Number of values.

    """

    mean: float
    half: float | None
    n: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half is None else self.mean + self.half


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of at least one value with Student's 95% interval; of width 0 where all values are the same."""
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Interval(mean, None, n)
    if _all_same(values):
        return Interval(mean, 0.0, n)
    return Interval(mean, float(stats.sem(values) * stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)), n)


def paired_t(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired t-test; None for fewer than two pairs, or where all differ alike."""
    if len(differences) < 2 or _all_same(differences):
        return None
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Return the two-sided p of Wilcoxon's signed-rank test; None for fewer differing pairs than six."""
    differing = [each for each in differences if abs(each) > _SAME]
    if len(differing) < WILCOXON_PAIRS:
        return None
    return float(stats.wilcoxon(differing).pvalue)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Return McNemar's exact test of two networks on the same images, ``(n,)`` each: who was right where.

    How many images only the first got right, how many only the second, and the two-sided p of so uneven a split.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    either = only_first + only_second
    p = 1.0 if either == 0 else float(stats.binomtest(only_first, either).pvalue)
    return only_first, only_second, p


def _all_same(values: Sequence[float]) -> bool:
    """Tell whether the values differ by rounding at most."""
    return math.isclose(min(values), max(values), rel_tol=0.0, abs_tol=_SAME)
