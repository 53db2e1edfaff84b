"""The channel orders of all decision groups, by data-free criteria or by OBS, with the errors of every width."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import SearchError, UnknownNameError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.network import Network
from autoprune.pruning.criteria import CRITERIA, ranking, score_units
from autoprune.reconstruction.channel_order import ChannelOrder, channel_order
from autoprune.reconstruction.gram import GramStatistics

#: The criterion that orders channels by the error they leave after reconstruction; it needs Gram statistics.
OBS = "obs"

#: All criteria by name.
CRITERION_NAMES = (OBS, *CRITERIA)


def check_criterion(name: str) -> None:
    """Make sure that `name` is a criterion.

    Raises:
        UnknownNameError: It is not.

    """
    if name not in CRITERION_NAMES:
        raise UnknownNameError("criterion", name, CRITERION_NAMES)


def magnitude_orders(
    network: Network, groups: ChannelGroups, chosen: Sequence[ChannelGroup], criterion: str
) -> tuple[tuple[int, ...], ...]:
    """Return, per group, its unit indices from most to least important by a data-free criterion.

    Raises:
        UnknownNameError: No such criterion.
        NumericalError: A score is not finite.

    """
    scores = score_units(network, groups, criterion)
    return tuple(ranking(group, scores) for group in chosen)


def measured_orders(
    network: Network,
    groups: ChannelGroups,
    chosen: Sequence[ChannelGroup],
    criterion: str,
    statistics: GramStatistics | None,
) -> tuple[ChannelOrder, ...]:
    """Return, per group, the order of a criterion and the reconstruction error of every width.

    A consumer that was not measured adds the share of the group's squared weights that goes. A group without a measured
    consumer keeps the order of the criterion (L2 for OBS).

    Raises:
        SearchError: OBS without statistics.
        NumericalError: See :func:`autoprune.reconstruction.channel_order.channel_order`.

    """
    if statistics is None:
        raise SearchError(f"criterion {OBS!r} and reconstruction errors need Gram statistics; collect them first")
    fallback = magnitude_orders(network, groups, chosen, "l2" if criterion == OBS else criterion)
    squares = score_units(network, groups, "l2") ** 2
    orders = []
    for group, order in zip(chosen, fallback, strict=True):
        measured = channel_order(network, groups, group, statistics, order=None if criterion == OBS else order)
        unmeasured = len(set(group.consumers) - set(statistics.grams))
        found = measured.order if measured else order
        errors = max(unmeasured, int(measured is None)) * _shares_gone(found, squares[list(group.units)])
        orders.append(ChannelOrder(found, errors + (measured.errors if measured else 0.0)))
    return tuple(orders)


def _shares_gone(order: tuple[int, ...], squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the group's squared weights that goes, by kept count, ``(n_units + 1,)``."""
    shares = squares[list(order)] / max(float(squares.sum()), 1e-30)
    kept = np.concatenate([[0.0], np.cumsum(shares)])
    return np.asarray(np.maximum(kept[-1] - kept, 0.0))
