"""Channel counts of one side of many layers, as a linear function of how many units each group keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.groups.channel_group import ChannelGroup
from autoprune.groups.channels import Channels

Counts = NDArray[np.int64]

#: What enters or leaves a layer: its channels and how many there are; None where they never change.
SidePart = tuple[Channels | None, int]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Channel counts of one side of all layers: ``offset + kept @ per_unit``.

    Attributes:
        per_unit: Channels of each layer that go with one unit of each group, ``(n_groups, n_layers)``.
        offset: Channels that no group owns, ``(n_layers,)``.

    """

    per_unit: Counts
    offset: Counts

    def at(self, kept: Counts) -> Counts:
        """Return the counts for kept units, ``(..., n_groups)`` to ``(..., n_layers)``."""
        return self.offset + kept @ self.per_unit

    @classmethod
    def of(cls, parts: Sequence[SidePart], groups: Sequence[ChannelGroup], n_units: int) -> "Side":
        """Make the side of layers with these `parts`; channels of groups that are not in `groups` stay.

        `n_units` is that of the network, :attr:`autoprune.groups.channel_group.ChannelGroups.n_units`.
        """
        group_of = np.full(n_units, -1, dtype=np.int64)
        for index, group in enumerate(groups):
            group_of[list(group.units)] = index
        per_unit = np.zeros((len(groups), len(parts)), dtype=np.int64)
        offset = np.zeros(len(parts), dtype=np.int64)
        for column, (channels, size) in enumerate(parts):
            owners = group_of[channels.ids] if channels is not None else np.full(size, -1)
            offset[column] = int((owners < 0).sum())
            for index, count in zip(*np.unique(owners[owners >= 0], return_counts=True), strict=True):
                per_unit[index, column] = count // len(groups[index])
        return cls(per_unit, offset)
