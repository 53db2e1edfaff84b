"""The fused units of a network: which kernels onnxruntime will run for it, and which channels enter and leave each.

A convolution takes along the batch norm, the activation and the addition behind it; of the two convolutions that an
addition joins, the later one does. What is left over - activations and additions of their own, poolings - are
units too. Reshapes, slices, pads and concatenations are not: their time goes into the calibration of whole networks.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from autoprune.costs.sides import SidePart
from autoprune.errors import LatencyTableError
from autoprune.groups.channel_group import ChannelGroups, is_depthwise
from autoprune.latency_tables.unit import Unit
from autoprune.network.layers import ACTIVATIONS, Add, Constant, Mean
from autoprune.network.network import Network, Shape

#: Activations that onnxruntime runs within a convolution.
_FUSED = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leakyrelu", nn.Sigmoid: "sigmoid", nn.Hardswish: "hardswish",
}  # fmt: skip

#: How activations that stay on their own are named.
_NAMES = {**_FUSED, nn.SiLU: "silu", nn.PReLU: "prelu"}


@dataclass(frozen=True, slots=True)
class FusedUnit:
    """One kernel of a network.

    Attributes:
        layers: Names of the layers that it runs, in order.
        unit: With the channel counts of the unpruned network.
        into: The channels that enter.
        out: The channels that leave.

    """

    layers: tuple[str, ...]
    unit: Unit
    into: SidePart
    out: SidePart


def fused_units(network: Network, groups: ChannelGroups) -> tuple[FusedUnit, ...]:
    """Return the units of `network`, with all its `groups`, in execution order.

    Raises:
        LatencyTableError: The network has a layer that latency tables do not know.

    """
    return _Fusion(network, groups).units()


def structure_key(units: Sequence[FusedUnit]) -> str:
    """Return a hash of what a network runs, whatever its weights: what calibrations of latency tables are filed by."""
    text = json.dumps([each.unit.to_dict() for each in units], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Fusion:
    """Walks the graph once; a node is part of the unit that took it along, or begins its own."""

    def __init__(self, network: Network, groups: ChannelGroups) -> None:
        self._network, self._groups = network, groups
        self._layers = network.layers()
        self._nodes = [node for node, _ in network.nodes()]
        self._taken: set[fx.Node] = set()

    def units(self) -> tuple[FusedUnit, ...]:
        """Return the units; the last convolution before an addition is the one that takes it along."""
        chains = {node: self._chain(node) for node in reversed(self._nodes) if self._is(node, nn.Conv2d)}
        found = []
        for node in self._nodes:
            layer = self._layers[str(node.target)]
            if node in chains:
                found.append(self._weighted(chains[node]))
            elif isinstance(layer, nn.ConvTranspose2d):
                raise LatencyTableError(
                    f"layer {node.target}: latency tables have no transposed convolutions; limit macs or params instead"
                )
            elif isinstance(layer, nn.Linear):
                found.append(self._weighted([node]))
            elif node not in self._taken and (unit := self._unweighted(node, layer)) is not None:
                found.append(unit)
        return tuple(found)

    def _chain(self, node: fx.Node) -> list[fx.Node]:
        """Return a convolution and the layers that run within it."""
        chain = [node]
        following = _only_user(node)
        if following is not None and self._is(following, nn.BatchNorm2d):
            chain.append(following)
            following = _only_user(following)
        if following is not None and self._takes_addition(following):
            chain.append(following)
            following = _only_user(following)
        if following is not None and following not in self._taken and self._is(following, *_FUSED):
            chain.append(following)
        self._taken.update(chain[1:])
        return chain

    def _takes_addition(self, node: fx.Node) -> bool:
        """Tell whether `node` is an addition of two activations of one shape that no later convolution took."""
        if node in self._taken or not self._is(node, Add) or len(node.all_input_nodes) != 2:
            return False
        shapes = {tuple(self._shape(source)) for source in node.all_input_nodes}
        return len(shapes) == 1 and not any(self._is(source, Constant) for source in node.all_input_nodes)

    def _weighted(self, chain: Sequence[fx.Node]) -> FusedUnit:
        """Make the unit of a convolution or linear layer."""
        name = str(chain[0].target)
        layer, sides = self._layers[name], self._groups.layers[name]
        last = self._layers[str(chain[-1].target)]
        activation = _FUSED.get(type(last), "none")
        add = any(self._is(node, Add) for node in chain)
        names = tuple(str(node.target) for node in chain)
        if isinstance(layer, nn.Linear):
            into, out = layer.in_features, layer.out_features
            unit = Unit("linear", (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1, (1, 1), into, out)
            return FusedUnit(names, unit, (sides.inputs[0], into), (sides.output, out))
        assert isinstance(layer, nn.Conv2d)
        into, out = layer.in_channels, layer.out_channels
        rows, columns = _pair(layer.padding) if not isinstance(layer.padding, str) else (0, 0)
        depthwise = is_depthwise(layer)
        unit = Unit(
            "depthwise" if depthwise else "conv",
            _pair(layer.kernel_size),
            _pair(layer.stride),
            _pair(layer.dilation),
            (rows, columns, rows, columns),
            1 if depthwise else layer.groups,
            self._plane(chain[0].all_input_nodes[0]),
            into,
            out,
            activation,
            add,
        )
        outputs: SidePart = (sides.output, out)
        return FusedUnit(names, unit, outputs if depthwise else (sides.inputs[0], into), outputs)

    def _unweighted(self, node: fx.Node, layer: nn.Module) -> FusedUnit | None:
        """Make the unit of a pooling, or of an activation or addition that runs on its own; None for all else."""
        name, sources = str(node.target), node.all_input_nodes
        if not sources or len(self._shape(node)) != 4 or len(self._shape(sources[0])) != 4:
            return None
        channels, plane = self._shape(node)[1], self._plane(sources[0])
        side: SidePart = (self._groups.layers[name].output, channels)
        kernel, stride, padding = (1, 1), (1, 1), (0, 0)
        if isinstance(layer, Mean | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            op, kernel = "pool", (0, 0)
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            op, kernel, stride = "pool", _pair(layer.kernel_size), _pair(layer.stride)
            padding = _pair(layer.padding)
            if kernel == plane and padding == (0, 0):  # a global pool by another name
                kernel, stride = (0, 0), (1, 1)
        elif isinstance(layer, (Add, nn.PReLU, *ACTIVATIONS)) and not isinstance(layer, nn.Identity):
            op = "elementwise"
        else:
            return None
        known = next((text for kind, text in _NAMES.items() if isinstance(layer, kind)), "other")
        activation = "none" if op == "pool" or isinstance(layer, Add) else known
        pads = (*padding, *padding)
        unit = Unit(op, kernel, stride, (1, 1), pads, 1, plane, channels, channels, activation, isinstance(layer, Add))
        return FusedUnit((name,), unit, side, side)

    def _is(self, node: fx.Node, *kinds: type[nn.Module]) -> bool:
        """Tell whether `node` calls a layer of one of `kinds`."""
        return node.op == "call_module" and isinstance(self._layers[str(node.target)], kinds)

    def _shape(self, node: fx.Node) -> Shape:
        """Return the shape of what `node` puts out, batch included."""
        return self._network.shapes[node.name]

    def _plane(self, node: fx.Node) -> tuple[int, int]:
        """Return height and width of what `node` puts out."""
        _, _, height, width = self._shape(node)
        return height, width


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return the only node that uses `node`, or None."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_module" else None


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Return height and width."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
