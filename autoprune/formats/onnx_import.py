"""ONNX files to canonical networks.

Nodes are converted one by one, in order, and only those the output needs. What can be computed without the image is
computed (:mod:`autoprune.formats._onnx_fold`). Shapes are followed for two batch sizes at once: sizes that agree are
literals, a size that differs follows the batch. So chains such as Shape, Gather, Concat, Reshape become one literal
Reshape, and a file exported for one batch size works for any.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from autoprune.errors import ModelError
from autoprune.formats._onnx_call import NONSENSE, Active, Batch, Call, Known, Value, first_line
from autoprune.formats._onnx_effort import Effort
from autoprune.formats._onnx_fold import FOLDABLE, MAX_FOLDED_VALUES, fold
from autoprune.formats._onnx_patterns import fuse
from autoprune.formats.onnx_file import default_opset, image_input, read_onnx, unsupported_operator
from autoprune.formats.onnx_operators import OPERATORS
from autoprune.network.network import Network, NetworkBuilder, Shape

#: Images of a batch may change each other's outputs by this much, relative to the largest output.
_INDEPENDENCE_TOLERANCE = 1e-3


def import_onnx(path: str | Path, *, input_shape: Shape | None = None) -> Network:
    """Read an ONNX file as a canonical network with real ``nn`` layers.

    Args:
        path: The file; it is treated as hostile (see :func:`autoprune.formats.onnx_file.read_onnx`).
        input_shape: Shape of one image, ``(C, H, W)``, for files that leave it open.

    Returns:
        The network in evaluation mode. It takes any batch size, also if the file was exported for one only. Weights
        used by several nodes are copied: every layer has its own. Layers are named after their weights where these
        have names such as ``layer1.0.conv1.weight``, after their nodes otherwise.

    Raises:
        ModelError: The file is refused, or the network in it does not run or mixes the images of a batch.
        UnsupportedOperatorError: An operator, or a form of it, is not supported; the message names the node.

    """
    model = read_onnx(path, input_shape=input_shape)
    image = image_input(model, input_shape)
    batch = Batch((image.batch, image.batch + 1) if image.batch else (2, 3), image.batch)
    builder = NetworkBuilder(image.name, image.shape)
    run = _Import(builder, batch, default_opset(model))
    run.values[image.name] = Active(builder.input, ((batch.sizes[0], *image.shape), (batch.sizes[1], *image.shape)))
    output = run.convert(model.graph)
    if not output.rank or not output.follows_batch(0):
        raise ModelError(
            f"the output has shape {output.shapes[0]} for {batch.sizes[0]} images; its first dimension must be the "
            "batch: re-export with a dynamic batch axis (dynamic_axes or dynamic_shapes)"
        )
    network = builder.finish(output.node)
    _check_independence(network)
    return network


@dataclass(slots=True)
class _Import:
    """One import under way: the values known so far, by name."""

    builder: NetworkBuilder
    batch: Batch
    opset: int
    values: dict[str, Value] = field(default_factory=dict)
    folded: int = 0
    effort: Effort = field(default_factory=Effort)

    def convert(self, graph: onnx.GraphProto) -> Active:
        """Convert what the graph's output needs; return the output."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.values.update({name: Known((value, value), name) for name, value in constants.items()})
        for node in graph.node:
            if node.op_type == "Identity" and node.input[0] in constants:
                constants[node.output[0]] = constants[node.input[0]]
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    constants[node.output[0]] = numpy_helper.to_array(attribute.t)
        name = graph.output[0].name
        for node in _needed(fuse(graph.node, constants, [name]), name):
            self._convert_node(node)
        output = self.values.get(name)
        if not isinstance(output, Active):
            raise ModelError(f"the output {name!r} does not depend on the image; a network that computes is expected")
        return output

    def _convert_node(self, node: onnx.NodeProto) -> None:
        """Fold or convert one node and store its outputs."""
        missing = [name for name in node.input if name and name not in self.values]
        if missing:
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) uses {missing[0]!r}, which is not supported or made by no node"
            )
        inputs = tuple(self.values[name] if name else None for name in node.input)
        if not any(isinstance(value, Active) for value in inputs) and node.op_type in FOLDABLE:
            results: Sequence[Value] = self._fold(node, inputs)
        elif node.op_type not in OPERATORS:
            raise unsupported_operator(node, "is applied to values computed from the image; it may only fold constants")
        else:
            name = _layer_name(node, inputs)
            call = Call(node, inputs, self.opset, self.batch, self.builder, name, self.effort, _attributes(node))
            result = _converted(call)
            results = [result] if isinstance(result, Known | Active) else result
        self.values.update({name: value for name, value in zip(node.output, results, strict=False) if name})

    def _fold(self, node: onnx.NodeProto, inputs: Sequence[Value | None]) -> list[Value]:
        """Compute a node without the image, at both batch sizes if they matter."""
        known = [value for value in inputs if isinstance(value, Known)]
        room = MAX_FOLDED_VALUES - self.folded
        first = fold(node, [value.at[0] if isinstance(value, Known) else None for value in inputs], self.opset, room)
        second = first
        if any(value.varies for value in known):
            second = fold(node, [v.at[1] if isinstance(v, Known) else None for v in inputs], self.opset, room)
        self.folded += sum(value.size for value in first)
        origin = known[0].origin if known and node.op_type in _KEEP_ORIGIN else ""
        return [Known((a, b), origin) for a, b in zip(first, second, strict=True)]


