"""Whether scores are conserved: what goes into every hidden unit comes out of it (Tanaka et al. 2020, 2006.05467).

Theorem 1 there: scores ``w dR/dw`` are, for any number R that the output gives, where nothing but weights and
homogeneous activations (ReLU) makes the units, without biases and shifts. SynFlow's scores are such in every network
without products of activations (squeeze-and-excitation, attention: what goes into both factors comes out once) and
without group and layer norms, which take the size out of what they see; those of SNIP are before the absolute value is
taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx

from autoprune.criteria.members import WeightValues, producers, sum_sides
from autoprune.groups.channel_group import ChannelGroups, is_depthwise
from autoprune.network.network import Network


@dataclass(frozen=True, slots=True)
class Conservation:
    """How far scores are from being conserved; 0 everywhere where they are.

    Attributes:
        units: For each channel group that can be pruned, residual streams included: the largest difference of a unit
            between the scores of the weights that make it and of those that read it, as a share of the sum of all
            their absolute values.
        layers: For each layer that all paths go through: how far its sum is from the mean of theirs, as a share of the
            largest sum of absolute values.

    """

    units: Mapping[str, float]
    layers: Mapping[str, float]

    @property
    def worst(self) -> float:
        """The largest difference of all."""
        return max((*self.units.values(), *self.layers.values()), default=0.0)


def conservation(network: Network, groups: ChannelGroups, scores: WeightValues) -> Conservation:
    """Compare what goes into units with what comes out of them, and the sums of layers in a row.

    Args:
        network: The network that was scored.
        groups: Of `network`.
        scores: A score per weight of every convolution and linear layer, signed.

    """
    layers = dict(producers(network))
    between = {name for name, layer in layers.items() if is_depthwise(layer)}  # they make and read the same units
    outer = {name: torch.zeros_like(values) if name in between else values for name, values in scores.items()}
    made, read = sum_sides(network, groups, outer)
    sizes = np.add(*sum_sides(network, groups, {name: values.abs() for name, values in outer.items()}))
    differences = np.divide(np.abs(made - read), sizes, out=np.zeros_like(made), where=sizes > 0)
    prunable = groups.prunable(include_residual=True)
    units = {group.name: float(differences[list(group.units)].max()) for group in prunable}
    return Conservation(units, _between_layers({name: scores[name] for name in inevitable(network)}))


def inevitable(network: Network) -> tuple[str, ...]:
    """Return the convolutions and linear layers that every path from image to output goes through, in order."""
    nodes = list(network.module.graph.nodes)
    before: dict[fx.Node, int] = {}  # paths from the image
    behind: dict[fx.Node, int] = {}  # paths to the output
    for node in nodes:
        before[node] = sum(map(before.__getitem__, node.all_input_nodes), int(node.op == "placeholder"))
    for node in reversed(nodes):
        behind[node] = sum(map(behind.__getitem__, node.users), int(node.op == "output"))
    made = dict(producers(network))
    places = {str(node.target): before[node] * behind[node] for node, _ in network.nodes()}
    return tuple(name for name, paths in places.items() if name in made and paths == before[nodes[-1]])


def _between_layers(scores: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how far the sum of each layer is from their mean."""
    sums = {name: float(values.sum()) for name, values in scores.items()}
    size = max((float(values.abs().sum()) for values in scores.values()), default=0.0)
    mean = sum(sums.values()) / max(1, len(sums))
    return {name: abs(each - mean) / size if size > 0 else 0.0 for name, each in sums.items()}
