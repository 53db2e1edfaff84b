"""Models of units while they are written: in float32, or quantised to int8 as onnxruntime's own quantiser does it.

Quantised means QDQ: what an operator reads is dequantised and what it makes is quantised, to uint8 with one scale;
weights are int8 with a scale per channel, biases int32. A runtime makes integer kernels of that where it has them. A
ReLU and a clip at 0 behind a layer are left out: storing numbers from 0 on cuts off as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoprune.latency_tables import _onnx_wire as wire

#: Operator set and file version of the models; onnxruntime has read them since 1.12.
OPSET, IR_VERSION = 17, 8

#: Numbers that weights are cut from; their count is prime, so that no two weights of a model are alike.
_NUMBERS = np.random.default_rng(0).uniform(0.001, 0.01, 100_003).astype(np.float32)
_WHOLE_NUMBERS = np.random.default_rng(0).integers(1, 100, 100_003).astype(np.int8)

#: Scale and zero point of quantised activations, and scale of quantised weights: kernels take as long for others.
_SCALE, _ZERO, _WEIGHT_SCALE = 0.02, 128, 0.0001

_UINT8 = np.dtype(np.uint8)

_Number = TypeVar("_Number", np.float32, np.int8)


@dataclass(slots=True)
class UnitGraph:
    """The parts of a model in float32.

    Attributes:
        batch: Images per inference.
        feeds: Inputs to run the model on, by name.
        drops_clips: Whether a ReLU or clip behind a layer is left out, for the layer's output is stored cut off.

    """

    batch: int
    feeds: dict[str, wire.Values] = field(default_factory=dict)
    drops_clips: ClassVar[bool] = False
    _nodes: list[bytes] = field(default_factory=list)
    _inputs: list[bytes] = field(default_factory=list)
    _outputs: list[bytes] = field(default_factory=list)
    _weights: list[bytes] = field(default_factory=list)
    _taken: int = 0

    def file(self) -> bytes:
        """Return the ONNX file."""
        return wire.model(
            nodes=self._nodes,
            inputs=self._inputs,
            outputs=self._outputs,
            initializers=self._weights,
            opset=OPSET,
            ir_version=IR_VERSION,
        )

    def operator(
        self,
        op_type: str,
        name: str,
        sources: Sequence[str],
        parameters: Sequence[str] = (),
        **attributes: wire.Attribute,
    ) -> str:
        """Add an operator on stored tensors and weights; return the name of its output, which is stored."""
        return self._node(op_type, name, *sources, *parameters, **attributes)

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Add weights, the channels that leave first; return their name."""
        return self.constant(name, self._cut(_NUMBERS, shape))

    def bias(self, name: str, channels: int) -> str:
        """Add the bias of a layer; return its name."""
        return self.weight(name, (channels,))

    def constant(self, name: str, values: wire.Values) -> str:
        """Add given values; return their name."""
        self._weights.append(wire.tensor(name, values))
        return name

    def vector(self, name: str, channels: int) -> str:
        """Add an input without pixels; return its name."""
        return self._feed(name, np.full((self.batch, channels), 0.5, np.float32))

    def image(self, name: str, channels: int, size: tuple[int, int]) -> str:
        """Add an image that is made right there, in the runtime's own layout if it has one; return its name."""
        pixel = self._feed(f"{name}.pixel", np.full((self.batch, channels, 1, 1), 0.5, np.float32))
        pooled = self._node("MaxPool", f"{name}.pool", pixel, kernel_shape=(1, 1))
        scales = self.constant(f"{name}.scales", np.array([1, 1, *size], np.float32))
        settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self._node("Resize", f"{name}.spread", pooled, "", scales, **settings)

    def put_out(self, tensor: str, channels: int) -> None:
        """Put out a tensor without pixels."""
        self._outputs.append(wire.value_info(tensor, (self.batch, channels)))

    def drain(self, name: str, tensor: str, channels: int, size: tuple[int, int]) -> None:
        """Put out one pixel of an image of this size."""
        drained = self._node("MaxPool", name, tensor, kernel_shape=(1, 1), strides=size)
        self._outputs.append(wire.value_info(drained, (self.batch, channels, 1, 1)))

    def _node(self, op_type: str, name: str, *inputs: str, **attributes: wire.Attribute) -> str:
        """Add a node with one output; return the output's name."""
        self._nodes.append(wire.node(op_type, name, inputs, [f"{name}.out"], attributes))
        return f"{name}.out"

    def _feed(self, name: str, values: wire.Values) -> str:
        """Add an input; return its name."""
        self._inputs.append(wire.value_info(name, values.shape, values.dtype))
        self.feeds[name] = values
        return name

    def _cut(self, numbers: NDArray[_Number], shape: tuple[int, ...]) -> NDArray[_Number]:
        """Return numbers in an order that no other weight has."""
        self._taken += 1
        return np.resize(np.roll(numbers, -((self._taken - 1) * 7919)), shape)


