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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LatencyTableError
from autoprune.latency_tables import _onnx_wire as wire
from autoprune.latency_tables._unit_graph import QuantizedGraph, UnitGraph
from autoprune.latency_tables.unit import Unit

#: Ways of computing that units can be timed in, by name.
_GRAPHS = {"fp32": UnitGraph, "int8": QuantizedGraph}

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
    feeds: Mapping[str, wire.Values]
    units: tuple[Unit, ...]


def unit_model(units: Sequence[Unit], *, batch: int = 1, precision: str = "fp32") -> UnitModel:
    """Write one model that runs all units one after the other, in their order.

    The same unit may be there several times.

    Args:
        units: With their channel counts.
        batch: Images per inference.
        precision: Of weights and activations, ``fp32`` or ``int8``.

    Raises:
        LatencyTableError: Another precision, or a unit that cannot be run: no channels, not divisible by its groups,
            an empty output, or a depthwise, pooling or elementwise unit whose channels change.

    """
    assert batch >= 1
    for unit in units:
        check_unit(unit)
    graph = _graph(precision, batch)
    for index, unit in enumerate(units):
        _write_unit(graph, f"u{index}", unit)
    return UnitModel(graph.file(), graph.feeds, tuple(units))


def chain_model(unit: Unit, length: int, *, batch: int = 1, precision: str = "fp32") -> UnitModel:
    """Write a model in which one unit, with as many channels and pixels leaving as entering, follows itself."""
    assert unit.c_in == unit.c_out
    assert unit.input_hw == unit.output_hw
    assert not unit.add
    graph = _graph(precision, batch)
    tensor = graph.image("u0.feed", unit.c_in, unit.input_hw)
    for index in range(length):
        tensor = _activated(graph, f"u{index}.core.act", unit, _weighted(graph, f"u{index}.core", unit, tensor))
    graph.drain(f"u{length - 1}.drain", tensor, unit.c_out, unit.output_hw)
    return UnitModel(graph.file(), graph.feeds, (unit,) * length)


def place_of(name: str) -> tuple[int, str] | None:
    """Return the unit that a node of an optimised model belongs to, and its part: feed, operand, core or drain.

    None for nodes whose names the runtime made up.
    """
    found = _PLACE.search(name)
    return (int(found[1]), found[2]) if found else None


def working_bytes(unit: Unit) -> int:
    """Return the bytes of a unit's weights and of the tensors it reads and writes, for one image, in float32."""
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


def _graph(precision: str, batch: int) -> UnitGraph:
    """Return an empty model of this precision."""
    if precision not in _GRAPHS:
        raise LatencyTableError(f"precision: expected one of {', '.join(_GRAPHS)}; found {precision!r}")
    return _GRAPHS[precision](batch)


def _write_unit(graph: UnitGraph, name: str, unit: Unit) -> None:
    """Add one unit with its feed and its drain."""
    if unit.op == "linear":
        source = graph.vector(f"{name}.feed", unit.c_in)
        operand = graph.vector(f"{name}.operand", unit.c_out) if unit.add else None
    else:
        source = graph.image(f"{name}.feed", unit.c_in, unit.input_hw)
        operand = graph.image(f"{name}.operand", unit.c_out, unit.output_hw) if unit.add else None
    result = _weighted(graph, f"{name}.core", unit, source)
    if operand is not None:
        result = graph.operator("Add", f"{name}.core.add", [result, operand])
    result = _activated(graph, f"{name}.core.act", unit, result)
    assert result != source, "check_unit lets only units through that do something"
    if unit.op == "linear":
        graph.put_out(result, unit.c_out)
        return
    graph.drain(f"{name}.drain", result, unit.c_out, unit.output_hw)


def _weight_shape(unit: Unit) -> tuple[int, ...]:
    """Return the shape of a unit's weights; ``(0,)`` where it has none."""
    if unit.op == "conv":
        return (unit.c_out, unit.c_in // unit.groups, *unit.kernel)
    if unit.op == "depthwise":
        return (unit.c_out, 1, *unit.kernel)
    return (unit.c_out, unit.c_in) if unit.op == "linear" else (0,)


def _weighted(graph: UnitGraph, name: str, unit: Unit, source: str) -> str:
    """Add the layer itself, without what follows it; return its output."""
    if unit.op == "elementwise":
        return source
    if unit.op == "pool":
        if unit.kernel == (0, 0):
            return graph.operator("GlobalAveragePool", name, [source])
        return graph.operator(
            "MaxPool",
            name,
            [source],
            kernel_shape=unit.kernel,
            strides=unit.stride,
            pads=unit.padding,
            dilations=unit.dilation,
        )
    parameters = [graph.weight(f"{name}.weight", _weight_shape(unit)), graph.bias(f"{name}.bias", unit.c_out)]
    if unit.op == "linear":
        return graph.operator("Gemm", name, [source], parameters, transB=1)
    return graph.operator(
        "Conv",
        name,
        [source],
        parameters,
        group=unit.c_in if unit.op == "depthwise" else unit.groups,
        kernel_shape=unit.kernel,
        strides=unit.stride,
        pads=unit.padding,
        dilations=unit.dilation,
    )


def _activated(graph: UnitGraph, name: str, unit: Unit, source: str) -> str:
    """Add the activation; return its output. An unknown one costs nothing, but where it is all there is."""
    kind, alone = unit.activation, unit.op == "elementwise" and not unit.add
    if kind in ("relu", "relu6") and graph.drops_clips and not alone:
        return source
    if kind in ("relu", "sigmoid"):
        return graph.operator({"relu": "Relu", "sigmoid": "Sigmoid"}[kind], name, [source])
    if kind == "relu6":
        ends = [graph.constant(f"{name}.{end}", np.array(end, np.float32)) for end in (0, 6)]
        return graph.operator("Clip", name, [source], ends)
    if kind == "hardswish":
        return graph.operator("HardSwish", name, [source])
    if kind == "silu":
        return graph.operator("Mul", f"{name}.product", [source, graph.operator("Sigmoid", name, [source])])
    if kind == "leakyrelu":
        return graph.operator("LeakyRelu", name, [source], alpha=0.01)
    if kind == "prelu":
        shape = (unit.c_out,) if unit.op == "linear" else (unit.c_out, 1, 1)
        return graph.operator("PRelu", name, [source], [graph.constant(f"{name}.slope", _slopes(shape))])
    return graph.operator("Abs", name, [source]) if alone else source


def _slopes(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the slopes of a PReLU."""
    return np.full(shape, 0.25, np.float32)
