"""Channel groups: units with the same members, pruned by one ratio."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.groups.channel_ids import Units, propagate
from autoprune.groups.channels import LayerChannels
from autoprune.network.layers import PRODUCERS, Constant, Slice
from autoprune.network.network import Network

Role = Literal["output", "input", "affine", "slice"]


@dataclass(frozen=True, slots=True)
class Member:
    """One side of one layer that a group cuts: `channels_per_unit` of its channels go with each unit."""

    layer: str
    role: Role
    channels_per_unit: int


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that share their members: one decision variable, *how many of its units are kept*.

    Attributes:
        name: The first layer that produces the channels; a suffix tells several groups of one layer apart.
        units: Number of every unit, ``(n_units,)``, in channel order; ``len(group)`` is n_units.
        members: Every layer side that loses channels when a unit is removed.
        frozen: Why no channel of the group can be removed; None when the group can be pruned.
        residual: Whether an addition ties the channels of several layers (a residual stream).

    """

    name: str
    units: tuple[int, ...]
    members: tuple[Member, ...]
    frozen: str | None
    residual: bool

    def __len__(self) -> int:
        return len(self.units)

    @property
    def producers(self) -> tuple[str, ...]:
        """Names of the layers whose outputs the group cuts."""
        return tuple(member.layer for member in self.members if member.role == "output")

    @property
    def consumers(self) -> tuple[str, ...]:
        """Names of the layers whose inputs the group cuts."""
        return tuple(member.layer for member in self.members if member.role == "input")


@dataclass(frozen=True, slots=True)
class ChannelGroups:
    """All groups of a network, in execution order of their first producers.

    Attributes:
        groups: Every group, frozen ones included.
        layers: Per layer, the unit of every position of its inputs and its output: what surgery cuts by.
        n_units: Number of units of the network.

    """

    groups: tuple[ChannelGroup, ...]
    layers: Mapping[str, LayerChannels]
    n_units: int

    def prunable(self, *, include_residual: bool = False) -> tuple[ChannelGroup, ...]:
        """Return the groups that can be pruned: more than one unit, not frozen; residual streams only on request."""
        return tuple(
            group
            for group in self.groups
            if group.frozen is None and len(group) > 1 and (include_residual or not group.residual)
        )


def find_groups(network: Network) -> ChannelGroups:
    """Find all channel groups of `network` (no data, no gradient; milliseconds to tenths of a second)."""
    units = propagate(network)
    sides = list(_sides(network, units))
    members_of_unit: dict[int, list[Member]] = defaultdict(list)
    order: dict[int, None] = {}
    for layer, role, ids in sides:
        for number, count in Counter(ids.tolist()).items():
            members_of_unit[number].append(Member(layer, role, count))
            if role == "output":
                order.setdefault(number)
    alike: dict[tuple[tuple[Member, ...], str | None], list[int]] = defaultdict(list)
    for number in order:
        reason = units.frozen.get(number)
        alike[tuple(members_of_unit[number]), reason].append(number)
    names: Counter[str] = Counter()
    groups = []
    for (members, reason), numbers in alike.items():
        first = next(member.layer for member in members if member.role == "output")
        names[first] += 1
        name = first if names[first] == 1 else f"{first}#{names[first]}"
        alone = "its channels can only be removed all together" if len(numbers) == 1 else None
        residual = not units.residual.isdisjoint(numbers)
        groups.append(ChannelGroup(name, tuple(numbers), members, reason or alone, residual))
    return ChannelGroups(tuple(groups), units.layers, units.count)


def _sides(network: Network, units: Units) -> "list[tuple[str, Role, NDArray[np.int64]]]":
    """List every layer side with weights: (layer, role, unit of each channel), in execution order.

    Depthwise convolutions count as outputs only: their inputs are the same units. Batch norms, slopes and constants,
    which have one value per channel, are "affine". Channels that a slice selects are groups of their own, so that no
    slice ever ends up empty.
    """
    sides: list[tuple[str, Role, NDArray[np.int64]]] = []
    for node, layer in network.nodes():
        name = str(node.target)
        channels = units.layers[name]
        if isinstance(layer, PRODUCERS):
            source = channels.inputs[0]
            if source is not None and not is_depthwise(layer):
                sides.append((name, "input", source.ids))
            if channels.output is not None:
                sides.append((name, "output", channels.output.ids))
        elif isinstance(layer, nn.BatchNorm2d | nn.PReLU | Constant) and channels.output is not None:
            sides.append((name, "affine", channels.output.ids))
        elif isinstance(layer, Slice) and channels.output is not None and channels.output.dim == layer.dim:
            sides.append((name, "slice", channels.output.ids))
    return sides


def is_depthwise(layer: nn.Module) -> bool:
    """Tell whether each group of the convolution sees exactly one input channel."""
    return isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.groups == layer.in_channels > 1