@dataclass(slots=True)
class QuantizedGraph(UnitGraph):
    """The parts of a model in int8.

    Images are made and drained with their channels last, which is how onnxruntime lays them out between integer
    kernels. What turns them is no part of a unit, and where the runtime turns them back it falls away.
    """

    drops_clips: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.constant("scale", np.array(_SCALE, np.float32))
        self.constant("zero", np.array(_ZERO, np.uint8))

    def operator(
        self,
        op_type: str,
        name: str,
        sources: Sequence[str],
        parameters: Sequence[str] = (),
        **attributes: wire.Attribute,
    ) -> str:
        """Add an operator that reads and makes quantised tensors; return the name of what it makes."""
        read = [
            self._node("DequantizeLinear", f"{name}.dequantize.{index}", source, "scale", "zero")
            for index, source in enumerate(sources)
        ]
        made = self._node(op_type, name, *read, *parameters, **attributes)
        return self._node("QuantizeLinear", f"{name}.quantize", made, "scale", "zero")

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Add int8 weights with a scale per channel that leaves; return the name of what they are dequantised to."""
        return self._parameters(name, self._cut(_WHOLE_NUMBERS, shape), _WEIGHT_SCALE)

    def bias(self, name: str, channels: int) -> str:
        """Add an int32 bias; return the name of what it is dequantised to."""
        values = self._cut(_WHOLE_NUMBERS, (channels,)).astype(np.int32)
        return self._parameters(name, values, _SCALE * _WEIGHT_SCALE)

    def vector(self, name: str, channels: int) -> str:
        """Add a uint8 input without pixels; return its name."""
        return self._feed(name, np.full((self.batch, channels), 192, np.uint8))

    def image(self, name: str, channels: int, size: tuple[int, int]) -> str:
        """Add a uint8 image; return its name."""
        pixel = self._feed(f"{name}.pixel", np.full((self.batch, 1, 1, channels), 192, np.uint8))
        shape = self.constant(f"{name}.shape", np.array([self.batch, *size, channels], np.int64))
        spread = self._node("Expand", f"{name}.spread", pixel, shape)
        return self._node("Transpose", f"{name}.turn", spread, perm=(0, 3, 1, 2))

    def put_out(self, tensor: str, channels: int) -> None:
        """Put out a uint8 tensor without pixels."""
        self._outputs.append(wire.value_info(tensor, (self.batch, channels), _UINT8))

    def drain(self, name: str, tensor: str, channels: int, size: tuple[int, int]) -> None:
        """Put out one pixel of a uint8 image."""
        turned = self._node("Transpose", f"{name}.turn", tensor, perm=(0, 2, 3, 1))
        starts = self.constant(f"{name}.starts", np.array([0, 0], np.int64))
        ends = self.constant(f"{name}.ends", np.array([1, 1], np.int64))
        axes = self.constant(f"{name}.axes", np.array([1, 2], np.int64))
        drained = self._node("Slice", name, turned, starts, ends, axes)
        self._outputs.append(wire.value_info(drained, (self.batch, 1, 1, channels), _UINT8))

    def _parameters(self, name: str, values: wire.Values, scale: float) -> str:
        """Add integer weights and what dequantises them, channel by channel; return the name of its output."""
        parts = [
            self.constant(f"{name}.values", values),
            self.constant(f"{name}.scale", np.full(len(values), scale, np.float32)),
            self.constant(f"{name}.zero", np.zeros(len(values), values.dtype)),
        ]
        return self._node("DequantizeLinear", f"{name}.dequantize", *parts, axis=0)
