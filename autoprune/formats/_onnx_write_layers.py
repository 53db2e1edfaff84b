"""How each canonical layer is written to ONNX: one entry per type in :data:`autoprune.network.layers.LAYERS`."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.formats import _onnx_write_pooling as pooling
from autoprune.formats._onnx_write import Call
from autoprune.formats._onnx_write_pooling import pair
from autoprune.network.layers import (
    Add,
    Concat,
    Constant,
    Div,
    MatMul,
    Mean,
    Mul,
    Pad,
    Permute,
    Reshape,
    Slice,
    Sub,
)

Writer = Callable[[Call, nn.Module], None]


def _plain(op_type: str) -> Writer:
    """An operator without settings, for any number of inputs."""

    def write(call: Call, layer: nn.Module) -> None:
        call.last(op_type, *call.inputs)

    return write


# ---- layers with weights ------------------------------------------------------------------------------------------


def _convolution(call: Call, layer: nn.Module) -> None:
    """Conv or ConvTranspose."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise call.unsupported("padding must be a number of zeros per side")
    inputs = [call.x, call.weight("weight", layer.weight)]
    if layer.bias is not None:
        inputs.append(call.weight("bias", layer.bias))
    padding = pair(layer.padding)
    settings = {
        "kernel_shape": pair(layer.kernel_size),
        "strides": pair(layer.stride),
        "pads": (*padding, *padding),
        "dilations": pair(layer.dilation),
    }
    if isinstance(layer, nn.Conv2d):
        call.last("Conv", *inputs, group=layer.groups, **settings)
        return
    extra = pair(layer.output_padding)
    if extra != (0, 0):
        settings["output_padding"] = extra
    call.last("ConvTranspose", *inputs, group=layer.groups, **settings)


def _linear(call: Call, layer: nn.Module) -> None:
    """Gemm for matrices, MatMul and Add otherwise."""
    assert isinstance(layer, nn.Linear)
    if call.rank == 2:
        bias = [] if layer.bias is None else [call.weight("bias", layer.bias)]
        call.last("Gemm", call.x, call.weight("weight", layer.weight), *bias, transB=1)
        return
    weight = call.weight("weight", layer.weight.T)
    shift: Tensor | None = layer.bias
    if shift is None:
        call.last("MatMul", call.x, weight)
    else:
        call.last("Add", call.step("product", "MatMul", call.x, weight), call.weight("bias", shift))


def _batchnorm(call: Call, layer: nn.Module) -> None:
    """BatchNormalization, where there was no convolution to fold it into."""
    assert isinstance(layer, nn.BatchNorm2d)
    if not layer.track_running_stats:
        raise call.unsupported("batch norm without running statistics")
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale, shift = _affine(call, layer, (layer.num_features,))
    mean, variance = call.weight("running_mean", layer.running_mean), call.weight("running_var", layer.running_var)
    call.last("BatchNormalization", call.x, scale, shift, mean, variance, epsilon=layer.eps)


def _prelu(call: Call, layer: nn.Module) -> None:
    """PRelu; one slope per channel is broadcast along dimension 1."""
    assert isinstance(layer, nn.PReLU)
    slopes = layer.weight if layer.num_parameters == 1 else layer.weight.reshape(-1, *[1] * (call.rank - 2))
    call.last("PRelu", call.x, call.weight("weight", slopes))


def _layer_norm(call: Call, layer: nn.Module) -> None:
    """LayerNormalization (operator set 17 and later), or its definition."""
    assert isinstance(layer, nn.LayerNorm)
    dims = tuple(range(-len(layer.normalized_shape), 0))
    scale, shift = _affine(call, layer, layer.normalized_shape)
    if call.opset >= 17:
        call.last("LayerNormalization", call.x, scale, shift, axis=dims[0], epsilon=layer.eps)
        return
    mean = call.step("mean", "ReduceMean", call.x, axes=dims, keepdims=1)
    centred = call.step("centred", "Sub", call.x, mean)
    square = call.step("square", "Mul", centred, centred)
    variance = call.step("variance", "ReduceMean", square, axes=dims, keepdims=1)
    deviation = call.step("deviation", "Sqrt", call.step("safe", "Add", variance, call.number("eps", layer.eps)))
    normal = call.step("normal", "Div", centred, deviation)
    call.last("Add", call.step("scaled", "Mul", normal, scale), shift)


