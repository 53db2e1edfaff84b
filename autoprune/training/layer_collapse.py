"""Layer collapse: masks after which no signal, or no gradient, gets through, found before they are applied."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoprune.errors import PlanError
from autoprune.network.layers import (
    ACTIVATIONS,
    ELEMENTWISE,
    MOVEMENT,
    PRODUCERS,
    SPATIAL,
    Constant,
    Mean,
    Mul,
    Pad,
)
from autoprune.network.network import Network, own_copy
from autoprune.training.masks import Masks
from autoprune.training.rounds import kept_count
from autoprune.training.weight_scores import weights_of

#: Activations that are above 0 for an input of 0.
NEVER_ZERO = (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Softmax)


@dataclass(frozen=True, slots=True)
class Collapse:
    """What masks would leave of a network's paths.

    Attributes:
        empty: Layers without a weight, in execution order; around some of them there may be a shortcut.
        cut: Layers that something of the image reaches and nothing leaves, where no path from the image to the output
            is left; none where there is a path.

    """

    empty: tuple[str, ...]
    cut: tuple[str, ...]


def find_collapse(network: Network, masks: Masks) -> Collapse:
    """Return what `masks` would leave of the paths through `network`; layers that they do not name keep all weights.

    A path leads through weights that are kept, and batch norms whose gamma is not zero; biases are no part of it. A
    product of two activations is reached where both are, as a closed one is 0, unless a sigmoid makes it: a closed gate
    is then a factor.
    """
    empty = tuple(name for name, mask in masks.items() if not mask.any())
    reach = _Reach(network, masks)
    reach.run(torch.ones(1, *network.input_shape))
    return Collapse(empty, () if reach.reached_output else tuple(reach.stops))


def check_collapse(network: Network, masks: Masks) -> None:
    """Make sure that every layer keeps a weight, and that a path leads through the network.

    Raises:
        PlanError: A layer would collapse; names it.

    """
    found = find_collapse(network, masks)
    if not found.empty and not found.cut:
        return
    names = ", ".join(map(repr, found.empty or found.cut))
    what = "would be left without a weight" if found.empty else "would let nothing of the image through"
    kept, total = sum(int(mask.sum()) for mask in masks.values()), sum(mask.numel() for mask in masks.values())
    raise PlanError(
        f"layer collapse: {names} {what} at {kept:,} of {total:,} weights; keep more of them, take more rounds, let "
        "every layer keep the same share (scope 'layer'), or score by 'synflow' in 100 rounds"
    )


def maximal_critical_compression(network: Network) -> float:
    """Return weights per weight kept, where every layer keeps one: nothing can be smaller without collapse.

    rho_max = N / L of Tanaka et al. 2020 (2006.05467), N the weights of the L convolutions and linear layers.
    """
    weights = weights_of(network)
    if not weights:
        raise PlanError("a network without convolutions and linear layers has no weights to prune")
    return sum(weight.numel() for weight in weights.values()) / len(weights)


def check_compression(network: Network, share: float) -> None:
    """Make sure that a share of the weights is at least one for each layer.

    Raises:
        PlanError: It is not: some layer would collapse, whatever is kept.

    """
    most = maximal_critical_compression(network)
    layers = len(weights_of(network))
    kept = kept_count(round(most * layers), share)
    if kept < layers:
        raise PlanError(
            f"layer collapse: keeping {share:g} of the weights leaves {kept} for {layers} layers; without collapse no "
            f"more than every {most:,.0f}th can stay (the maximal critical compression), a share of {1 / most:.3g}"
        )


class _Reach(fx.Interpreter):
    """Runs a network in which everything is 1 that a path from the image reaches, and all else 0.

    Attributes:
        stops: Names of the layers that are reached, and that nothing leaves, in execution order.
        reached_output: Whether a path leads to the output.

    """

    def __init__(self, network: Network, masks: Masks) -> None:
        layers = {name: _open(layer, masks.get(name)) for name, layer in network.layers().items()}
        layers |= _products(network)
        super().__init__(network.with_layers(layers))
        self.stops: list[str] = []
        self.reached_output = False

    def run_node(self, n: fx.Node) -> object:
        """Run one node and note where paths end."""
        with torch.no_grad():
            result = super().run_node(n)
        assert isinstance(result, Tensor)
        result = (result > 0).float()
        reached = bool(result.any())
        if n.op == "output":
            self.reached_output = reached
        elif not reached and any(bool(self.env[source].any()) for source in n.all_input_nodes):
            self.stops.append(str(n.target))
        return result


class _Any(nn.Module):
    """1 everywhere in the shape of what the layer itself returns, if anything that enters is reached, else 0."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return ones or zeros."""
        return torch.full_like(self.layer(*tensors), float(any(bool(each.any()) for each in tensors)))


class _Either(nn.Module):
    """What is reached by one of two tensors, with broadcasting."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return their sum."""
        return a + b


class _Product(nn.Module):
    """What is reached by all those of two tensors that `factors` names, with broadcasting."""

    def __init__(self, factors: Sequence[bool]) -> None:
        super().__init__()
        self.factors = tuple(factors)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return their product, one that may be closed put at 1."""
        one, other = (
            each if needed else torch.ones_like(each) for each, needed in zip((a, b), self.factors, strict=True)
        )
        return one * other


def _products(network: Network) -> dict[str, nn.Module]:
    """Return what stands for the products of activations, of which some must be reached; others are not named."""
    layers, moving, found = dict(network.nodes()), set[fx.Node](), dict[str, nn.Module]()
    for node in network.module.graph.nodes:
        if node.op == "placeholder" or not moving.isdisjoint(node.all_input_nodes):
            moving.add(node)
        if node in moving and isinstance(layers.get(node), Mul):
            factors = [each in moving and not isinstance(layers.get(each), NEVER_ZERO) for each in node.args]
            if any(factors):
                found[str(node.target)] = _Product(factors)
    return found


class _Gate(nn.Module):
    """Lets the channels through that `opened`, ``(C,)``, names."""

    opened: Tensor

    def __init__(self, opened: Tensor) -> None:
        super().__init__()
        self.register_buffer("opened", opened)

    def forward(self, x: Tensor) -> Tensor:
        """Close the others, ``(n, C, H, W)``."""
        return x * self.opened.view(1, -1, 1, 1)


def _open(layer: nn.Module, mask: Tensor | None) -> nn.Module:
    """Return what stands for `layer` in a network of ones and zeros."""
    if isinstance(layer, PRODUCERS):
        clone = own_copy(layer)
        assert isinstance(clone, PRODUCERS)
        clone.weight.data = (torch.ones_like(clone.weight) if mask is None else mask).float()
        clone.bias = None
        return clone
    if isinstance(layer, nn.BatchNorm2d):
        return _Gate((layer.weight.detach() != 0).float()) if layer.affine else nn.Identity()
    if isinstance(layer, Constant):
        return Constant(torch.zeros_like(layer.value))
    if isinstance(layer, ELEMENTWISE):
        return _Either()
    if isinstance(layer, Pad):
        return Pad(layer.pads)
    if isinstance(layer, (nn.PReLU, *ACTIVATIONS)):
        return nn.Identity()
    if isinstance(layer, (*SPATIAL, *MOVEMENT, Mean)):
        return layer
    return _Any(layer)
