"""The score of pruned networks along their reconstruction errors: anchored, monotone, and as sure as it says."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from autoprune.errors import SearchError
from autoprune.search.score_curve import LEVEL, POWER, ScoreCurve

IMAGES = 500
TOP = 0.9

Floats = NDArray[np.float64]


def truth(errors: Floats, slopes: Floats | float) -> Floats:
    """Scores of networks whose logits fall along lines."""
    return np.asarray(expit(logit(TOP) - slopes * errors))


def trials(n: int, rng: np.random.Generator, low: float = 1.0, high: float = 1.6) -> tuple[Floats, Floats]:
    """Errors and counted scores of networks that differ in their slopes."""
    errors = rng.uniform(low, high, n)
    slopes = rng.normal(0.7, 0.1, n)
    return errors, rng.binomial(IMAGES, truth(errors, slopes)) / IMAGES


def test_intervals_hold_as_often_as_they_say() -> None:
    """New networks of the kind of the trials, over many searches; splits of 60 trials scatter by a few percent."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        errors, scores = trials(60, rng)
        curve = ScoreCurve.fit(errors, scores, top=TOP, images=IMAGES)
        for error, score in zip(*trials(20, rng), strict=True):
            found = curve.at(float(error))
            held.append(found.low <= score <= found.high)
    assert LEVEL - 0.02 < np.mean(held) < LEVEL + 0.05


@pytest.mark.parametrize("error", [0.3, 0.6, 2.0, 3.0])
def test_intervals_hold_at_other_budgets_where_the_line_does(error: float) -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(200):
        curve = ScoreCurve.fit(*trials(60, rng), top=TOP, images=IMAGES)
        found = curve.at(error)
        score = rng.binomial(IMAGES, truth(np.array([error]), rng.normal(0.7, 0.1)))[0] / IMAGES
        held.append(found.low <= score <= found.high)
    assert np.mean(held) > LEVEL - 0.04


@pytest.mark.parametrize(("metric", "top"), [("top1", 0.9), ("top1", 0.993), ("agreement", 1.0), ("top1", 0.12)])
def test_the_curve_starts_at_the_unpruned_network_and_never_rises(metric: str, top: float) -> None:
    rng = np.random.default_rng(2)
    errors = rng.uniform(0.5, 1.5, 40)
    scores = np.clip(top - 0.1 * errors + rng.normal(0, 0.02, 40), 0, 1)
    curve = ScoreCurve.fit(errors, scores, top=top, images=IMAGES, power=POWER[metric])
    found = [curve.at(error) for error in np.linspace(0, 20, 200).tolist()]
    assert found[0].score == pytest.approx(top)
    assert all(after.score <= before.score for before, after in itertools.pairwise(found))
    assert all(0 <= each.low <= each.score <= each.high <= 1 for each in found)
    assert curve.at(1.0).score == pytest.approx(top - 0.1, abs=0.03)


def test_scores_that_rise_with_the_error_give_a_flat_curve() -> None:
    curve = ScoreCurve.fit(np.array([1.0, 2.0, 3.0]), np.array([0.91, 0.92, 0.93]), top=0.9, images=IMAGES)
    assert curve.slope == 0
    assert curve.at(10.0).score == pytest.approx(0.9)
    near, far = curve.at(2.0), curve.at(10.0)
    assert near.high >= 0.93  # what was seen is inside
    assert far.high - far.low > near.high - near.low


def test_beyond_the_trials_it_says_so_and_is_less_sure() -> None:
    curve = ScoreCurve.fit(*trials(60, np.random.default_rng(3)), top=TOP, images=IMAGES)
    widths = [curve.at(error).high - curve.at(error).low for error in (0.1, 1.3, 2.0, 3.0)]
    assert widths == sorted(widths)
    assert [curve.at(error).extrapolated for error in (0.1, 1.3, 2.0)] == [False, False, True]


def test_few_trials_are_less_sure_than_many() -> None:
    errors, scores = trials(60, np.random.default_rng(4))
    many, one = (ScoreCurve.fit(errors[:n], scores[:n], top=TOP, images=IMAGES).at(1.3) for n in (60, 1))
    assert one.high - one.low > many.high - many.low
    with pytest.raises(SearchError, match="at least one trial"):
        ScoreCurve.fit(errors[:0], scores[:0], top=TOP, images=IMAGES)
