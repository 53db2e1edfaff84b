"""How poolings and resizing are written to ONNX.

Rounded-up output sizes are written as explicit padding at the end: the operators' own ``ceil_mode`` differs from
PyTorch's in which windows it counts.
"""

from torch import nn

from autoprune.formats._onnx_write import Call
from autoprune.network.layers import Mean

Pair = tuple[int, int]


def pair(value: object) -> Pair:
    """Return a setting for height and width, given as one number or two."""
    if isinstance(value, int):
        return value, value
    assert isinstance(value, tuple | list)
    return int(value[0]), int(value[-1])


def max_pool(call: Call, layer: nn.Module) -> None:
    """MaxPool; padding never wins."""
    assert isinstance(layer, nn.MaxPool2d)
    if layer.return_indices:
        raise call.unsupported("return_indices=True")
    kernel, stride, padding = pair(layer.kernel_size), pair(layer.stride), pair(layer.padding)
    dilation = pair(layer.dilation)
    end = _end(call, kernel, stride, padding, dilation) if layer.ceil_mode else padding
    call.last(
        "MaxPool", call.x, kernel_shape=kernel, strides=stride, pads=(*padding, *end),
        **({} if dilation == (1, 1) else {"dilations": dilation}),
    )  # fmt: skip


def avg_pool(call: Call, layer: nn.Module) -> None:
    """AveragePool; what PyTorch adds for rounding up is never counted in the average, its own padding may be."""
    assert isinstance(layer, nn.AvgPool2d)
    kernel, stride, padding = pair(layer.kernel_size), pair(layer.stride), pair(layer.padding)
    end = _end(call, kernel, stride, padding, (1, 1)) if layer.ceil_mode else padding
    counted = int(layer.count_include_pad and padding != (0, 0))
    x = call.x
    if layer.divisor_override:
        average = call.step(
            "sum", "AveragePool", x, kernel_shape=kernel, strides=stride, pads=(*padding, *end), count_include_pad=1
        )
        call.last("Mul", average, call.number("factor", kernel[0] * kernel[1] / layer.divisor_override))
        return
    if layer.ceil_mode and not counted and not layer.divisor_override and _rounds_alike(call, kernel, stride, padding):
        call.last("AveragePool", x, kernel_shape=kernel, strides=stride, pads=(*padding, *padding), ceil_mode=1)
        return
    if counted and end != padding:
        before = call.integers("pads", (0, 0, *padding, 0, 0, *padding))
        x = call.step("pad", "Pad", x, before)
        padding, end = (0, 0), (max(0, end[0] - padding[0]), max(0, end[1] - padding[1]))
        counted = 0
    call.last("AveragePool", x, kernel_shape=kernel, strides=stride, pads=(*padding, *end), count_include_pad=counted)


def adaptive_avg_pool(call: Call, layer: nn.Module) -> None:
    """GlobalAveragePool or AveragePool where the windows are equal, otherwise means of slices."""
    _adaptive(call, "AveragePool", "ReduceMean")


def adaptive_max_pool(call: Call, layer: nn.Module) -> None:
    """GlobalMaxPool or MaxPool where the windows are equal, otherwise maxima of slices."""
    assert isinstance(layer, nn.AdaptiveMaxPool2d)
    if layer.return_indices:
        raise call.unsupported("return_indices=True")
    _adaptive(call, "MaxPool", "ReduceMax")


def mean(call: Call, layer: nn.Module) -> None:
    """ReduceMean."""
    assert isinstance(layer, Mean)
    inputs, attributes = axes(call, layer.dims, "ReduceMean")
    call.last("ReduceMean", call.x, *inputs, keepdims=int(layer.keepdim), **attributes)


