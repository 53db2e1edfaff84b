"""What a converter of the tracer sees of one call: its inputs, its output's shape, and where to put layers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from autoprune.errors import ModelError, UnsupportedOperatorError
from autoprune.network.layers import Constant, Reshape
from autoprune.network.network import NetworkBuilder, Shape

#: The two batch sizes the original runs with; a dimension whose size follows them is the batch.
BATCHES = (2, 3)


class BatchDependent:
    """Stands for a number that is not the same at every batch size; converters refuse to compute with it."""

    def __repr__(self) -> str:
        return "a number that depends on the batch"


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """One tensor of the original network.

    Attributes:
        shape: Its shape at the first of :data:`BATCHES`.
        batch_dim: The dimension that follows the batch; None if none does.
        node: The node of the new graph that computes it; None for constants and for descriptions of outputs.
        constant: Its value if it does not depend on the image, with a batch of 1 in `batch_dim`.
        label: Dotted name of the parameter or buffer that a constant is.

    """

    shape: Shape
    batch_dim: int | None
    node: fx.Node | None = None
    constant: Tensor | None = None
    label: str | None = None

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def literal(self) -> Shape:
        """Shape with -1 in place of the batch."""
        return tuple(-1 if dim == self.batch_dim else size for dim, size in enumerate(self.shape))

    def dim(self, index: int) -> int:
        """Return a dimension index, counted from the front."""
        return index % self.rank


Output = Value | tuple[Value, ...]


class Claims:
    """Remembers which call owns which weights: a canonical network has each weight once."""

    def __init__(self) -> None:
        self._owners: dict[int, tuple[str, fx.Node]] = {}

    def add(self, name: str, call: fx.Node, tensors: Iterable[Tensor]) -> None:
        """Record that `call`, a use of the layer `name`, uses `tensors`.

        Raises:
            ModelError: One of the tensors was used by another call.

        """
        for tensor in tensors:
            owner, first = self._owners.setdefault(id(tensor), (name, call))
            if first is not call:
                with_whom = f" with {owner!r}" if owner != name else ""
                raise ModelError(
                    f"layer {name!r} shares its weights{with_whom} between several places of the network; "
                    "pruning needs one layer per place: give each place its own copy of the weights"
                )


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function, method or layer in the original network.

    Attributes:
        builder: Receives the canonical layers.
        claims: Owners of weights.
        constants: Nodes of the constants that were needed so far; grows.
        node: The call in the traced graph.
        name: Dotted name for the layers that replace it.
        operator: Name of the function, method or layer type, for messages.
        output: Description of what the call returns.

    """

    builder: NetworkBuilder
    claims: Claims
    constants: dict[Value, fx.Node]
    node: fx.Node
    name: str
    operator: str
    output: Output

    @property
    def result(self) -> Value:
        """Description of the only tensor the call returns."""
        if not isinstance(self.output, Value):
            raise self.unsupported("several tensors are returned where one is expected")
        return self.output

    def unsupported(self, reason: str) -> UnsupportedOperatorError:
        """Return the error that names this call and says why it cannot be converted."""
        return UnsupportedOperatorError(f"node {self.name!r} ({self.operator}): {reason}")

    def emit(self, layer: nn.Module, *inputs: Value, like: Value | None = None) -> Value:
        """Append `layer`; the result has the shape of `like` (by default what the call returns)."""
        shape = self.result if like is None else like
        node = self.builder.add(layer, *(self.computed(value) for value in inputs), name=self.name)
        return replace(shape, node=node, constant=None)

    def computed(self, value: Value) -> fx.Node:
        """Return the node that holds `value`; constants become a node here."""
        if value.node is not None:
            return value.node
        assert value.constant is not None, f"{self.name}: a value without node and constant"
        if value not in self.constants:
            if value.constant.is_complex():
                raise self.unsupported("complex numbers")
            tensor = value.constant.detach().to(torch.float32).clone()
            name = value.label or f"{self.name}_constant"
            self.constants[value] = self.builder.add(Constant(tensor), name=name)
        return self.constants[value]

    def reshape(self, x: Value, to: Value | None = None) -> Value:
        """View `x` with the shape of `to` (by default what the call returns); no layer if it has that shape."""
        target = self.result if to is None else to
        if target.literal == x.literal:
            return x
        if target.batch_dim is None:
            raise self.unsupported(f"shape {target.shape} has no dimension that follows the batch")
        return self.emit(Reshape(target.literal), x, like=target)

    def number(self, value: object, what: str = "the operand") -> float:
        """Return a literal number.

        Raises:
            UnsupportedOperatorError: `value` is a tensor, or depends on the batch.

        """
        if isinstance(value, int | float):  # bool included, as in PyTorch
            return value
        raise self.unsupported(f"{what} must be a number known beforehand, found {_describe(value)}")

    def whole(self, value: object, what: str = "the size") -> int:
        """Return a literal whole number."""
        return int(self.number(value, what))

    def pair(self, value: object, what: str) -> tuple[int, int]:
        """Return two whole numbers, from one or two."""
        if isinstance(value, tuple | list):
            items = [self.whole(item, what) for item in value]
            if len(items) not in (1, 2):
                raise self.unsupported(f"{what} must be one or two numbers, found {tuple(items)}")
            return items[0], items[-1]
        return self.whole(value, what), self.whole(value, what)

    def tensor(self, value: object, what: str) -> Value:
        """Return an operand that must be a tensor."""
        if isinstance(value, Value):
            return value
        raise self.unsupported(f"{what} must be a tensor, found {_describe(value)}")

    def weight(self, value: object, what: str) -> Tensor:
        """Return the value of a tensor that does not depend on the image, as a copy."""
        if isinstance(value, Value) and value.constant is not None and value.batch_dim is None:
            if isinstance(value.constant, nn.Parameter):
                self.claims.add(self.name, self.node, [value.constant])
            return value.constant.detach().to(torch.float32).clone()
        raise self.unsupported(f"{what} must not depend on the image, found {_describe(value)}")

    def scalar(self, number: float) -> Value:
        """Return a constant without dimensions."""
        return Value((), None, constant=torch.tensor(float(number)))

    def not_batch(self, x: Value, dims: Sequence[int], action: str) -> tuple[int, ...]:
        """Return `dims` counted from the front; none of them may be the batch."""
        result = tuple(x.dim(dim) for dim in dims)
        if x.batch_dim in result:
            raise self.unsupported(f"{action} along the batch")
        return result


def _describe(value: object) -> str:
    """Say in a word or two what an argument is."""
    if isinstance(value, Value):
        return "a constant tensor" if value.constant is not None else "a computed tensor"
    return repr(value)
