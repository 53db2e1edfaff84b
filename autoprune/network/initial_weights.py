"""Weights as they are before training, drawn anew: the control of lottery tickets."""

import torch
from torch import nn

from autoprune.network.network import Network, own_copy


def reinitialised(network: Network, seed: int) -> Network:
    """Return a copy of `network` whose layers have drawn their weights again, each as PyTorch does by default.

    Batch norms are fresh; constants, and layers without weights, stay. The same for the same seed; the global random
    state is left alone.
    """
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers.values():
            _reset(layer)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def _reset(layer: nn.Module) -> None:
    """Draw the weights of a layer again, if it has any."""
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
