"""How the time of a whole network follows from the sum of its units: a line, and how far it is from the truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.table import Calibration

#: Networks that are needed at least: two to fit with and two to judge by.
LEAST_NETWORKS = 4


def fit_line(sum_us: NDArray[np.float64], whole_us: NDArray[np.float64]) -> tuple[float, float]:
    """Fit ``whole = scale * sum + offset`` by least squares of relative errors.

    The offset is what a network takes besides its units, or, below 0, what its units take longer one by one than in a
    row: some microseconds each, as many in all however narrow they are. It is 0 where the fit would take more than half
    of the smallest network away, which no such effect explains.

    Args:
        sum_us: Sums of units, ``(n,)``.
        whole_us: Measured times of the networks, ``(n,)``.

    Returns:
        Scale, and offset in microseconds.

    """
    columns = np.stack([sum_us / whole_us, 1 / whole_us], axis=1)
    ones = np.ones(len(whole_us))
    scale, offset_us = np.linalg.lstsq(columns, ones, rcond=None)[0]
    if scale <= 0 or offset_us < -scale * sum_us.min() / 2 or len(np.unique(sum_us)) < 2:
        ratio = columns[:, 0]
        scale, offset_us = (ratio @ ones) / (ratio @ ratio), 0.0
    return float(scale), float(offset_us)


def fit_calibration(
    sum_us: Sequence[float] | NDArray[np.float64], measured_us: Sequence[float] | NDArray[np.float64]
) -> Calibration:
    """Fit a line and tell its error on networks that it was not fitted to.

    Every second network is predicted by the line of the others, and the other way round; these errors are what the
    calibration states. The line itself is then fitted to all of them.

    Args:
        sum_us: Sum of the units of each network.
        measured_us: Time of the same networks, measured whole.

    Raises:
        LatencyTableError: Fewer than four networks, or a time that is not finite or not above 0.

    """
    sums, wholes = np.array(sum_us, dtype=np.float64), np.array(measured_us, dtype=np.float64)
    if len(sums) != len(wholes) or len(sums) < LEAST_NETWORKS:
        raise LatencyTableError(
            f"a calibration needs at least {LEAST_NETWORKS} networks, predicted and measured; found {len(sums)} and "
            f"{len(wholes)}"
        )
    if not (np.isfinite(sums).all() and np.isfinite(wholes).all() and (sums > 0).all() and (wholes > 0).all()):
        raise LatencyTableError("a calibration needs finite times above 0")
    predicted = np.empty_like(wholes)
    fold = _folds(sums)
    for half in (fold, ~fold):
        scale, offset_us = fit_line(sums[~half], wholes[~half])
        predicted[half] = scale * sums[half] + offset_us
    errors = np.abs(predicted / wholes - 1)
    scale, offset_us = fit_line(sums, wholes)
    points = tuple((float(guess), float(whole)) for guess, whole in zip(predicted, wholes, strict=True))
    return Calibration(scale, offset_us, float(errors.mean()), float(errors.max()), points)


def _folds(sums: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Deal networks out to two halves, alternating by size so that both span the whole range."""
    fold = np.zeros(len(sums), dtype=np.bool_)
    fold[np.argsort(sums, kind="stable")[::2]] = True
    return fold
