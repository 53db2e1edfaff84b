"""From single weights to channels: what a unit's members add up to."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, is_depthwise
from autoprune.groups.channels import Channels
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network

#: Scores of all units of a network, ``(n_units,)``; higher ones stay.
Scores = NDArray[np.float64]

#: A value for every weight, by layer, each of the weight's shape.
WeightValues = Mapping[str, Tensor]


def weights_of(network: Network) -> dict[str, Tensor]:
    """Return the weights of all convolutions and linear layers, float64 on the CPU, by layer in execution order."""
    return {name: layer.weight.detach().double().cpu() for name, layer in producers(network)}


def producers(network: Network) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d | nn.Linear]]:
    """Yield all convolutions and linear layers by name, in execution order."""
    for name, layer in network.layers().items():
        if isinstance(layer, PRODUCERS):
            yield name, layer


def sum_members(network: Network, groups: ChannelGroups, values: WeightValues) -> Scores:
    """Sum `values` over all weights that a unit removes, those that make it and those that read it, ``(n_units,)``."""
    made, read = sum_sides(network, groups, values)
    return made + read


def sum_sides(network: Network, groups: ChannelGroups, values: WeightValues) -> tuple[Scores, Scores]:
    """Sum `values` over the weights that make every unit, and over those that read it, each ``(n_units,)``.

    The weights of a depthwise convolution make the unit.
    """
    made, read = np.zeros(groups.n_units), np.zeros(groups.n_units)
    for name, layer in producers(network):
        channels = groups.layers[name]
        into, out = _per_channel(layer, values[name])
        add_up(made, channels.output, out)
        if not is_depthwise(layer):
            add_up(read, channels.inputs[0], into)
    return made, read


def add_up(scores: Scores, channels: Channels | None, values: Scores) -> None:
    """Add a value per channel, ``(n_channels,)``, to the units of the channels, in place."""
    if channels is not None:
        np.add.at(scores, channels.ids, values)


def filters(network: Network, groups: ChannelGroups, group: ChannelGroup) -> Tensor:
    """Return the weights that make every unit of a group, one row per unit, ``(n_units, n_weights)`` float64."""
    index_of = {unit: index for index, unit in enumerate(group.units)}
    layers, parts = network.layers(), []
    for name in dict.fromkeys(group.producers):
        channels = groups.layers[name].output
        assert channels is not None, "a producer has output channels"
        positions: list[list[int]] = [[] for _ in group.units]
        for position, unit in enumerate(channels.ids.tolist()):
            if unit in index_of:
                positions[index_of[unit]].append(position)
        parts.append(_rows(layers[name])[torch.tensor(positions)].flatten(1))
    return torch.cat(parts, dim=1)


def _rows(layer: nn.Module) -> Tensor:
    """Return a layer's weights by output channel, ``(out, n_weights)`` float64."""
    assert isinstance(layer, PRODUCERS)
    weight = layer.weight.detach().double().cpu()
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        blocks = weight.reshape(layer.groups, -1, *weight.shape[1:])
        weight = blocks.transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def _per_channel(layer: nn.Module, values: Tensor) -> tuple[Scores, Scores]:
    """Sum a layer's weight-shaped `values` per input and per output channel: ``(in,)`` and ``(out,)``."""
    flat = values.flatten(2).sum(2) if values.dim() > 2 else values
    groups = layer.groups if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else 1
    blocks = flat.reshape(groups, flat.shape[0] // groups, flat.shape[1])
    first, second = blocks.sum(2).flatten(), blocks.sum(1).flatten()
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        return first.cpu().numpy(), second.cpu().numpy()
    return second.cpu().numpy(), first.cpu().numpy()
