"""Criteria that ask the loss: gradients of the cross entropy on images of the fit split, and their products."""

from collections.abc import Callable, Collection, Iterator

import numpy as np
from torch import Tensor, fx, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.differentiation import (
    batch_gradients,
    gate_gradients,
    hessian_products,
    mean_gradients,
    mean_over,
)
from autoprune.criteria.members import Scores, add_up, producers, sum_members, weights_of
from autoprune.groups.channel_group import ChannelGroups, is_depthwise
from autoprune.network.network import Network


def gradient_magnitudes(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``|g|``, g the gradient of the mean loss (Evci et al. 2020, 1911.11134)."""
    return {name: gradient.abs() for name, gradient in mean_gradients(network, data).items()}


def taylor(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``(g w)^2``, the mean over minibatches (Molchanov et al. 2019, 1906.10771, eq. 8)."""
    weights = weights_of(network)
    return mean_over(_each(batch_gradients(network, data), lambda name, g: (g.cpu() * weights[name]).square()))


def group_taylor(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return ``(sum of g w over a unit's members)^2``, the mean over minibatches (1906.10771, eq. 7, for groups)."""
    weights = weights_of(network)
    scores = np.zeros(groups.n_units)
    for share, gradients in batch_gradients(network, data):
        products = {name: gradient.cpu() * weights[name] for name, gradient in gradients.items()}
        scores += share * sum_members(network, groups, products) ** 2
    return scores


def gate_taylor(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return ``(derivative by a unit's gate)^2``, the mean over minibatches (1906.10771, section 3.2).

    The gate is 1 and multiplies the unit's channel wherever it is made, behind the batch norm if there is one: there
    its derivative is ``g_gamma gamma + g_beta beta``.
    """
    places = gates(network, groups)
    scores = np.zeros(groups.n_units)
    for share, derivatives in gate_gradients(network, data, places):
        slopes = np.zeros(groups.n_units)
        for name, values in derivatives.items():
            channels = groups.layers[name].output
            assert channels is not None, "a gate is where there are channels"
            others = [dim for dim in range(values.dim()) if dim != channels.dim - 1]
            add_up(slopes, channels, (values.sum(others) if others else values).cpu().numpy())
        scores += share * slopes**2
    return scores


def gates(network: Network, groups: ChannelGroups) -> tuple[str, ...]:
    """Return the layers that gates stand behind: the batch norm behind each producer, else the producer itself.

    Every path of a unit has one gate. Of producers in a row that make the same units (a pointwise and a depthwise
    convolution) the last has it; where other layers read what is between them, or it is a sum, those before.
    """
    layers, places = network.layers(), dict[str, str]()
    made = {name for name, _ in producers(network)}
    for node, layer in network.nodes():
        name, users = str(node.target), [str(user.target) for user in node.users]
        output = groups.layers[name].output
        if name not in made or output is None:
            continue
        inputs = groups.layers[name].inputs[0]
        again = is_depthwise(layer) and inputs is not None and set(inputs.ids) == set(output.ids)
        if again and places.pop(_alone_before(node, made), None) is None:
            continue
        behind = len(users) == 1 and isinstance(layers.get(users[0]), nn.BatchNorm2d)
        places[name] = users[0] if behind else name
    return tuple(places.values())


def _alone_before(node: fx.Node, made: Collection[str]) -> str:
    """Return the producer that a layer reads, if nothing else reads it or what is between them; else nothing."""
    while len(node.all_input_nodes) == 1 and len(node.all_input_nodes[0].users) == 1:
        (node,) = node.all_input_nodes
        if str(node.target) in made:
            return str(node.target)
    return ""


def fisher(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``w^2 F / 2``: what the loss gains to second order if the weight goes (Theis et al. 2018, 1801.05787)."""
    weights = weights_of(network)
    return {name: values * weights[name].square() / 2 for name, values in empirical_fisher(network, data).items()}


def empirical_fisher(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher matrix: the mean over images of the squared gradient of its loss.

    Each image is a minibatch of its own.
    """
    return mean_over(_each(batch_gradients(network, data, size=1), lambda _, gradient: gradient.square()))


def sensitivities(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``g w``: the derivative of the mean loss by a factor on each weight, all of them 1; signed."""
    weights = weights_of(network)
    return {name: gradient * weights[name] for name, gradient in mean_gradients(network, data).items()}


def snip(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``|g w|`` as a share of its sum over all weights (Lee et al. 2019, 1810.02340)."""
    products = {name: product.abs() for name, product in sensitivities(network, data).items()}
    total = sum(float(values.sum()) for values in products.values())
    return {name: values / max(total, _TINY) for name, values in products.items()}


def grasp(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return ``w (H g)``, g the gradient and H the Hessian of the mean loss (Wang et al. 2020, 2002.07376).

    The paper removes the weights with the largest ``-w (H g)``, without which the gradients stay largest; the sign is
    turned so that higher scores stay. Removing a weight changes the squared norm of g by -2 times its score, to first
    order.
    """
    weights = weights_of(network)
    products = hessian_products(network, data, mean_gradients(network, data))
    return {name: weights[name] * product for name, product in products.items()}


#: What is divided by where all gradients are 0.
_TINY = 1e-300


def _each(
    batches: Iterator[tuple[float, dict[str, Tensor]]], formula: Callable[[str, Tensor], Tensor]
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Apply a formula to every layer's values of every minibatch."""
    for share, values in batches:
        yield share, {name: formula(name, value) for name, value in values.items()}
