"""What a writer of ONNX sees of one layer, and where it puts its nodes and weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, numpy_helper
from torch import Tensor

from autoprune.errors import UnsupportedOperatorError
from autoprune.network.network import Shape

Attribute = int | float | str | Sequence[int] | Sequence[float]


@dataclass(slots=True)
class GraphParts:
    """The file in the making: nodes in execution order, and weights."""

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Call:
    """One layer applied to its inputs.

    Attributes:
        parts: Receives nodes and weights.
        name: Dotted name of the layer; its nodes and weights are named after it.
        inputs: Names of the input tensors.
        shapes: Their shapes at batch size 1.
        output: Name of the tensor to compute.
        shape: Its shape at batch size 1.

    """

    parts: GraphParts
    name: str
    inputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    output: str
    shape: Shape

    @property
    def opset(self) -> int:
        """Version of the operator set to write."""
        return self.parts.opset

    @property
    def x(self) -> str:
        """Name of the first input."""
        return self.inputs[0]

    @property
    def rank(self) -> int:
        """Number of dimensions of the first input."""
        return len(self.shapes[0])

    def unsupported(self, reason: str) -> UnsupportedOperatorError:
        """Return the error that names this layer and says why it cannot be written."""
        return UnsupportedOperatorError(f"layer {self.name!r} cannot be exported to ONNX: {reason}")

    def last(self, op_type: str, *inputs: str, **attributes: Attribute) -> None:
        """Add the node that computes the layer's output."""
        self._node(op_type, inputs, self.output, self.name, attributes)

    def step(self, suffix: str, op_type: str, *inputs: str, **attributes: Attribute) -> str:
        """Add an intermediate node called ``<name>.<suffix>``; return the tensor that it computes."""
        output = f"{self.name}.{suffix}.output"
        self._node(op_type, inputs, output, f"{self.name}.{suffix}", attributes)
        return output

    def weight(self, suffix: str, tensor: Tensor) -> str:
        """Store a weight as float32 under ``<name>.<suffix>``; return its name."""
        return self.array(suffix, tensor.detach().cpu().float().numpy())

    def array(self, suffix: str, values: NDArray[np.generic]) -> str:
        """Store an array under ``<name>.<suffix>``; return its name."""
        name = f"{self.name}.{suffix}"
        self.parts.weights.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name

    def integers(self, suffix: str, values: Sequence[int]) -> str:
        """Store whole numbers, as shapes and axes are; return their name."""
        return self.array(suffix, np.array(values, dtype=np.int64))

    def number(self, suffix: str, value: ArrayLike) -> str:
        """Store a float32 number without dimensions; return its name."""
        return self.array(suffix, np.array(value, dtype=np.float32))

    def _node(
        self, op_type: str, inputs: Sequence[str], output: str, name: str, attributes: dict[str, Attribute]
    ) -> None:
        node = onnx.helper.make_node(op_type, list(inputs), [output], name=name)
        node.attribute.extend(onnx.helper.make_attribute(key, value) for key, value in attributes.items())
        self.parts.nodes.append(node)
