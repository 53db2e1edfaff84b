"""ONNX models that hold many fused units side by side, so that one session times them in turn.

A unit stands between a *feed* and a *drain* that cost next to nothing and that a runtime with blocked layouts takes
into its layout as well, as it does with the neighbours in a network: one pixel per channel goes through a 1x1 max pool
and is spread over the image (written right before the unit reads it, as the layer before would do), and a max pool that
skips all but one pixel takes the output. So no copying between layouts is needed, and an addition gets a second operand
that can be fused.

Nodes and tensors of unit 7 begin with ``u7.``, what is timed with ``u7.core``; :func:`place_of` finds that again in the
names that onnxruntime gives to fused nodes. Values are of no concern: they are small, finite and not zero.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LatencyTableError
from autoprune.latency_tables import _onnx_wire as wire
from autoprune.latency_tables.unit import Unit

#: Operator set and file version of the models; onnxruntime has read them since 1.12.
OPSET, IR_VERSION = 17, 8

#: Numbers that weights are cut from; its length is prime, so that no two weights of a model are alike.
_NUMBERS = np.random.default_rng(0).uniform(0.001, 0.01, 100_003).astype(np.float32)

_PLACE = re.compile(r"(?<![A-Za-z0-9])u(\d+)\.(feed|operand|core|drain)(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class UnitModel:
    """A model of several units.

    Attributes:
        data: The ONNX file.
        feeds: Inputs to run it on, by name.
        units: What it holds; a unit's place is its number in the names of nodes.

    """

    data: bytes
    feeds: Mapping[str, NDArray[np.float32]]
    units: tuple[Unit, ...]


def unit_model(units: Sequence[Unit], *, batch: int = 1) -> UnitModel:
    """Write one model that runs all units one after the other, in their order.

    The same unit may be there several times.

    Args:
        units: With their channel counts.
        batch: Images per inference.

    Raises:
        LatencyTableError: A unit cannot be run: no channels, not divisible by its groups, an empty output, or a
            depthwise, pooling or elementwise unit whose channels change.

    """
    assert batch >= 1
    for unit in units:
        check_unit(unit)
    graph = _Graph(batch)
    for index, unit in enumerate(units):
        _write_unit(graph, f"u{index}", unit)
    return UnitModel(graph.file(), graph.feeds, tuple(units))


def chain_model(unit: Unit, length: int, *, batch: int = 1) -> UnitModel:
    """Write a model in which one unit, with as many channels and pixels leaving as entering, follows itself."""
    assert unit.c_in == unit.c_out
    assert unit.input_hw == unit.output_hw
    assert not unit.add
    graph = _Graph(batch)
    tensor = graph.image("u0.feed", unit.c_in, unit.input_hw)
    for index in range(length):
        tensor = _activated(graph, f"u{index}.core.act", unit, _weighted(graph, f"u{index}.core", unit, tensor))
    _drain(graph, f"u{length - 1}", unit, tensor)
    return UnitModel(graph.file(), graph.feeds, (unit,) * length)


def place_of(name: str) -> tuple[int, str] | None:
    """Return the unit that a node of an optimised model belongs to, and its part: feed, operand, core or drain.

    None for nodes whose names the runtime made up.
    """
    found = _PLACE.search(name)
    return (int(found[1]), found[2]) if found else None


def working_bytes(unit: Unit) -> int:
    """Return the bytes of a unit's weights and of the tensors it reads and writes, for one image."""
    rows, columns = unit.output_hw
    out = unit.c_out * rows * columns * (2 if unit.add else 1)
    return 4 * (math.prod(_weight_shape(unit)) + unit.c_in * math.prod(unit.input_hw) + out)


def check_unit(unit: Unit) -> None:
    """Refuse what cannot be run; errors as of :func:`unit_model`."""
    if min(unit.c_in, unit.c_out, *unit.input_hw) < 1:
        raise LatencyTableError(f"{unit}: a unit that is timed has at least one channel and pixel")
    if unit.op in ("conv", "linear") and (unit.groups < 1 or unit.c_in % unit.groups or unit.c_out % unit.groups):
        raise LatencyTableError(f"{unit}: channel counts must be multiples of the {unit.groups} groups")
    if unit.op not in ("conv", "linear") and unit.c_in != unit.c_out:
        raise LatencyTableError(f"{unit}: as many channels must leave a unit of this kind as enter")
    if min(unit.stride) < 1 or min(unit.dilation) < 1 or min(unit.output_hw) < 1:
        raise LatencyTableError(f"{unit}: its output is empty")


