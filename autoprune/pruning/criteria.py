"""Importance of units: which channels of a group go first. Higher scores stay."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import NumericalError, UnknownNameError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, is_depthwise
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network

Scores = NDArray[np.float64]


def score_units(network: Network, groups: ChannelGroups, criterion: str) -> Scores:
    """Return the importance of every unit of the network by a named criterion, ``(n_units,)``.

    Raises:
        UnknownNameError: No such criterion.
        NumericalError: A score is not finite.

    """
    if criterion not in CRITERIA:
        raise UnknownNameError("criterion", criterion, CRITERIA)
    scores = CRITERIA[criterion](network, groups)
    if not np.isfinite(scores).all():
        raise NumericalError(
            f"criterion {criterion!r} gave a score that is not finite; does the network hold NaN weights?"
        )
    return scores


def ranking(group: ChannelGroup, scores: Scores) -> tuple[int, ...]:
    """Return the group's unit indices from most to least important; ties keep channel order."""
    own = scores[list(group.units)]
    return tuple(np.argsort(-own, kind="stable").tolist())


def _magnitude(network: Network, groups: ChannelGroups, power: int) -> Scores:
    """Sum |w|^power over all weights that a unit removes, on the producers' and the consumers' side."""
    scores = np.zeros(groups.n_units)
    for name, layer in network.layers().items():
        if not isinstance(layer, PRODUCERS):
            continue
        channels = groups.layers[name]
        into, out = _per_channel(layer, layer.weight.detach().double().abs() ** power)
        if channels.output is not None:
            np.add.at(scores, channels.output.ids, out)
        if channels.inputs[0] is not None and not is_depthwise(layer):
            np.add.at(scores, channels.inputs[0].ids, into)
    return scores


def _per_channel(layer: nn.Module, values: Tensor) -> tuple[Scores, Scores]:
    """Sum a layer's weight-shaped `values` per input and per output channel: ``(in,)`` and ``(out,)``."""
    flat = values.flatten(2).sum(2) if values.dim() > 2 else values
    groups = layer.groups if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else 1
    blocks = flat.reshape(groups, flat.shape[0] // groups, flat.shape[1])
    first, second = blocks.sum(2).flatten(), blocks.sum(1).flatten()
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, k, k)
        return first.cpu().numpy(), second.cpu().numpy()
    return second.cpu().numpy(), first.cpu().numpy()


def _l1(network: Network, groups: ChannelGroups) -> Scores:
    """L1 norm of all weights of a unit (Li et al. 2017, 1608.08710, extended to groups)."""
    return _magnitude(network, groups, 1)


def _l2(network: Network, groups: ChannelGroups) -> Scores:
    """L2 norm of all weights of a unit."""
    return np.sqrt(_magnitude(network, groups, 2))


#: Criteria by name.
CRITERIA: Mapping[str, Callable[[Network, ChannelGroups], Scores]] = {"l1": _l1, "l2": _l2}
