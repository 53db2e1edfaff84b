"""A network without some of its single weights, every layer in the shape it had."""

from collections.abc import Mapping

from torch import Tensor

from autoprune.errors import PlanError
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, own_copy


def masked(network: Network, masks: Mapping[str, Tensor]) -> Network:
    """Return a copy of `network` in which the weights that `masks` do not keep are zero.

    Args:
        network: Not changed; the copy shares nothing with it.
        masks: Name of a convolution or linear layer -> which of its weights stay, bool of the shape of its weights.
            Layers not named stay whole.

    Raises:
        PlanError: A mask of something without weights, or of another shape.

    """
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for name, mask in masks.items():
        layer = layers.get(name)
        shape = tuple(layer.weight.shape) if isinstance(layer, PRODUCERS) else "none"
        if not isinstance(layer, PRODUCERS) or shape != tuple(mask.shape):
            raise PlanError(f"layer {name!r}: expected a mask for weights of shape {shape}, found {tuple(mask.shape)}")
        layer.weight.data.masked_fill_(~mask.to(layer.weight.device), 0.0)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)