def _converted(call: Call) -> Value | Sequence[Value]:
    """Apply the converter of a node; whatever makes no sense in it is the file's fault."""
    try:
        return OPERATORS[call.node.op_type](call)
    except NONSENSE as error:
        raise ModelError(
            f"node {call.node.name!r} ({call.node.op_type}) makes no sense: {first_line(error)}; "
            "export the network again"
        ) from error


_KEEP_ORIGIN = ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """Return the nodes that `output` depends on, in their order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _attributes(node: onnx.NodeProto) -> Mapping[str, object]:
    """Return the attributes of a node, text decoded."""
    pairs = [(item.name, onnx.helper.get_attribute_value(item)) for item in node.attribute]
    return {name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in pairs}


_PARAMETER = re.compile(r"^(\w+(?:\.\w+)*)\.(?:weight|bias|running_mean|running_var|scale)$")


def _layer_name(node: onnx.NodeProto, inputs: Sequence[Value | None]) -> str:
    """Name a layer after its weights (``layer1.0.conv1.weight``), else after its node."""
    weighted = node.op_type in _WEIGHTED
    if weighted:
        for value in inputs:
            if isinstance(value, Known) and (match := _PARAMETER.match(value.origin)):
                return match.group(1)
    text = node.name or f"{node.op_type}_{node.output[0]}"
    if not text.startswith("/"):
        return text.removeprefix("node_")
    *scopes, operator = text.strip("/").split("/")  # "/layer1/layer1.0/conv1/Conv", TorchScript exporter
    path: list[str] = []
    for scope in scopes:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    kind = operator.split("_")[0].lower()
    if not path or not (weighted or kind in path[-1].lower().replace("_", "")):
        path.append(operator)
    return ".".join(path)


_WEIGHTED = frozenset(
    "BatchNormalization Conv ConvTranspose Gemm GroupNormalization LayerNormalization MatMul PRelu".split()  # noqa: SIM905
)


def _check_independence(network: Network) -> None:
    """Run two images together and alone: a file for one batch size may have been written so that they mix."""
    images = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        try:
            together = network.module(images)
        except RuntimeError as error:
            raise ModelError(f"the network does not run on two images: {first_line(error)}") from error
        alone = torch.cat([network.module(images[:1]), network.module(images[1:])])
    if bool(torch.isnan(alone).any()):
        raise ModelError("the network computes NaN from random images; its weights are unsound: export a trained one")
    if together.shape == alone.shape and torch.allclose(
        together, alone, rtol=0, atol=_INDEPENDENCE_TOLERANCE * float(alone.abs().max())
    ):
        return
    raise ModelError(
        "images of one batch change each other's outputs: the file holds for one batch size only; "
        "re-export with a dynamic batch axis (dynamic_axes or dynamic_shapes)"
    )
