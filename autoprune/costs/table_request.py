"""Which widths of which units a latency table must hold, so that it can price every aligned plan of a network."""

from collections.abc import Sequence

import numpy as np

from autoprune.costs.fused_units import FusedUnit
from autoprune.costs.sides import Counts, Side, SidePart
from autoprune.costs.widths import MAX_RATIO, allowed_widths
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.latency_tables.table import ALIGNMENT
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.width_grid import WidthGrid, merged_grids


def table_request(
    units: Sequence[FusedUnit],
    all_groups: ChannelGroups,
    *,
    max_ratio: float = MAX_RATIO,
    include_residual: bool = True,
) -> tuple[WidthGrid, ...]:
    """Return the grids of widths that the plans of a network can reach.

    Of a side that one group owns these are the multiples of :data:`ALIGNMENT` units from the fewest that `max_ratio`
    leaves, and the whole group; of a side that several groups own, every multiple of :data:`ALIGNMENT` channels
    between the narrowest and the widest. Units of one shape share one grid, with the widths of all.
    """
    groups = all_groups.prunable(include_residual=include_residual)
    return merged_grids(
        [
            WidthGrid(
                each.unit.shape,
                _reachable(each.into, groups, all_groups.n_units, max_ratio, each.unit.groups),
                _reachable(each.out, groups, all_groups.n_units, max_ratio, each.unit.groups),
            )
            for each in units
        ]
    )


def pruned_units(
    units: Sequence[FusedUnit], groups: Sequence[ChannelGroup], n_units: int, kept: Counts
) -> tuple[Unit, ...]:
    """Return the units of a pruned network, in execution order.

    Args:
        units: Of the unpruned network.
        groups: Decision groups; others are kept whole.
        n_units: Units of the network, :attr:`autoprune.groups.channel_group.ChannelGroups.n_units`.
        kept: Units that each group keeps, ``(n_groups,)``.

    """
    into, out = (
        Side.of(parts, groups, n_units).at(kept).tolist()
        for parts in ([each.into for each in units], [each.out for each in units])
    )
    return tuple(each.unit.with_channels(c_in, c_out) for each, c_in, c_out in zip(units, into, out, strict=True))


def _reachable(
    part: SidePart, groups: Sequence[ChannelGroup], n_units: int, max_ratio: float, divisor: int
) -> tuple[int, ...]:
    """Return the channel counts of one side of a unit, rising; all are multiples of `divisor`."""
    side = Side.of([part], groups, n_units)
    offset, per_unit = int(side.offset[0]), side.per_unit[:, 0]
    owners = np.flatnonzero(per_unit).tolist()
    if not owners:
        return (part[1],)
    choices = [int(per_unit[owner]) * allowed_widths(len(groups[owner]), ALIGNMENT, max_ratio) for owner in owners]
    if len(owners) == 1:
        widths = (offset + choices[0]).tolist()
    else:
        fewest = offset + sum(int(choice[0]) for choice in choices)
        widths = [fewest, *range(-(-fewest // ALIGNMENT) * ALIGNMENT, part[1], ALIGNMENT), part[1]]
    return tuple(sorted({width for width in widths if width % divisor == 0}))
