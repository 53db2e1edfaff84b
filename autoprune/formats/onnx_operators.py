"""The table of supported ONNX operators, and the converters of the simple ones: activations and arithmetic."""

import numpy as np
from torch import nn

from autoprune.formats import _onnx_layers as layers
from autoprune.formats import _onnx_movement as movement
from autoprune.formats import _onnx_shapes as shapes
from autoprune.formats import _onnx_spatial as spatial
from autoprune.formats._onnx_call import Active, Call, Converter, Known, Value
from autoprune.formats._onnx_fold import FOLDABLE
from autoprune.network.layers import Add, Div, Mul, Sub


def _activation(make: type[nn.Module]) -> Converter:
    """Return the converter of an activation without settings."""

    def convert(call: Call) -> Value:
        return call.add(make(), call.active(0))

    return convert


def _arithmetic(make: type[nn.Module]) -> Converter:
    """Return the converter of ``a op b``; constants become layers."""

    def convert(call: Call) -> Value:
        a, b = call.active(0), call.active(1)
        return call.add(make(), a, b)

    return convert


def _same(call: Call) -> Value:
    """Drop an operator that does nothing at inference; refuse one that trains."""
    if call.node.op_type == "Dropout" and call.has(2) and bool(call.known(2, "training_mode").any()):
        raise call.unsupported("is in training mode; export the network after model.eval()")
    return call.active(0)


def _cast(call: Call) -> Value:
    """Drop casts between floating-point types."""
    target = int(call.attributes.get("to", 1))
    if target not in (1, 10, 11):  # float, float16, double
        raise call.unsupported("casts an activation to other than floats; only floating-point networks are supported")
    return call.active(0)


def _clip(call: Call) -> Value:
    """Clip: ReLU6, ReLU or Hardtanh."""
    low, high = call.optional(1, "min"), call.optional(2, "max")
    least = float(low.ravel()[0]) if low is not None and low.size else float("-inf")
    most = float(high.ravel()[0]) if high is not None and high.size else float("inf")
    if least >= most:
        raise call.unsupported(f"min {least} is not below max {most}")
    if least == float("-inf") and most == float("inf"):
        return call.active(0)
    if least == 0 and most >= np.finfo(np.float32).max:
        return call.add(nn.ReLU(), call.active(0))
    layer = nn.ReLU6() if (least, most) == (0, 6) else nn.Hardtanh(least, most)
    return call.add(layer, call.active(0))


def _elu(call: Call) -> Value:
    """Elu."""
    return call.add(nn.ELU(float(call.attributes.get("alpha", 1.0))), call.active(0))


def _gelu(call: Call) -> Value:
    """Gelu, exact or by tanh."""
    return call.add(nn.GELU(call.attributes.get("approximate", "none")), call.active(0))


def _hard_sigmoid(call: Call) -> Value:
    """HardSigmoid: PyTorch's own where the slope is 1/6, a clamped line otherwise."""
    slope, offset = float(call.attributes.get("alpha", 0.2)), float(call.attributes.get("beta", 0.5))
    x = call.active(0)
    if abs(slope - 1 / 6) < 1e-6 and offset == 0.5:
        return call.add(nn.Hardsigmoid(), x)
    line = call.add(Mul(), x, call.constant(np.array(slope)))
    return call.add(nn.Hardtanh(0.0, 1.0), call.add(Add(), line, call.constant(np.array(offset))))


def _leaky_relu(call: Call) -> Value:
    """LeakyRelu."""
    return call.add(nn.LeakyReLU(float(call.attributes.get("alpha", 0.01))), call.active(0))


def _negative(call: Call) -> Value:
    """Neg: times -1."""
    return call.add(Mul(), call.active(0), call.constant(np.array(-1)))


def _power(call: Call) -> Value:
    """Pow with exponent 1, 2 or 3: products."""
    x, exponent = call.active(0), call.known(1, "the exponent")
    if exponent.size != 1 or float(exponent.ravel()[0]) not in (1, 2, 3):
        raise call.unsupported("only the exponents 1, 2 and 3 are supported")
    y = x
    for _ in range(int(exponent.ravel()[0]) - 1):
        y = call.add(Mul(), y, x)
    return y