def axes(
    call: Call, dims: tuple[int, ...], op_type: str, suffix: str = "axes"
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Return the axes of a reduction as further inputs (from operator set 18 on) or as attributes."""
    assert op_type in ("ReduceMean", "ReduceMax")
    if call.opset >= 18:
        return (call.integers(suffix, dims),), {}
    return (), {"axes": dims}


def upsample(call: Call, layer: nn.Module) -> None:
    """Resize, nearest or linear, by factors or to a size."""
    assert isinstance(layer, nn.Upsample)
    if layer.mode not in ("nearest", "bilinear"):
        raise call.unsupported(f"interpolation mode {layer.mode!r}; 'nearest' and 'bilinear' are supported")
    mode, where = ("nearest", "asymmetric") if layer.mode == "nearest" else ("linear", "half_pixel")
    if layer.align_corners:
        where = "align_corners"
    settings = {"mode": mode, "coordinate_transformation_mode": where, "nearest_mode": "floor"}
    (height, width), (out_height, out_width) = call.shapes[0][2:], call.shape[2:]
    by_size = layer.scale_factor is None or layer.recompute_scale_factor
    if by_size and (out_height % height or out_width % width):
        head = call.step("shape", "Shape", call.x)
        one, two = call.integers("zero", (0,)), call.integers("two", (2,))
        head = call.step("head", "Slice", head, one, two)
        sizes = call.step("sizes", "Concat", head, call.integers("size", (out_height, out_width)), axis=0)
        call.last("Resize", call.x, "", "", sizes, **settings)
        return
    factors = (out_height / height, out_width / width)
    if not by_size:
        scale = layer.scale_factor
        factors = (scale[0], scale[-1]) if isinstance(scale, tuple | list) else (float(scale or 1), float(scale or 1))
    call.last("Resize", call.x, "", call.number("scales", (1.0, 1.0, *factors)), **settings)


def _end(call: Call, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Padding at the end that makes rounding down give the output size that rounding up gave."""

    def one(d: int) -> int:
        window = dilation[d] * (kernel[d] - 1) + 1
        return max(0, (call.shape[2 + d] - 1) * stride[d] + window - call.shapes[0][2 + d] - padding[d])

    return one(0), one(1)


def _rounds_alike(call: Call, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Tell whether ONNX's rounding up gives PyTorch's size: no window starts in the padding at the end."""
    return all(
        call.shape[2 + d] == -(-(call.shapes[0][2 + d] + 2 * padding[d] - kernel[d]) // stride[d]) + 1 for d in (0, 1)
    )


def _adaptive(call: Call, pool: str, reduce: str) -> None:
    """Pool to the layer's output size; ``output i`` covers ``floor(i in / out) .. ceil((i + 1) in / out)``."""
    sizes, targets = call.shapes[0][2:], call.shape[2:]
    if targets == (1, 1):
        call.last(f"Global{pool}", call.x)
        return
    if all(size % target == 0 for size, target in zip(sizes, targets, strict=True)):
        kernel = tuple(size // target for size, target in zip(sizes, targets, strict=True))
        call.last(pool, call.x, kernel_shape=kernel, strides=kernel)
        return
    rows = _slices(call, call.x, 2, reduce)
    call.last("Concat", *_slices(call, call.step("rows", "Concat", *rows, axis=2), 3, reduce), axis=3)


def _slices(call: Call, x: str, dim: int, reduce: str) -> list[str]:
    """Reduce each window along one dimension to one row or column."""
    size, target, side = call.shapes[0][dim], call.shape[dim], "row" if dim == 2 else "column"
    inputs, attributes = axes(call, (dim,), reduce, f"{side}_axes")
    along = call.integers(f"{side}_axis", (dim,))
    pieces = []
    for i in range(target):
        start, stop = i * size // target, -((-(i + 1) * size) // target)
        bounds = (call.integers(f"{side}{i}.start", (start,)), call.integers(f"{side}{i}.stop", (stop,)))
        window = call.step(f"{side}{i}.window", "Slice", x, *bounds, along)
        pieces.append(call.step(f"{side}{i}", reduce, window, *inputs, keepdims=1, **attributes))
    return pieces