def _group_norm(call: Call, layer: nn.Module) -> None:
    """InstanceNormalization, over groups laid out as channels where a group is more than one."""
    assert isinstance(layer, nn.GroupNorm)
    groups, channels = layer.num_groups, layer.num_channels
    if groups == channels:
        call.last("InstanceNormalization", call.x, *_affine(call, layer, (channels,)), epsilon=layer.eps)
        return
    laid_out = call.step("groups", "Reshape", call.x, call.integers("groups.shape", (0, groups, -1)))
    ones, zeros = call.array("ones", np.ones(groups, np.float32)), call.array("zeros", np.zeros(groups, np.float32))
    normal = call.step("normal", "InstanceNormalization", laid_out, ones, zeros, epsilon=layer.eps)
    normal = call.step("channels", "Reshape", normal, call.integers("channels.shape", (-1, *call.shape[1:])))
    scale, shift = _affine(call, layer, (channels, *[1] * (call.rank - 2)))
    call.last("Add", call.step("scaled", "Mul", normal, scale), shift)


def _affine(call: Call, layer: nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm, shape: Sequence[int]) -> tuple[str, str]:
    """Store scale and shift of a normalisation in this shape; ones and zeros where it has none."""
    scale: Tensor | None = layer.weight
    shift: Tensor | None = layer.bias
    return (
        call.weight("weight", torch.ones(tuple(shape)) if scale is None else scale.reshape(tuple(shape))),
        call.weight("bias", torch.zeros(tuple(shape)) if shift is None else shift.reshape(tuple(shape))),
    )


# ---- activations --------------------------------------------------------------------------------------------------


def _clip(call: Call, layer: nn.Module) -> None:
    """Clip (ReLU6, Hardtanh)."""
    assert isinstance(layer, nn.Hardtanh)  # ReLU6 is one
    call.last("Clip", call.x, call.number("min", layer.min_val), call.number("max", layer.max_val))


def _leaky_relu(call: Call, layer: nn.Module) -> None:
    """LeakyRelu."""
    assert isinstance(layer, nn.LeakyReLU)
    call.last("LeakyRelu", call.x, alpha=float(layer.negative_slope))


def _elu(call: Call, layer: nn.Module) -> None:
    """Elu."""
    assert isinstance(layer, nn.ELU)
    call.last("Elu", call.x, alpha=float(layer.alpha))


def _silu(call: Call, layer: nn.Module) -> None:
    """Times its own sigmoid."""
    call.last("Mul", call.x, call.step("sigmoid", "Sigmoid", call.x))


def _gelu(call: Call, layer: nn.Module) -> None:
    """Gelu (operator set 20 and later), or its definition."""
    assert isinstance(layer, nn.GELU)
    if call.opset >= 20:
        call.last("Gelu", call.x, approximate=layer.approximate)
        return
    if layer.approximate == "tanh":  # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        cube = call.step("cube", "Mul", call.step("square", "Mul", call.x, call.x), call.x)
        inner = call.step("inner", "Add", call.x, call.step("cubic", "Mul", cube, call.number("c", 0.044715)))
        inner = call.step("scaled", "Mul", inner, call.number("sqrt_2_over_pi", math.sqrt(2 / math.pi)))
        curve = call.step("tanh", "Tanh", inner)
    else:  # 0.5 x (1 + erf(x / sqrt(2)))
        curve = call.step("erf", "Erf", call.step("scaled", "Div", call.x, call.number("sqrt_2", math.sqrt(2))))
    share = call.step("share", "Add", curve, call.number("one", 1.0))
    call.last("Mul", call.step("product", "Mul", call.x, share), call.number("half", 0.5))


def _hardswish(call: Call, layer: nn.Module) -> None:
    """HardSwish (operator set 14 and later), or its definition."""
    if call.opset >= 14:
        call.last("HardSwish", call.x)
    else:
        call.last("Mul", call.x, call.step("gate", "HardSigmoid", call.x, alpha=1 / 6, beta=0.5))


def _hardsigmoid(call: Call, layer: nn.Module) -> None:
    """HardSigmoid with PyTorch's slope."""
    call.last("HardSigmoid", call.x, alpha=1 / 6, beta=0.5)