def _prelu(call: Call) -> Value:
    """PRelu with one slope, or one per channel."""
    x, slope = call.active(0), call.known(1, "the slope")
    channels = x.shapes[0][1] if x.rank > 1 else 1
    shape = (1,) * (x.rank - slope.ndim) + slope.shape
    if slope.size != 1 and (len(shape) < 2 or slope.size != channels or shape[1] != channels):
        raise call.unsupported(f"slopes of shape {slope.shape}; one slope, or one per channel, is supported")
    return call.add(layers.load(nn.PReLU(slope.size), weight=slope.ravel()), x)


def _softmax(call: Call) -> Value:
    """Softmax along any dimension but the batch."""
    x = call.active(0)
    dim = call.axis(x, int(call.attributes.get("axis", -1)))
    call.refuse_batch(x, [dim])
    return call.add(nn.Softmax(dim), x)


def _sum(call: Call) -> Value:
    """Sum of any number of tensors: additions."""
    total = call.active(0)
    for i in range(1, len(call.inputs)):
        total = call.add(Add(), total, call.active(i))
    return total


def _shape_of(call: Call) -> Value:
    """Shape of an activation: known at each of the two batch sizes."""
    x = call.inputs[0]
    assert isinstance(x, Active)
    end = call.attributes.get("end")
    part = slice(int(call.attributes.get("start", 0)), None if end is None else int(end))
    first, second = (np.array(shape[part], dtype=np.int64) for shape in x.shapes)
    return Known((first, second))


def _size_of(call: Call) -> Value:
    """Size of an activation: known at each of the two batch sizes."""
    x = call.inputs[0]
    assert isinstance(x, Active)
    first, second = (np.array(np.prod(shape), dtype=np.int64) for shape in x.shapes)
    return Known((first, second))


#: Converter of every operator that may be applied to activations.
OPERATORS: dict[str, Converter] = {
    "Add": _arithmetic(Add),
    "AveragePool": spatial.average_pool,
    "BatchNormalization": layers.batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": movement.concat,
    "Conv": layers.conv,
    "ConvTranspose": layers.conv_transpose,
    "DepthToSpace": shapes.depth_to_space,
    "Div": _arithmetic(Div),
    "Dropout": _same,
    "Elu": _elu,
    "Expand": shapes.expand,
    "Flatten": shapes.flatten,
    "Gather": movement.gather,
    "GatherND": movement.gather_nd,
    "Gelu": _gelu,
    "Gemm": layers.gemm,
    "GlobalAveragePool": spatial.global_average_pool,
    "GlobalMaxPool": spatial.global_max_pool,
    "GroupNormalization": layers.group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _activation(nn.Hardswish),
    "Identity": _same,
    "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm,
    "LeakyRelu": _leaky_relu,
    "MatMul": layers.matmul,
    "MaxPool": spatial.max_pool,
    "Mish": _activation(nn.Mish),
    "Mul": _arithmetic(Mul),
    "Neg": _negative,
    "PRelu": _prelu,
    "Pad": movement.pad_op,
    "Pow": _power,
    "ReduceMax": spatial.reduce_max,
    "ReduceMean": spatial.reduce_mean,
    "ReduceSum": spatial.reduce_sum,
    "Relu": _activation(nn.ReLU),
    "Reshape": shapes.reshape_op,
    "Resize": spatial.resize,
    "Shape": _shape_of,
    "Sigmoid": _activation(nn.Sigmoid),
    "Size": _size_of,
    "Slice": movement.slice_op,
    "Softmax": _softmax,
    "Softplus": _activation(nn.Softplus),
    "SpaceToDepth": shapes.space_to_depth,
    "Split": movement.split,
    "Squeeze": shapes.squeeze,
    "Sub": _arithmetic(Sub),
    "Sum": _sum,
    "Tanh": _activation(nn.Tanh),
    "Transpose": shapes.transpose,
    "Unsqueeze": shapes.unsqueeze,
}

#: Every operator a file may contain; those outside :data:`OPERATORS` only where they compute from constants.
SUPPORTED = frozenset(OPERATORS) | FOLDABLE
