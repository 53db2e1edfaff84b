"""Converters of ONNX operators with windows: poolings, means and resizing."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autoprune.formats._onnx_call import Active, Call, Value
from autoprune.formats._onnx_layers import Pairs, image, padding, pair
from autoprune.formats._onnx_movement import pad
from autoprune.formats._onnx_shapes import drop_dims
from autoprune.network.layers import Constant, Mean, Mul


def max_pool(call: Call) -> Value:
    """MaxPool; padding that PyTorch cannot express becomes a Pad with minus infinity."""
    x, kernel, steps = image(call), pair(call, "kernel_shape", 1), pair(call, "strides", 1)
    dilations, ceil = pair(call, "dilations", 1), bool(call.attributes.get("ceil_mode", 0))
    pads = padding(call, x.shapes[0][2:], kernel, steps, dilations)
    if not _symmetric(pads, kernel):
        if ceil:
            raise call.unsupported(f"ceil_mode with pads {pads}; with ceil_mode only equal pads are supported")
        x, pads = pad(call, x, [(0, 0), (0, 0), *pads], float("-inf")), [(0, 0), (0, 0)]
    return call.add(nn.MaxPool2d(kernel, steps, (pads[0][0], pads[1][0]), dilations, ceil_mode=ceil), x)


def average_pool(call: Call) -> Value:
    """AveragePool; padding that PyTorch cannot express becomes a Pad and, where it must not count, a factor."""
    x, kernel, steps = image(call), pair(call, "kernel_shape", 1), pair(call, "strides", 1)
    if pair(call, "dilations", 1) != (1, 1):
        raise call.unsupported("dilations other than 1 are not supported")
    counted, ceil = bool(call.attributes.get("count_include_pad", 0)), bool(call.attributes.get("ceil_mode", 0))
    pads = padding(call, x.shapes[0][2:], kernel, steps, (1, 1))
    if _symmetric(pads, kernel):
        layer = nn.AvgPool2d(kernel, steps, (pads[0][0], pads[1][0]), ceil_mode=ceil, count_include_pad=counted)
        return call.add(layer, x)
    if ceil:
        raise call.unsupported(f"ceil_mode with pads {pads}; with ceil_mode only equal pads are supported")
    pool = nn.AvgPool2d(kernel, steps)
    y = call.add(pool, pad(call, x, [(0, 0), (0, 0), *pads]))
    if counted:
        return y
    ones = torch.ones(1, 1, *x.shapes[0][2:])
    share = pool(nn.functional.pad(ones, [*pads[1], *pads[0]]))
    return call.add(Mul(), y, call.add(Constant(1 / share), name=f"{call.name}_constant"))


def global_average_pool(call: Call) -> Value:
    """GlobalAveragePool."""
    return call.add(nn.AdaptiveAvgPool2d(1), image(call))


def global_max_pool(call: Call) -> Value:
    """GlobalMaxPool."""
    return call.add(nn.AdaptiveMaxPool2d(1), image(call))


def reduce_mean(call: Call) -> Value:
    """ReduceMean over any dimensions but the batch."""
    x, axes = call.active(0), call.ints(1, "axes", "the axes")
    if not axes and call.attributes.get("noop_with_empty_axes", 0):
        return x
    dims = sorted(call.axis(x, axis) for axis in axes) if axes else list(range(x.rank))
    call.refuse_batch(x, dims)
    return call.add(Mean(dims, bool(call.attributes.get("keepdims", 1))), x)


def reduce_sum(call: Call) -> Value:
    """ReduceSum over any dimensions but the batch: the mean, times the number of values."""
    x, y = call.active(0), reduce_mean(call)
    assert isinstance(y, Active)
    axes = call.ints(1, "axes", "the axes") or []
    count = math.prod(x.shapes[0][call.axis(x, axis)] for axis in axes)
    return y if y is x else call.add(Mul(), y, call.constant(np.array(count)))


def reduce_max(call: Call) -> Value:
    """ReduceMax over height and width."""
    x, axes = image(call), call.ints(1, "axes", "the axes")
    if sorted(call.axis(x, axis) for axis in axes or ()) != [2, 3]:
        raise call.unsupported("only the maximum over height and width is supported")
    y = call.add(nn.AdaptiveMaxPool2d(1), x)
    return y if call.attributes.get("keepdims", 1) else drop_dims(call, y, [2, 3])


def resize(call: Call) -> Value:
    """Resize of height and width by constants: nearest (asymmetric, or whole factors) and linear."""
    x = image(call)
    mode = call.attributes.get("mode", "nearest")
    where = call.attributes.get("coordinate_transformation_mode", "half_pixel")
    if call.attributes.get("antialias", 0) or call.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.unsupported("antialias and keep_aspect_ratio_policy are not supported")
    factors, size = _resize_target(call, x)
    exact = all(int(n * f) == m for n, f, m in zip(x.shapes[0][2:], factors, size, strict=True))
    form: dict[str, object] = {"size": size} if _whole(x, factors, size) else {"scale_factor": factors}
    if mode == "nearest":
        rounding = call.attributes.get("nearest_mode", "round_prefer_floor")
        repeats = all(factor == int(factor) for factor in factors) and where in _HALF_PIXEL
        if not (repeats or (where == "asymmetric" and rounding == "floor")) or not exact:
            raise call.unsupported(
                f"nearest with {where}, {rounding} and factors {factors}; "
                "supported: asymmetric with floor, or whole factors"
            )
        return call.add(nn.Upsample(mode="nearest", **form), x)  # type: ignore[arg-type]
    if mode == "linear" and (where in _HALF_PIXEL or where == "align_corners"):
        return call.add(nn.Upsample(mode="bilinear", align_corners=where == "align_corners", **form), x)  # type: ignore[arg-type]
    raise call.unsupported(f"mode {mode} with {where}; supported: nearest, and linear with half_pixel or align_corners")


_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")


def _resize_target(call: Call, x: Active) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the factors and the resulting size of height and width."""
    axes = [call.axis(x, axis) for axis in call.attributes.get("axes") or range(x.rank)]
    scales, sizes = call.optional(2, "the scales"), call.inputs[3] if call.has(3) else None
    if scales is not None and scales.size:
        by_axis = {axis: float(factor) for axis, factor in zip(axes, scales.ravel(), strict=True)}
        if any(factor != 1 for axis, factor in by_axis.items() if axis < 2):
            raise call.unsupported(f"scales {scales.tolist()} resize batch or channels; only height and width may be")
        factors = tuple(by_axis.get(axis, 1.0) for axis in (2, 3))
        return factors, tuple(int(n * f) for n, f in zip(x.shapes[0][2:], factors, strict=True))
    if sizes is None or isinstance(sizes, Active):
        raise call.unsupported("neither scales nor sizes are constants")
    pair = [dict(zip(axes, (int(n) for n in at.ravel()), strict=True)) for at in sizes.at]
    for target, shape in zip(pair, x.shapes, strict=True):
        if target.get(1, shape[1]) != shape[1] or target.get(0, shape[0]) not in (shape[0], call.batch.fixed):
            raise call.unsupported(f"sizes {target} resize batch or channels; only height and width may be")
    size = tuple(pair[0].get(axis, x.shapes[0][axis]) for axis in (2, 3))
    return tuple(m / n for m, n in zip(size, x.shapes[0][2:], strict=True)), size


def _whole(x: Active, factors: Sequence[float], size: Sequence[int]) -> bool:
    """Tell whether the factors give the size without rounding, so that the size says it all."""
    return all(abs(n * f - m) < 1e-6 for n, f, m in zip(x.shapes[0][2:], factors, size, strict=True))


def _symmetric(pads: Pairs, kernel: Sequence[int]) -> bool:
    """Tell whether PyTorch's poolings take this padding: the same on both sides, at most half a window."""
    return all(before == after and 2 * before <= window for (before, after), window in zip(pads, kernel, strict=True))
