"""Converters of ONNX operators with weights: convolutions, linear layers, normalization."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autoprune.formats._onnx_call import Active, Array, Call, Value
from autoprune.formats._onnx_movement import pad
from autoprune.formats._onnx_shapes import reshape
from autoprune.network.layers import MatMul, Slice

Pairs = list[tuple[int, int]]


def load(layer: nn.Module, **state: Array | None) -> nn.Module:
    """Give `layer` copies of these weights (None: it has no such weight), as 32-bit floats; return it.

    Raises:
        ValueError: A shape does not fit.

    """
    for name, value in state.items():
        if value is not None:
            tensor = torch.from_numpy(np.array(value, dtype=np.float32))
            target = layer.get_parameter(name) if name in layer._parameters else layer.get_buffer(name)
            if tensor.shape != target.shape:
                raise ValueError(f"{name} of shape {tuple(tensor.shape)}; expected {tuple(target.shape)}")
            target.data = tensor
    return layer


def image(call: Call, index: int = 0) -> Active:
    """Return an input that must be a batch of planes: (N, C, H, W)."""
    x = call.active(index)
    if x.rank != 4 or x.follows_batch(2) or x.follows_batch(3):
        raise call.unsupported(f"works on a tensor of shape {x.shapes[0]}; only 2-D planes (N, C, H, W) are supported")
    return x


def pair(call: Call, attribute: str, default: int) -> tuple[int, int]:
    """Return an attribute that holds one integer per spatial dimension."""
    given = call.attributes.get(attribute) or [default, default]
    if len(given) != 2:
        raise call.unsupported(f"{attribute}={list(given)} is not for 2-D planes; only these are supported")
    if min(given) < default:
        raise call.unsupported(f"{attribute}={list(given)} has values under {default}")
    return int(given[0]), int(given[1])


def padding(
    call: Call, size: Sequence[int], kernel: Sequence[int], steps: Sequence[int], dilations: Sequence[int]
) -> Pairs:
    """Return the padding ``(before, after)`` of height and width, following `auto_pad`."""
    auto = call.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0), (0, 0)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for length, window, step, dilation in zip(size, kernel, steps, dilations, strict=True):
            total = max((-(-length // step) - 1) * step + (window - 1) * dilation + 1 - length, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return pads
    given = call.attributes.get("pads") or [0, 0, 0, 0]
    if len(given) != 4:
        raise call.unsupported(f"pads={list(given)} are not for 2-D planes; only these are supported")
    if min(given) < 0:
        raise call.unsupported(f"pads={list(given)} are negative; only padding >= 0 is supported")
    return [(int(given[0]), int(given[2])), (int(given[1]), int(given[3]))]


def _weight(call: Call, what: str) -> Array:
    """Return the weights of a convolution of planes."""
    weight = call.known(1, what)
    if weight.ndim != 4 or 0 in weight.shape:
        raise call.unsupported(f"weights of shape {weight.shape}; only 2-D convolutions are supported")
    if list(call.attributes.get("kernel_shape", weight.shape[2:])) != list(weight.shape[2:]):
        raise call.unsupported(f"kernel_shape disagrees with the weights of shape {weight.shape}")
    return weight


def _bias(call: Call, index: int, channels: int) -> Array | None:
    """Return an optional bias, one value per channel."""
    bias = call.optional(index, "the bias")
    if bias is not None and bias.shape != (channels,):
        raise call.unsupported(f"a bias of shape {bias.shape} for {channels} channels")
    return bias


def conv(call: Call) -> Value:
    """Conv; asymmetric padding becomes a Pad before it."""
    x, weight = image(call), _weight(call, "the weights")
    steps, dilations = pair(call, "strides", 1), pair(call, "dilations", 1)
    groups = int(call.attributes.get("group", 1))
    outputs, inputs = weight.shape[0], weight.shape[1] * groups
    if groups < 1 or outputs % groups or x.shapes[0][1] != inputs:
        raise call.unsupported(
            f"weights of shape {weight.shape} in {groups} groups do not fit an input of {x.shapes[0][1]} channels"
        )
    pads = padding(call, x.shapes[0][2:], weight.shape[2:], steps, dilations)
    if any(before != after for before, after in pads):
        x, pads = pad(call, x, [(0, 0), (0, 0), *pads]), [(0, 0), (0, 0)]
    bias = _bias(call, 2, outputs)
    layer = nn.Conv2d(
        inputs, outputs, _two(weight.shape[2:]), steps, (pads[0][0], pads[1][0]), dilations, groups, bias is not None
    )
    return call.add(load(layer, weight=weight, bias=bias), x)


def conv_transpose(call: Call) -> Value:
    """ConvTranspose; padding that PyTorch cannot express is cut off afterwards."""
    x, weight = image(call), _weight(call, "the weights")
    steps, dilations = pair(call, "strides", 1), pair(call, "dilations", 1)
    extra = pair(call, "output_padding", 0)
    groups = int(call.attributes.get("group", 1))
    if groups < 1 or weight.shape[0] % groups or x.shapes[0][1] != weight.shape[0]:
        raise call.unsupported(f"weights of shape {weight.shape} do not fit an input of {x.shapes[0][1]} channels")
    full = [
        (size - 1) * step + (window - 1) * dilation + 1 + more
        for size, window, step, dilation, more in zip(
            x.shapes[0][2:], weight.shape[2:], steps, dilations, extra, strict=True
        )
    ]
    pads = _transposed_padding(call, x.shapes[0][2:], full, steps)
    bias = _bias(call, 2, weight.shape[1] * groups)
    plain = all(before == after for before, after in pads)
    layer = nn.ConvTranspose2d(
        weight.shape[0], weight.shape[1] * groups, _two(weight.shape[2:]), steps,
        (pads[0][0], pads[1][0]) if plain else 0, extra, groups, bias is not None, dilations,
    )  # fmt: skip
    y = call.add(load(layer, weight=weight, bias=bias), x)
    if not plain:
        for dim, (before, after) in enumerate(pads, start=2):
            y = call.add(Slice(dim, before, full[dim - 2] - after), y, name=f"{call.name}_crop")
    return y


def _transposed_padding(call: Call, size: Sequence[int], full: Sequence[int], steps: Sequence[int]) -> Pairs:
    """Return what ConvTranspose cuts from each side, following `output_shape` and `auto_pad`."""
    auto, wanted = call.attributes.get("auto_pad", "NOTSET"), call.attributes.get("output_shape")
    if auto.startswith("SAME") and not wanted:
        wanted = [length * step for length, step in zip(size, steps, strict=True)]
    if not wanted:
        return padding(call, size, (1, 1), (1, 1), (1, 1))
    pads = []
    for have, want in zip(full, list(wanted)[-2:], strict=True):
        total = max(have - int(want), 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return pads


def gemm(call: Call) -> Value:
    """Gemm with a constant matrix: a linear layer."""
    x, weight = call.active(0), call.known(1, "the matrix")
    if call.attributes.get("transA", 0) or x.rank != 2 or weight.ndim != 2:
        raise call.unsupported("only a linear layer on (N, features) is supported: transA=0, a constant matrix B")
    weight = (weight if call.attributes.get("transB", 0) else weight.T) * np.float32(call.attributes.get("alpha", 1.0))
    bias = call.optional(2, "the bias")
    if bias is not None:
        if bias.size not in (1, weight.shape[0]) or (bias.ndim == 2 and bias.shape[0] != 1):
            raise call.unsupported(f"C has shape {bias.shape}; only one bias per output is supported")
        bias = np.broadcast_to(bias.ravel(), (weight.shape[0],)) * np.float32(call.attributes.get("beta", 1.0))
    return _linear(call, x, weight, bias)


def matmul(call: Call) -> Value:
    """MatMul: a linear layer if the right side is a constant matrix (input 2: a bias found behind it)."""
    left, right = call.inputs[0], call.inputs[1]
    if isinstance(left, Active) and not isinstance(right, Active):
        weight = call.known(1, "the matrix")
        if weight.ndim == 2 and left.rank >= 2:
            return _linear(call, left, weight.T, call.optional(2, "the bias"))
    return call.add(MatMul(), call.active(0), call.active(1))


def _linear(call: Call, x: Active, weight: Array, bias: Array | None) -> Active:
    """Add a linear layer; `weight` is (outputs, inputs)."""
    if x.shapes[0][-1] != weight.shape[1]:
        raise call.unsupported(f"a matrix for {weight.shape[1]} features gets {x.shapes[0][-1]}")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return call.add(load(layer, weight=weight, bias=bias), x)


def batch_norm(call: Call) -> Value:
    """BatchNormalization for inference; on other than planes, through a view as planes."""
    if call.attributes.get("training_mode", 0):
        raise call.unsupported("is in training mode; export the network after model.eval()")
    x = call.active(0)
    if x.rank < 2 or x.follows_batch(1):
        raise call.unsupported(f"works on a tensor of shape {x.shapes[0]}; (N, C, ...) is expected")
    values = [call.known(i, name) for i, name in enumerate(("scale", "bias", "mean", "variance"), start=1)]
    channels = x.shapes[0][1]
    if any(value.shape != (channels,) for value in values):
        raise call.unsupported(f"statistics of shapes {[value.shape for value in values]} for {channels} channels")
    layer = nn.BatchNorm2d(channels, eps=float(call.attributes.get("epsilon", 1e-5)))
    load(layer, weight=values[0], bias=values[1], running_mean=values[2], running_var=values[3])
    if x.rank == 4:
        return call.add(layer, x)
    sides = [(*shape[:2], int(np.prod(shape[2:])), 1) for shape in x.shapes]
    planes = reshape(call, x, (sides[0], sides[1]))
    return reshape(call, call.add(layer, planes), x.shapes)


def instance_norm(call: Call) -> Value:
    """InstanceNormalization: a group norm with one channel per group."""
    x = call.active(0)
    scale, bias = call.known(1, "the scale"), call.known(2, "the bias")
    layer = nn.GroupNorm(len(scale), len(scale), eps=float(call.attributes.get("epsilon", 1e-5)))
    return call.add(load(layer, weight=scale, bias=bias), x)


def group_norm(call: Call) -> Value:
    """GroupNormalization; before operator set 21 its scale and bias hold one value per group."""
    x = call.active(0)
    groups, channels = int(call.attributes["num_groups"]), x.shapes[0][1]
    scale, bias = call.known(1, "the scale"), call.known(2, "the bias")
    if len(scale) != channels and len(scale) == groups:
        scale, bias = (np.repeat(value, channels // groups) for value in (scale, bias))
    layer = nn.GroupNorm(groups, channels, eps=float(call.attributes.get("epsilon", 1e-5)))
    return call.add(load(layer, weight=scale, bias=bias), x)


def layer_norm(call: Call) -> Value:
    """LayerNormalization over the last dimensions."""
    x = call.active(0)
    dims = range(call.axis(x, int(call.attributes.get("axis", -1))), x.rank)
    call.refuse_batch(x, dims)
    shape = [x.shapes[0][dim] for dim in dims]
    scale, bias = call.optional(1, "the scale"), call.optional(2, "the bias")
    if scale is None:
        scale = np.ones(shape, np.float32)
    layer = nn.LayerNorm(shape, eps=float(call.attributes.get("epsilon", 1e-5)), bias=bias is not None)
    scale, bias = (None if value is None else np.broadcast_to(value, shape) for value in (scale, bias))
    return call.add(load(layer, weight=scale, bias=bias), x)


def _two(shape: Sequence[int]) -> tuple[int, int]:
    """Return the two spatial sizes as a pair."""
    height, width = shape
    return int(height), int(width)
