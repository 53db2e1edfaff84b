"""Lines from sums of units to whole networks, and their errors on networks they were not fitted to."""

import numpy as np
import pytest

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.calibration import fit_calibration, fit_line

SUMS = np.array([900.0, 4000.0, 1500.0, 2500.0, 3300.0, 2000.0])


def test_a_line_is_found_and_has_no_error() -> None:
    found = fit_calibration(SUMS, 1.07 * SUMS + 130)
    assert found.scale == pytest.approx(1.07)
    assert found.offset_us == pytest.approx(130)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.whole_us(1000) == pytest.approx(1200)


def test_the_error_is_of_networks_that_were_not_fitted() -> None:
    noise = np.random.default_rng(0).normal(1, 0.03, 20)
    sums = np.linspace(1000, 4000, 20)
    wholes = (1.1 * sums + 50) * noise
    found = fit_calibration(sums, wholes)
    errors = [abs(predicted / measured - 1) for predicted, measured in found.points]
    assert (found.error, found.worst) == pytest.approx((np.mean(errors), max(errors)))
    assert [measured for _, measured in found.points] == wholes.tolist()
    assert 0.01 < found.error < 0.05


def test_a_network_cannot_vouch_for_itself() -> None:
    wholes = SUMS.copy()
    wholes[1] *= 3  # an outlier at the end of the range bends any line that it is fitted with
    assert fit_calibration(SUMS, wholes).worst > 0.5


def test_units_may_take_longer_one_by_one_than_in_a_row() -> None:
    found = fit_calibration(SUMS, 1.2 * SUMS - 400)
    assert (found.scale, found.offset_us) == pytest.approx((1.2, -400))
    assert found.error == pytest.approx(0, abs=1e-9)


def test_an_offset_never_takes_more_than_half_of_the_smallest_network() -> None:
    scale, offset_us = fit_line(SUMS, 1.2 * SUMS - 600)
    assert offset_us == 0
    assert 0.7 < scale < 1.2


def test_networks_of_one_size_give_a_scale_alone() -> None:
    assert fit_line(np.full(5, 1000.0), np.full(5, 1100.0)) == pytest.approx((1.1, 0))


def test_relative_errors_count_alike_for_small_and_large_networks() -> None:
    sums = np.array([100.0, 100.0, 10000.0, 10000.0])
    scale, offset_us = fit_line(sums, np.array([110.0, 90.0, 11000.0, 9000.0]))
    assert 0.9 < scale < 1.1
    assert offset_us < 10


@pytest.mark.parametrize("sums", [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0, float("nan")], [1.0, 2.0, 3.0, 0.0]])
def test_too_few_networks_and_impossible_times_are_refused(sums: list[float]) -> None:
    with pytest.raises(LatencyTableError, match="a calibration needs"):
        fit_calibration(sums, [1.0, 2.0, 3.0, 4.0][: len(sums)])
