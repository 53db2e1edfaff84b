"""SynFlow (Tanaka et al. 2020, 2006.05467): how much of all paths through a network goes through each weight."""

import torch
from torch import Tensor, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.differentiation import DoubleNetwork
from autoprune.network.device import default_device
from autoprune.network.layers import ACTIVATIONS, Constant
from autoprune.network.network import Network, own_copy


def synaptic_flow(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``|w| dR/d|w|`` of every weight, R the sum of the outputs for an image of ones.

    R is that of the network with every weight replaced by its absolute value and without offsets: biases, and the
    means and shifts of batch norms, which are 0 where the paper starts. Batch norms are in eval mode, a factor of
    ``|gamma| / sqrt(variance + eps)`` per channel. Activations let a positive flow through unchanged, as a ReLU does.

    No images, one pass. Of a masked network it gives the flow that is left, so that a schedule of many rounds needs
    nothing else. Scores are conserved: what goes into a hidden unit comes out of it, and all layers in a row have the
    same sum.
    """
    double = DoubleNetwork(linearised(network))
    ones = torch.ones(1, *network.input_shape, dtype=torch.float64, device=default_device())
    flow = double.gradients(double.module(ones).sum())
    return {name: (double.weights[name] * slope).detach().cpu() for name, slope in flow.items()}


def linearised(network: Network) -> Network:
    """Return the network through which paths flow: absolute weights, no offsets, no activations."""
    layers = {name: _linearised(layer) for name, layer in network.layers().items()}
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def _linearised(layer: nn.Module) -> nn.Module:
    """Return what a layer does to a flow."""
    if isinstance(layer, (*ACTIVATIONS, nn.PReLU)):
        return nn.Identity()
    clone = own_copy(layer)
    for name, parameter in clone.named_parameters():
        parameter.data = torch.zeros_like(parameter) if name == "bias" else parameter.data.abs()
    if isinstance(clone, nn.BatchNorm2d):
        assert clone.running_mean is not None
        clone.running_mean = torch.zeros_like(clone.running_mean)
    elif isinstance(clone, Constant):
        clone.value = clone.value.abs()
    return clone
