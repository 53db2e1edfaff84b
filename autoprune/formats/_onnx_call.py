"""What a converter of one ONNX operator sees: its inputs, its attributes, and where to add layers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import fx, nn

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.formats._onnx_effort import Effort, layer_operations
from autoprune.network.layers import Constant
from autoprune.network.network import NetworkBuilder, Shape

Array = NDArray[Any]

#: What numpy, PyTorch and ONNX raise when the values of a file make no sense to them.
NONSENSE = (ValueError, TypeError, IndexError, KeyError, ArithmeticError, RuntimeError, MemoryError)


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor that does not depend on the image, at each of the two batch sizes the import looks at.

    Attributes:
        at: The tensor at the first and at the second batch size; one object twice where the batch plays no part.
        origin: Name of the initializer it came from, "" if computed.

    """

    at: tuple[Array, Array]
    origin: str = ""

    @property
    def varies(self) -> bool:
        """Whether the tensor depends on the batch size."""
        first, second = self.at
        return first is not second and not (first.shape == second.shape and bool(np.array_equal(first, second)))


@dataclass(frozen=True, slots=True)
class Active:
    """A tensor computed from the image: its graph node, and its shape at each of the two batch sizes."""

    node: fx.Node
    shapes: tuple[Shape, Shape]

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shapes[0])

    def follows_batch(self, dim: int) -> bool:
        """Whether the size of dimension `dim` changes with the batch."""
        return self.shapes[0][dim] != self.shapes[1][dim]


Value = Known | Active


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch sizes an import looks at; `fixed` is the size the file was exported with, None if it is dynamic."""

    sizes: tuple[int, int]
    fixed: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """One ONNX node about to be converted.

    Attributes:
        node: The node.
        inputs: Its inputs; None where an optional one is left out.
        opset: Version of the default operator set.
        batch: The batch sizes looked at.
        builder: Where layers go.
        name: Dotted name for the layers of this node.
        effort: What the network takes so far; shared by all nodes.
        attributes: The node's attributes by name, text decoded.

    """

    node: onnx.NodeProto
    inputs: tuple[Value | None, ...]
    opset: int
    batch: Batch
    builder: NetworkBuilder
    name: str
    effort: Effort
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def unsupported(self, reason: str) -> UnsupportedOperatorError:
        """Return the error to raise for a form of this operator that is not supported."""
        return UnsupportedOperatorError(f"node {self.node.name!r} ({self.node.op_type}): {reason}")

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def known(self, index: int, what: str) -> Array:
        """Return input `index`, which must be a constant; `what` names it in the error."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.unsupported(f"{what} is missing")
        if isinstance(value, Active) or value.varies:
            raise self.unsupported(f"{what} must be a constant, it is computed from the image or the batch size")
        return value.at[0]

    def optional(self, index: int, what: str) -> Array | None:
        """Return input `index`, a constant, or None where it is left out."""
        return self.known(index, what) if self.has(index) else None

    def ints(self, index: int, attribute: str, what: str) -> list[int] | None:
        """Return integers from input `index` or, in older operator sets, from an attribute; None if not given."""
        value = self.optional(index, what)
        if value is not None:
            return [int(item) for item in value.ravel()]
        given = self.attributes.get(attribute)
        return None if given is None else [int(item) for item in given]

    def active(self, index: int) -> Active:
        """Return input `index` as an activation; a constant becomes a :class:`Constant` layer."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.unsupported(f"input {index} is missing")
        return value if isinstance(value, Active) else self.constant(self.without_batch(value), value.origin)

    def without_batch(self, value: Known) -> Array:
        """Return a constant free of the batch: one that is only repeated for each image loses the repetition."""
        first, second = value.at
        if not value.varies:
            fixed = self.batch.fixed
            repeated = fixed and fixed > 1 and first.ndim > 1 and first.shape[0] == fixed
            return first[:1] if repeated and np.array_equal(first, np.broadcast_to(first[:1], first.shape)) else first
        if first.ndim and first.shape[1:] == second.shape[1:]:
            row = first[:1]
            if all(np.array_equal(array, np.broadcast_to(row, array.shape)) for array in value.at):
                return row
        raise self.unsupported("a constant takes other values at other batch sizes; only repetition is supported")

    def constant(self, value: Array, name: str = "") -> Active:
        """Add a constant layer of 32-bit floats."""
        tensor = torch.from_numpy(np.array(value, dtype=np.float32))
        return self.add(Constant(tensor), name=name if "." in name else f"{self.name}_constant")

    def add(self, layer: nn.Module, *inputs: Active, name: str = "") -> Active:
        """Add `layer`, applied to `inputs`, and work out its shapes without computing."""
        try:
            first, second = (_output_shape(layer, [value.shapes[i] for value in inputs]) for i in (0, 1))
        except NONSENSE as error:
            shapes = ", ".join(str(value.shapes[0]) for value in inputs)
            raise ModelError(
                f"node {self.node.name!r} ({self.node.op_type}) does not fit its inputs of shapes {shapes}: "
                f"{first_line(error)}"
            ) from error
        entering = [value.shapes[0] for value in inputs]
        self.effort.spend(
            self.node, layer_operations(layer, entering, first), math.prod(first), images=self.batch.sizes[0]
        )
        node = self.builder.add(layer.eval(), *(value.node for value in inputs), name=name or self.name)
        return Active(node, (first, second))

    def refuse_batch(self, value: Active, dims: Sequence[int]) -> None:
        """Refuse to work along a dimension that follows the batch."""
        if any(value.follows_batch(dim) for dim in dims):
            raise self.unsupported(f"works along the batch (axes {list(dims)}); images must not influence each other")

    def axis(self, value: Active, axis: int) -> int:
        """Return `axis` counted from the front."""
        if not -value.rank <= axis < value.rank:
            raise self.unsupported(f"axis {axis} is not in a tensor of {value.rank} dimensions")
        return axis % value.rank


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".;")


Converter = Callable[[Call], Value | Sequence[Value]]


def _output_shape(layer: nn.Module, shapes: Sequence[Shape]) -> Shape:
    """Run a layer on tensors without data."""
    state = {name: tensor.to("meta") for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]}
    inputs = tuple(torch.empty(shape, device="meta") for shape in shapes)
    with torch.no_grad():
        return tuple(torch.func.functional_call(layer.eval(), state, inputs).shape)
