"""Where the weights that surgery keeps stand in the unpruned network: surgery itself is the index map."""

import torch
from torch import nn

from autoprune.network.network import Network, own_copy


def numbered(network: Network) -> Network:
    """Return a network of the same wiring whose parameters hold the places of their own elements, int64.

    Pruned by a plan, it says where each weight that the plan keeps stands in the unpruned network, flat. Its buffers
    are copies of the network's own.
    """
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for layer in layers.values():
        for name, parameter in layer._parameters.items():
            if parameter is not None:
                places = torch.arange(parameter.numel()).view(parameter.shape)
                layer._parameters[name] = nn.Parameter(places, requires_grad=False)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)