def _softplus(call: Call, layer: nn.Module) -> None:
    """Softplus; PyTorch's switch to a straight line at a threshold is invisible where it is usual, at 20."""
    assert isinstance(layer, nn.Softplus)
    if layer.threshold < 15:
        raise call.unsupported(f"softplus with threshold {layer.threshold}; at least 15 is supported")
    if layer.beta == 1:
        call.last("Softplus", call.x)
        return
    beta = call.number("beta", layer.beta)
    call.last("Div", call.step("softplus", "Softplus", call.step("scaled", "Mul", call.x, beta)), beta)


def _mish(call: Call, layer: nn.Module) -> None:
    """Times the tanh of its softplus; the operator of set 18 is this function."""
    call.last("Mul", call.x, call.step("tanh", "Tanh", call.step("softplus", "Softplus", call.x)))


def _softmax(call: Call, layer: nn.Module) -> None:
    """Softmax along one dimension."""
    assert isinstance(layer, nn.Softmax)
    if layer.dim is None:
        raise call.unsupported("softmax without a dimension")
    call.last("Softmax", call.x, axis=int(layer.dim))


# ---- movement -----------------------------------------------------------------------------------------------------


def _reshape(call: Call, layer: nn.Module) -> None:
    """Reshape."""
    assert isinstance(layer, Reshape)
    call.last("Reshape", call.x, call.integers("shape", layer.shape))


def _permute(call: Call, layer: nn.Module) -> None:
    """Transpose."""
    assert isinstance(layer, Permute)
    call.last("Transpose", call.x, perm=layer.dims)


def _slice(call: Call, layer: nn.Module) -> None:
    """Slice along one dimension."""
    assert isinstance(layer, Slice)
    bounds = [call.integers("start", (layer.start,)), call.integers("stop", (layer.stop,))]
    steps = [] if layer.step == 1 else [call.integers("step", (layer.step,))]
    call.last("Slice", call.x, *bounds, call.integers("axis", (layer.dim,)), *steps)


def _pad(call: Call, layer: nn.Module) -> None:
    """Pad with a constant: all amounts before, then all after."""
    assert isinstance(layer, Pad)
    pads = call.integers("pads", [before for before, _ in layer.pads] + [after for _, after in layer.pads])
    call.last("Pad", call.x, pads, *([call.number("value", layer.value)] if layer.value else []))


def _concat(call: Call, layer: nn.Module) -> None:
    """Concat."""
    assert isinstance(layer, Concat)
    call.last("Concat", *call.inputs, axis=layer.dim)


def _constant(call: Call, layer: nn.Module) -> None:
    """A weight without a node; :func:`autoprune.formats.onnx_export.export_onnx` uses its name for the output."""
    assert isinstance(layer, Constant)
    call.weight("value", layer.value)


#: Writer of every canonical layer type.
WRITERS: dict[type[nn.Module], Writer] = {
    nn.Conv2d: _convolution, nn.ConvTranspose2d: _convolution, nn.Linear: _linear, nn.BatchNorm2d: _batchnorm,
    nn.PReLU: _prelu, nn.LayerNorm: _layer_norm, nn.GroupNorm: _group_norm,
    nn.ReLU: _plain("Relu"), nn.ReLU6: _clip, nn.Hardtanh: _clip, nn.LeakyReLU: _leaky_relu, nn.ELU: _elu,
    nn.Sigmoid: _plain("Sigmoid"), nn.Tanh: _plain("Tanh"), nn.SiLU: _silu, nn.GELU: _gelu,
    nn.Hardswish: _hardswish, nn.Hardsigmoid: _hardsigmoid, nn.Softplus: _softplus, nn.Mish: _mish,
    nn.Identity: _plain("Identity"), nn.Softmax: _softmax,
    nn.MaxPool2d: pooling.max_pool, nn.AvgPool2d: pooling.avg_pool, nn.AdaptiveAvgPool2d: pooling.adaptive_avg_pool,
    nn.AdaptiveMaxPool2d: pooling.adaptive_max_pool, nn.Upsample: pooling.upsample, Mean: pooling.mean,
    Add: _plain("Add"), Sub: _plain("Sub"), Mul: _plain("Mul"), Div: _plain("Div"), MatMul: _plain("MatMul"),
    Reshape: _reshape, Permute: _permute, Slice: _slice, Pad: _pad, Concat: _concat, Constant: _constant,
}  # fmt: skip
