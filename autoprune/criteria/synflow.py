"""SynFlow (Tanaka et al. 2020, 2006.05467): how much of all paths through a network goes through each weight."""

import torch
from torch import Tensor, fx, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.differentiation import DoubleNetwork
from autoprune.errors import NumericalError
from autoprune.network.device import default_device
from autoprune.network.layers import ACTIVATIONS, Add, Constant, Pad, Sub
from autoprune.network.network import Network, own_copy


def synaptic_flow(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``|w| dR/d|w|`` of every weight, R the sum of the outputs for an image of ones.

    R is that of the network with every weight replaced by its absolute value and without offsets: biases, constants
    that are added or subtracted, and the means and shifts of batch norms, which are 0 where the paper starts. Batch
    norms are in eval mode, a factor of ``|gamma| / sqrt(variance + eps)`` per channel. Activations let a positive flow
    through unchanged, as a ReLU does, and a difference is the sum of what flows into it.

    No images, one pass. Of a masked network it gives the flow that is left, so that a schedule of many rounds needs
    nothing else. Scores are conserved: what goes into a hidden unit comes out of it, and all layers in a row have the
    same sum, where no activations are multiplied (squeeze-and-excitation, attention) and no group or layer norm is.

    Raises:
        NumericalError: R is not above 0: nothing flows, or a layer norm turns its sign, so that scores would rank
            backwards.

    """
    double = DoubleNetwork(linearised(network))
    ones = torch.ones(1, *network.input_shape, dtype=torch.float64, device=default_device())
    total = double.module(ones).sum()
    if not float(total.detach()) > 0:
        raise NumericalError(
            f"criterion 'synflow': expected a positive flow at the output, found {float(total.detach()):g}; nothing "
            "passes through the network, or a layer normalises by its own inputs; keep more weights, or choose "
            "criterion 'l1'"
        )
    flow = double.gradients(total)
    return {name: (double.weights[name] * slope).detach().cpu() for name, slope in flow.items()}


def linearised(network: Network) -> Network:
    """Return the network through which paths flow: absolute weights, no offsets, no activations."""
    layers = {name: _linearised(layer) for name, layer in network.layers().items()}
    for name in _offsets(network):
        constant = layers[name]
        assert isinstance(constant, Constant)
        constant.value = torch.zeros_like(constant.value)
    return Network(network.with_layers(layers), network.input_shape, network.shapes)


def _offsets(network: Network) -> list[str]:
    """Return the constants that are added to activations or subtracted, or activations from them."""
    held: dict[fx.Node, list[str]] = {}  # nodes that only constants lead to -> these constants
    found: list[str] = []
    for node, layer in network.nodes():
        if isinstance(layer, Constant):
            held[node] = [str(node.target)]
        elif all(source in held for source in node.all_input_nodes):
            held[node] = [name for source in node.all_input_nodes for name in held[source]]
        elif isinstance(layer, Add | Sub):
            found += [name for source in node.all_input_nodes for name in held.get(source, ())]
    return found


def _linearised(layer: nn.Module) -> nn.Module:
    """Return what a layer does to a flow."""
    if isinstance(layer, (*ACTIVATIONS, nn.PReLU)):
        return nn.Identity()
    if isinstance(layer, Sub):
        return Add()
    if isinstance(layer, Pad):
        return Pad(layer.pads)
    clone = own_copy(layer)
    for name, parameter in clone.named_parameters():
        parameter.data = torch.zeros_like(parameter) if name == "bias" else parameter.data.abs()
    if isinstance(clone, nn.BatchNorm2d):
        assert clone.running_mean is not None
        clone.running_mean = torch.zeros_like(clone.running_mean)
    elif isinstance(clone, Constant):
        clone.value = clone.value.abs()
    return clone
