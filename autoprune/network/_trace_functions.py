"""How the tracer converts each function and method of PyTorch, by name.

A converter is called with the arguments of the original call, so its signature is the original's, with tensors as
:class:`~autoprune.network._trace_call.Value`. Shapes of views are not recomputed: they are those the original had.
"""

from collections.abc import Callable

import torch
from torch import nn

from autoprune.network._trace_call import Call, Output, Value
from autoprune.network._trace_movement import MOVES
from autoprune.network._trace_weighted import WEIGHTED
from autoprune.network.layers import Add, Div, Mean, Mul, Sub

Converter = Callable[..., Output]


# ---- element-wise -------------------------------------------------------------------------------------------------


def _binary(kind: type[nn.Module], *, swap: bool = False) -> Converter:
    """Two operands, either of which may be a number."""

    def convert(call: Call, x: object, other: object, *, alpha: object = 1) -> Value:
        a, b = (v if isinstance(v, Value) else call.scalar(call.number(v)) for v in (x, other))
        if call.number(alpha, "alpha") != 1:
            b = call.emit(Mul(), b, call.scalar(call.number(alpha)), like=b)
        return call.emit(kind(), b, a) if swap else call.emit(kind(), a, b)

    return convert


def _div(call: Call, x: object, other: object, *, rounding_mode: object = None) -> Value:
    """Division; rounding is not supported."""
    if rounding_mode is not None:
        raise call.unsupported(f"rounding_mode {rounding_mode!r}")
    result = _binary(Div)(call, x, other)
    assert isinstance(result, Value)
    return result


def _neg(call: Call, x: Value) -> Value:
    """Negation."""
    return call.emit(Mul(), x, call.scalar(-1))


def _pow(call: Call, x: Value, exponent: object) -> Value:
    """Squares only."""
    if not isinstance(x, Value) or call.number(exponent, "the exponent") != 2:
        raise call.unsupported("only squares (exponent 2) of a tensor are supported")
    return call.emit(Mul(), x, x)


def _square(call: Call, x: Value) -> Value:
    """Square."""
    return call.emit(Mul(), x, x)


def _expand(call: Call, x: Value, *args: object, **kwargs: object) -> Value:
    """Nothing where broadcasting does the same afterwards; otherwise a product with ones."""
    if all(_broadcasts(call, user) for user in call.node.users):
        return x
    ones = [1 if dim == call.result.batch_dim else size for dim, size in enumerate(call.result.shape)]
    return call.emit(Mul(), x, Value((), None, constant=torch.ones(ones)))


def _broadcasts(call: Call, user: torch.fx.Node) -> bool:
    """Tell whether `user` combines the expanded tensor with one that has its full shape already."""
    if getattr(user.target, "__name__", user.target) not in ("add", "mul", "sub", "truediv", "div"):
        return False
    others = [argument for argument in user.args if isinstance(argument, torch.fx.Node) and argument is not call.node]
    return len(others) == 1 and others[0].meta.get("shape") == call.result.shape


# ---- activations --------------------------------------------------------------------------------------------------


def _activation(make: Callable[..., nn.Module]) -> Converter:
    """A function with the arguments of a layer."""

    def convert(call: Call, x: Value, *args: object, inplace: bool = False, **kwargs: object) -> Value:
        numbers = [call.number(value) for value in args]
        settings = {k: v if isinstance(v, str) else call.number(v, k) for k, v in kwargs.items()}
        return call.emit(make(*numbers, **settings), x)

    return convert


def _clamp(call: Call, x: Value, min: object = None, max: object = None) -> Value:
    """Clamping between numbers; one-sided only from below at 0."""
    low = None if min is None else call.number(min, "min")
    high = None if max is None else call.number(max, "max")
    if low == 0 and high is None:
        return call.emit(nn.ReLU(), x)
    if low is None or high is None:
        raise call.unsupported("clamping needs both bounds, or min=0 alone")
    return call.emit(nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high), x)


def _softmax(call: Call, x: Value, dim: object = None, *args: object, **kwargs: object) -> Value:
    """Softmax along a given dimension."""
    return call.emit(nn.Softmax(call.not_batch(x, (call.whole(dim, "dim"),), "softmax")[0]), x)


# ---- reductions and pooling ---------------------------------------------------------------------------------------


def _reduced(call: Call, x: Value, dim: object) -> tuple[int, ...]:
    """Dimensions of a reduction; never the batch."""
    if dim is None:
        raise call.unsupported("reducing over everything would mix the images of a batch; give dim")
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    return call.not_batch(x, [call.whole(d, "dim") for d in dims], "reducing")


def _mean(call: Call, x: Value, dim: object = None, keepdim: bool = False, **kwargs: object) -> Value:
    """Mean over dimensions."""
    return call.emit(Mean(sorted(_reduced(call, x, dim)), bool(keepdim)), x)


