"""How much computing and memory a network takes, counted while it is imported and before it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from torch import nn

from autoprune.errors import ModelError
from autoprune.network.layers import MatMul
from autoprune.network.network import Shape

#: Largest activation of one image, in values; larger ones come from broken or hostile files.
MAX_ACTIVATION_VALUES = 2**27

#: Most values of all activations of one image together: 1 GiB as 32-bit floats, four times those of DenseNet-201.
MAX_VALUES = 2**28

#: Most multiplications for one image: about ten times those of ResNet-152 at 224 x 224 pixels.
MAX_OPERATIONS = 2**37


@dataclass(slots=True)
class Effort:
    """What the nodes so far take for one image.

    Attributes:
        operations: Multiplications, about.
        values: Values of all activations.

    """

    operations: int = 0
    values: int = 0

    def spend(self, node: onnx.NodeProto, operations: int, values: int, *, images: int) -> None:
        """Count a layer made of `node`, that takes so much for so many images.

        Raises:
            ModelError: The layer, or the network with it, is larger than a network may be.

        """
        self.operations += operations // images
        self.values += values // images
        name = f"node {node.name!r} ({node.op_type})"
        if values // images > MAX_ACTIVATION_VALUES:
            raise ModelError(
                f"{name} computes {values // images:,} values per image; at most {MAX_ACTIVATION_VALUES:,} are "
                "supported: take smaller images"
            )
        if self.operations > MAX_OPERATIONS or self.values > MAX_VALUES:
            raise ModelError(
                f"up to {name} the network takes {self.operations:,} multiplications and computes {self.values:,} "
                f"values per image; at most {MAX_OPERATIONS:,} and {MAX_VALUES:,} are supported: take smaller images"
            )


def layer_operations(layer: nn.Module, inputs: Sequence[Shape], output: Shape) -> int:
    """Return about how many multiplications a layer takes for `inputs` and `output` of these shapes."""
    values = max(math.prod(shape) for shape in (output, *inputs))
    weight, kernel = getattr(layer, "weight", None), getattr(layer, "kernel_size", None)
    if weight is not None and weight.ndim > 1:
        return values * int(weight[0].numel())
    if kernel is not None:
        return values * math.prod(kernel if isinstance(kernel, tuple) else (kernel, kernel))
    return math.prod(output) * inputs[0][-1] if isinstance(layer, MatMul) else values
