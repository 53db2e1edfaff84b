"""The channel orders of all decision groups, by the scores of a criterion or by OBS, with the errors of every width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.criteria.catalog import OBS
from autoprune.criteria.channels import comparable, ranking, score_units
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.criteria.data_free import l2_norms
from autoprune.criteria.members import Scores
from autoprune.errors import SearchError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.network import Network
from autoprune.reconstruction.channel_order import ChannelOrder, channel_order
from autoprune.reconstruction.gram import GramStatistics


@dataclass(frozen=True, slots=True, eq=False)
class RankedGroup:
    """How a criterion ranks the units of a group.

    Attributes:
        order: Unit indices from most to least important, ``(n_units,)``.
        scores: Of the units in that order, never rising, of one scale over all groups, ``(n_units,)``: the scores of
            the criterion (divided by their root mean square over the group where they do not compare as they are), or
            what each unit adds to the reconstruction error when it goes (OBS).
        errors: Reconstruction error by kept count, ``(n_units + 1,)``; None without statistics.

    """

    order: tuple[int, ...]
    scores: Scores
    errors: Scores | None


def ranked_groups(
    network: Network,
    groups: ChannelGroups,
    chosen: Sequence[ChannelGroup],
    criterion: str,
    statistics: GramStatistics | None = None,
    data: CriterionData = NO_DATA,
) -> tuple[RankedGroup, ...]:
    """Return how a criterion ranks the units of each chosen group; with statistics, the error of every width too.

    Raises:
        SearchError: OBS without statistics.
        NumericalError: See :func:`autoprune.reconstruction.channel_order.channel_order`.
        AutopruneError: See :func:`autoprune.criteria.channels.score_units`.

    """
    if criterion == OBS:
        orders = measured_orders(network, groups, chosen, statistics)
        return tuple(RankedGroup(each.order, _marginal(each.errors), each.errors) for each in orders)
    scores = score_units(network, groups, criterion, data, chosen=chosen)
    ranked = tuple(ranking(group, scores) for group in chosen)
    errors: list[Scores | None] = [None] * len(chosen)
    if statistics is not None:
        errors = [each.errors for each in measured_orders(network, groups, chosen, statistics, ranked)]
    return tuple(
        RankedGroup(order, comparable(criterion, scores[list(group.units)][list(order)]), own)
        for group, order, own in zip(chosen, ranked, errors, strict=True)
    )


def measured_orders(
    network: Network,
    groups: ChannelGroups,
    chosen: Sequence[ChannelGroup],
    statistics: GramStatistics | None,
    orders: Sequence[tuple[int, ...]] | None = None,
) -> tuple[ChannelOrder, ...]:
    """Return, per group, the OBS order, or the one given, and the reconstruction error of every width.

    A consumer that was not measured adds the share of the group's squared weights that goes. A group without a measured
    consumer keeps the order that is given (that of L2 for OBS).

    Raises:
        SearchError: No statistics.
        NumericalError: See :func:`autoprune.reconstruction.channel_order.channel_order`.

    """
    if statistics is None:
        raise SearchError(f"criterion {OBS!r} and reconstruction errors need Gram statistics; collect them first")
    norms = l2_norms(network, groups, NO_DATA)
    found = []
    for index, group in enumerate(chosen):
        given = None if orders is None else orders[index]
        measured = channel_order(network, groups, group, statistics, order=given)
        order = measured.order if measured else given or ranking(group, norms)
        unmeasured = len(set(group.consumers) - set(statistics.grams))
        errors = max(unmeasured, int(measured is None)) * _shares_gone(order, norms[list(group.units)] ** 2)
        found.append(ChannelOrder(order, errors + (measured.errors if measured else 0.0)))
    return tuple(found)


def _marginal(errors: Scores) -> Scores:
    """Return what each unit adds to the error when it goes, most important first; never less than one that went before.

    ``(n_units + 1,)`` in, ``(n_units,)`` out.
    """
    return np.asarray(np.maximum.accumulate((errors[:-1] - errors[1:])[::-1])[::-1])


def _shares_gone(order: tuple[int, ...], squares: Scores) -> Scores:
    """Return the share of the group's squared weights that goes, by kept count, ``(n_units + 1,)``."""
    shares = squares[list(order)] / max(float(squares.sum()), 1e-30)
    kept = np.concatenate([[0.0], np.cumsum(shares)])
    return np.asarray(np.maximum(kept[-1] - kept, 0.0))