def _sum(call: Call, x: Value, dim: object = None, keepdim: bool = False, **kwargs: object) -> Value:
    """Mean times number of values."""
    dims = sorted(_reduced(call, x, dim))
    count = 1
    for d in dims:
        count *= x.shape[d]
    return call.emit(Mul(), call.emit(Mean(dims, bool(keepdim)), x), call.scalar(count))


def _amax(call: Call, x: Value, dim: object = None, keepdim: bool = False) -> Value:
    """Maximum over height and width."""
    if x.rank != 4 or sorted(_reduced(call, x, dim)) != [2, 3]:
        raise call.unsupported("only the maximum over height and width (dim=(2, 3)) is supported")
    return call.reshape(call.emit(nn.AdaptiveMaxPool2d(1), x, like=Value((*x.shape[:2], 1, 1), x.batch_dim)))


def _max_pool(
    call: Call,
    x: Value,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """``F.max_pool2d``."""
    if return_indices:
        raise call.unsupported("return_indices=True")
    kernel = call.pair(kernel_size, "kernel_size")
    step = call.pair(stride, "stride") if stride not in (None, (), []) else kernel
    pads, dilations = call.pair(padding, "padding"), call.pair(dilation, "dilation")
    return call.emit(nn.MaxPool2d(kernel, step, pads, dilations, ceil_mode=ceil_mode), x)


def _avg_pool(
    call: Call,
    x: Value,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """``F.avg_pool2d``."""
    kernel = call.pair(kernel_size, "kernel_size")
    step = call.pair(stride, "stride") if stride not in (None, (), []) else kernel
    pads = call.pair(padding, "padding")
    return call.emit(nn.AvgPool2d(kernel, step, pads, ceil_mode, count_include_pad, divisor_override), x)


def _adaptive(kind: type[nn.AdaptiveAvgPool2d] | type[nn.AdaptiveMaxPool2d]) -> Converter:
    """``F.adaptive_avg_pool2d`` and ``F.adaptive_max_pool2d``: the output size is what the original returned."""

    def convert(call: Call, x: Value, output_size: object, return_indices: bool = False) -> Value:
        if return_indices or x.rank != 4:
            raise call.unsupported("only a 4-dimensional input, without indices, is supported")
        return call.emit(kind((call.result.shape[2], call.result.shape[3])), x)

    return convert


def upsample(
    call: Call,
    x: Value,
    size: object = None,
    scale_factor: object = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    """``F.interpolate`` by size or factor, nearest or bilinear."""
    if mode not in ("nearest", "bilinear") or antialias or x.rank != 4:
        raise call.unsupported("only 'nearest' and 'bilinear' interpolation of 4-dimensional tensors is supported")
    if size is not None or recompute_scale_factor:
        target = (call.result.shape[2], call.result.shape[3])
        return call.emit(nn.Upsample(target, None, mode, align_corners), x)
    factors = scale_factor if isinstance(scale_factor, tuple | list) else (scale_factor, scale_factor)
    scale = tuple(float(call.number(factor, "scale_factor")) for factor in factors)
    return call.emit(nn.Upsample(None, scale, mode, align_corners), x)


#: Converter of every supported function and method, by name (``torch.add``, ``operator.add`` and ``x.add`` alike).
FUNCTIONS: dict[str, Converter] = {
    **MOVES,
    **WEIGHTED,
    "add": _binary(Add), "iadd": _binary(Add), "sub": _binary(Sub), "subtract": _binary(Sub), "isub": _binary(Sub),
    "rsub": _binary(Sub, swap=True), "mul": _binary(Mul), "multiply": _binary(Mul), "imul": _binary(Mul),
    "div": _div, "truediv": _div, "true_divide": _div, "divide": _div, "itruediv": _div,
    "neg": _neg, "negative": _neg, "pow": _pow, "square": _square, "expand": _expand, "expand_as": _expand,
    "relu": _activation(nn.ReLU), "relu6": _activation(nn.ReLU6), "leaky_relu": _activation(nn.LeakyReLU),
    "elu": _activation(nn.ELU), "sigmoid": _activation(nn.Sigmoid), "tanh": _activation(nn.Tanh),
    "silu": _activation(nn.SiLU), "gelu": _activation(nn.GELU), "hardswish": _activation(nn.Hardswish),
    "hardsigmoid": _activation(nn.Hardsigmoid), "hardtanh": _activation(nn.Hardtanh),
    "softplus": _activation(nn.Softplus), "mish": _activation(nn.Mish),
    "clamp": _clamp, "clip": _clamp, "softmax": _softmax,
    "mean": _mean, "sum": _sum, "amax": _amax, "max_pool2d": _max_pool, "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive(nn.AdaptiveAvgPool2d), "adaptive_max_pool2d": _adaptive(nn.AdaptiveMaxPool2d),
    "interpolate": upsample, "upsample": upsample,
}  # fmt: skip
