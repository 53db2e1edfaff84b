"""Groups of ONNX nodes that stand for one layer: GELU by Erf, layer normalization by means, a bias behind a product.

Each match adds one node in place of the group's last; the rest of the group is then no longer needed by anybody.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto

from autoprune.formats._onnx_call import Array


@dataclass(frozen=True, slots=True)
class _Graph:
    """Who makes and who uses each tensor."""

    makers: Mapping[str, NodeProto]
    users: Mapping[str, list[NodeProto]]
    constants: Mapping[str, Array]
    outputs: frozenset[str]

    def maker(self, name: str, *op_types: str) -> NodeProto | None:
        """Return the node that makes this tensor, if it is of one of these types."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in op_types else None

    def user(self, name: str, *op_types: str) -> NodeProto | None:
        """Return the only user of this tensor, if it is of one of these types."""
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.outputs and users[0].op_type in op_types else None

    def is_number(self, name: str, value: float) -> bool:
        """Whether this tensor is one constant close to `value`."""
        given = self.constants.get(name)
        return given is not None and given.size == 1 and math.isclose(float(given.ravel()[0]), value, rel_tol=1e-5)

    def other(self, node: NodeProto, name: str) -> str:
        """Return the operand of a two-operand node that is not `name`."""
        return str(node.input[1] if node.input[0] == name else node.input[0])


def fuse(nodes: Iterable[NodeProto], constants: Mapping[str, Array], outputs: Iterable[str]) -> list[NodeProto]:
    """Return the nodes with the last one of every known group replaced by a single equivalent node.

    Args:
        nodes: Nodes in execution order.
        constants: Initializers and values of Constant nodes, by name.
        outputs: Names of the graph's outputs.

    """
    nodes = list(nodes)
    users: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    graph = _Graph({name: node for node in nodes for name in node.output if name}, users, constants, frozenset(outputs))
    fused: dict[str, NodeProto] = {}
    for node in nodes:
        for match in (_gelu, _layer_norm, _bias):
            found = match(graph, node)
            if found is not None:
                fused[found.output[0]] = found
    return [fused.get(node.output[0], node) if node.output else node for node in nodes]


def _gelu(graph: _Graph, erf: NodeProto) -> NodeProto | None:
    """Match ``x * 0.5 * (1 + erf(x / sqrt(2)))`` in any order of the factors."""
    if erf.op_type != "Erf" or (scale := graph.maker(erf.input[0], "Div", "Mul")) is None:
        return None
    if scale.op_type == "Div":
        x, scaled = scale.input[0], graph.is_number(scale.input[1], math.sqrt(2))
    else:
        x = scale.input[1] if scale.input[0] in graph.constants else scale.input[0]
        scaled = graph.is_number(graph.other(scale, x), math.sqrt(0.5))
    plus = graph.user(erf.output[0], "Add")
    if not scaled or plus is None or not graph.is_number(graph.other(plus, erf.output[0]), 1.0):
        return None
    first = graph.user(plus.output[0], "Mul")
    if first is None:
        return None
    factor = graph.other(first, plus.output[0])
    half = graph.maker(factor, "Mul")
    if half is not None and x in half.input and graph.is_number(graph.other(half, x), 0.5):
        return _replacement("Gelu", first, [x])
    second = graph.user(first.output[0], "Mul")
    if second is None:
        return None
    rest = graph.other(second, first.output[0])
    if (factor == x and graph.is_number(rest, 0.5)) or (rest == x and graph.is_number(factor, 0.5)):
        return _replacement("Gelu", second, [x])
    return None


def _layer_norm(graph: _Graph, div: NodeProto) -> NodeProto | None:
    """Match ``(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)``, and scale and bias behind it."""
    if div.op_type != "Div" or (centred := graph.maker(div.input[0], "Sub")) is None:
        return None
    mean, root = graph.maker(centred.input[1], "ReduceMean"), graph.maker(div.input[1], "Sqrt")
    plus = graph.maker(root.input[0], "Add") if root else None
    variance = (
        next((found for name in plus.input if (found := graph.maker(name, "ReduceMean"))), None) if plus else None
    )
    if mean is None or plus is None or variance is None or mean.input[0] != centred.input[0]:
        return None
    square = graph.maker(variance.input[0], "Pow", "Mul")
    eps = graph.constants.get(graph.other(plus, variance.output[0]))
    axes = [_axes(graph, node) for node in (mean, variance)]
    if square is None or eps is None or eps.size != 1 or axes[0] != axes[1] or not _trailing(axes[0]):
        return None
    squared = [centred.output[0], centred.output[0]] == list(square.input) or (
        square.op_type == "Pow" and square.input[0] == centred.output[0] and graph.is_number(square.input[1], 2.0)
    )
    if not squared or not all(_keeps(node) for node in (mean, variance)):
        return None
    last, inputs = div, [centred.input[0]]
    scale = graph.user(div.output[0], "Mul")
    if scale is not None and _trails(graph.constants.get(graph.other(scale, div.output[0])), axes[0]):
        last, inputs = scale, [*inputs, graph.other(scale, div.output[0])]
        bias = graph.user(scale.output[0], "Add")
        if bias is not None and _trails(graph.constants.get(graph.other(bias, scale.output[0])), axes[0]):
            last, inputs = bias, [*inputs, graph.other(bias, scale.output[0])]
    node = _replacement("LayerNormalization", last, inputs)
    node.attribute.append(onnx.helper.make_attribute("axis", min(axes[0])))
    node.attribute.append(onnx.helper.make_attribute("epsilon", float(eps.ravel()[0])))
    return node


def _axes(graph: _Graph, node: NodeProto) -> list[int]:
    """Return the axes of a ReduceMean, from its input or, in older operator sets, its attribute."""
    if len(node.input) > 1:
        return [int(axis) for axis in graph.constants.get(node.input[1], np.empty(0)).ravel()]
    return next((list(item.ints) for item in node.attribute if item.name == "axes"), [])


def _trailing(axes: list[int]) -> bool:
    """Tell whether these are the last axes, counted from the back."""
    return bool(axes) and sorted(axes) == list(range(-len(axes), 0))


def _trails(value: Array | None, axes: list[int]) -> bool:
    """Tell whether a constant has exactly the normalized dimensions."""
    return value is not None and value.ndim == len(axes)


def _keeps(node: NodeProto) -> bool:
    """Tell whether a reduction keeps its dimensions."""
    return next((item.i for item in node.attribute if item.name == "keepdims"), 1) == 1


def _bias(graph: _Graph, product: NodeProto) -> NodeProto | None:
    """Match ``x @ matrix + bias``: a MatMul that takes the bias as a third input."""
    if product.op_type != "MatMul" or (add := graph.user(product.output[0], "Add")) is None:
        return None
    name = graph.other(add, product.output[0])
    bias = graph.constants.get(name)
    weight = graph.constants.get(product.input[1])
    transposed = graph.maker(product.input[1], "Transpose")
    if weight is None and transposed is not None and transposed.input[0] in graph.constants:
        weight = graph.constants[transposed.input[0]].T
    if bias is None or weight is None or weight.ndim != 2 or bias.shape != weight.shape[-1:]:
        return None
    return _replacement("MatMul", add, [*product.input, name], named_after=product)


def _replacement(op_type: str, last: NodeProto, inputs: list[str], named_after: NodeProto | None = None) -> NodeProto:
    """Make the node that stands for a group and takes the place of its `last` node."""
    name = (named_after or last).name
    return onnx.helper.make_node(op_type, inputs, [last.output[0]], name=name)