@dataclass(slots=True)
class _Graph:
    """The parts of a model while it is written."""

    batch: int
    nodes: list[bytes] = field(default_factory=list)
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)
    feeds: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    taken: int = 0

    def file(self) -> bytes:
        """Return the ONNX file."""
        return wire.model(
            nodes=self.nodes,
            inputs=self.inputs,
            outputs=self.outputs,
            initializers=self.weights,
            opset=OPSET,
            ir_version=IR_VERSION,
        )

    def node(self, op_type: str, name: str, *inputs: str, **attributes: wire.Attribute) -> str:
        """Add a node with one output; return the output's name."""
        self.nodes.append(wire.node(op_type, name, inputs, [f"{name}.out"], attributes))
        return f"{name}.out"

    def weight(self, name: str, shape: tuple[int, ...]) -> str:
        """Add weights; return their name."""
        values = np.resize(np.roll(_NUMBERS, -(self.taken * 7919)), shape)
        self.taken += 1
        self.weights.append(wire.tensor(name, values))
        return name

    def constant(self, name: str, values: NDArray[np.float32] | NDArray[np.int64]) -> str:
        """Add given values; return their name."""
        self.weights.append(wire.tensor(name, values))
        return name

    def feed(self, name: str, shape: tuple[int, ...]) -> str:
        """Add an input; return its name."""
        self.inputs.append(wire.value_info(name, shape))
        self.feeds[name] = np.full(shape, 0.5, np.float32)
        return name

    def image(self, name: str, channels: int, size: tuple[int, int]) -> str:
        """Add an image that is made right there, in the runtime's own layout if it has one; return its name."""
        pixel = self.feed(f"{name}.pixel", (self.batch, channels, 1, 1))
        pooled = self.node("MaxPool", f"{name}.pool", pixel, kernel_shape=(1, 1))
        scales = self.constant(f"{name}.scales", np.array([1, 1, *size], np.float32))
        settings = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", f"{name}.spread", pooled, "", scales, **settings)


def _write_unit(graph: _Graph, name: str, unit: Unit) -> None:
    """Add one unit with its feed and its drain."""
    if unit.op == "linear":
        source = graph.feed(f"{name}.pixel", (graph.batch, unit.c_in))
        operand = graph.feed(f"{name}.operand", (graph.batch, unit.c_out)) if unit.add else None
    else:
        source = graph.image(f"{name}.feed", unit.c_in, unit.input_hw)
        operand = graph.image(f"{name}.operand", unit.c_out, unit.output_hw) if unit.add else None
    result = _weighted(graph, f"{name}.core", unit, source)
    if operand is not None:
        result = graph.node("Add", f"{name}.core.add", result, operand)
    result = _activated(graph, f"{name}.core.act", unit, result)
    assert result != source, "check_unit lets only units through that do something"
    if unit.op == "linear":
        graph.outputs.append(wire.value_info(result, (graph.batch, unit.c_out)))
        return
    _drain(graph, name, unit, result)


def _drain(graph: _Graph, name: str, unit: Unit, tensor: str) -> None:
    """Put out one pixel of a unit's output."""
    drained = graph.node("MaxPool", f"{name}.drain", tensor, kernel_shape=(1, 1), strides=unit.output_hw)
    graph.outputs.append(wire.value_info(drained, (graph.batch, unit.c_out, 1, 1)))


def _weight_shape(unit: Unit) -> tuple[int, ...]:
    """Return the shape of a unit's weights; ``(0,)`` where it has none."""
    if unit.op == "conv":
        return (unit.c_out, unit.c_in // unit.groups, *unit.kernel)
    if unit.op == "depthwise":
        return (unit.c_out, 1, *unit.kernel)
    return (unit.c_out, unit.c_in) if unit.op == "linear" else (0,)


def _weighted(graph: _Graph, name: str, unit: Unit, source: str) -> str:
    """Add the layer itself, without what follows it; return its output."""
    if unit.op == "elementwise":
        return source
    if unit.op == "pool":
        if unit.kernel == (0, 0):
            return graph.node("GlobalAveragePool", name, source)
        settings = {"kernel_shape": unit.kernel, "strides": unit.stride, "pads": unit.padding}
        return graph.node("MaxPool", name, source, **settings, dilations=unit.dilation)
    weight = graph.weight(f"{name}.weight", _weight_shape(unit))
    bias = graph.weight(f"{name}.bias", (unit.c_out,))
    if unit.op == "linear":
        return graph.node("Gemm", name, source, weight, bias, transB=1)
    return graph.node(
        "Conv",
        name,
        source,
        weight,
        bias,
        group=unit.c_in if unit.op == "depthwise" else unit.groups,
        kernel_shape=unit.kernel,
        strides=unit.stride,
        pads=unit.padding,
        dilations=unit.dilation,
    )


def _activated(graph: _Graph, name: str, unit: Unit, source: str) -> str:
    """Add the activation; return its output. An unknown one costs nothing, but where it is all there is."""
    kind = unit.activation
    if kind in ("relu", "sigmoid"):
        return graph.node({"relu": "Relu", "sigmoid": "Sigmoid"}[kind], name, source)
    if kind == "relu6":
        low = graph.constant(f"{name}.low", np.array(0, np.float32))
        return graph.node("Clip", name, source, low, graph.constant(f"{name}.high", np.array(6, np.float32)))
    if kind == "hardswish":
        return graph.node("HardSwish", name, source)
    if kind == "silu":
        return graph.node("Mul", f"{name}.product", source, graph.node("Sigmoid", name, source))
    if kind == "leakyrelu":
        return graph.node("LeakyRelu", name, source, alpha=0.01)
    if kind == "prelu":
        spread = (1,) * (0 if unit.op == "linear" else 2)
        return graph.node("PRelu", name, source, graph.weight(f"{name}.slope", (unit.c_out, *spread)))
    if unit.op == "elementwise" and not unit.add:
        return graph.node("Abs", name, source)
    return source
