"""A network whose channels of one group stand in another order: the same function, every weight elsewhere."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, is_depthwise
from autoprune.groups.channels import Channels
from autoprune.network.layers import Constant
from autoprune.network.network import Network, own_copy


def permuted(network: Network, groups: ChannelGroups, group: ChannelGroup, order: Sequence[int]) -> Network:
    """Return the network in which unit ``i`` of the group is what unit ``order[i]`` was."""
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for name, layer in layers.items():
        channels = groups.layers[name]
        into = _source(channels.inputs[0] if channels.inputs else None, group, order)
        out = _source(channels.output, group, order)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            _move_weights(layer, into, out)
        elif isinstance(layer, nn.BatchNorm2d) or (isinstance(layer, nn.PReLU) and layer.num_parameters > 1):
            for key in ("weight", "bias", "running_mean", "running_var"):
                _move(layer, key, 0, out)
        elif isinstance(layer, Constant) and channels.output is not None:
            _move(layer, "value", channels.output.dim, out)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def _source(channels: Channels | None, group: ChannelGroup, order: Sequence[int]) -> Tensor | None:
    """Return, per position, the position that its values come from."""
    if channels is None:
        return None
    index_of = {unit: index for index, unit in enumerate(group.units)}
    places: dict[tuple[int, int], int] = {}
    seen: Counter[int] = Counter()
    keys = []
    for position, unit in enumerate(channels.ids.tolist()):
        keys.append((unit, seen[unit]))
        places[keys[-1]] = position
        seen[unit] += 1
    return torch.tensor(
        [places[group.units[order[index_of[u]]], k] if u in index_of else p for p, (u, k) in enumerate(keys)]
    )


def _move_weights(layer: nn.Module, into: Tensor | None, out: Tensor | None) -> None:
    first, second = (into, out) if isinstance(layer, nn.ConvTranspose2d) else (out, into)
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    _move(layer, "weight", 0, first)
    if not is_depthwise(layer):
        _move(layer, "weight", 1, None if second is None else second[second < layer.weight.shape[1]])
    _move(layer, "bias", 0, out)


def _move(layer: nn.Module, key: str, dim: int, source: Tensor | None) -> None:
    tensor = getattr(layer, key, None)
    if tensor is not None and source is not None:
        assert source.shape[0] == tensor.shape[dim]
        tensor.data = tensor.data.index_select(dim, source)
