"""How the tracer converts layers that are written as functions, with their weights as arguments."""

from collections.abc import Callable, Sequence

from torch import nn

from autoprune.network._trace_call import Call, Output, Value
from autoprune.network.layers import MatMul, Mul, Permute

Converter = Callable[..., Output]


def _prelu(call: Call, x: Value, weight: Value) -> Value:
    """One learned slope, or one per channel."""
    slopes = call.weight(weight, "the slopes").reshape(-1)
    layer = nn.PReLU(len(slopes))
    layer.weight = nn.Parameter(slopes)
    return call.emit(layer, x)


def _matmul(call: Call, x: Value, other: Value) -> Value:
    """Two activations, or an activation times a constant matrix (a linear layer)."""
    a, b = call.tensor(x, "the left operand"), call.tensor(other, "the right operand")
    if b.constant is not None and b.rank == 2:
        return linear(call, a, Value(b.shape[::-1], None, constant=b.constant.T))
    if a.constant is not None or b.constant is not None:
        raise call.unsupported("a constant operand must be a matrix on the right")
    if a.rank < 2 or b.rank < 2:
        raise call.unsupported("vectors are not supported")
    return call.emit(MatMul(), a, b)


def linear(call: Call, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """``F.linear`` with weights that do not depend on the image."""
    matrix = call.weight(weight, "the weight")
    if matrix.ndim != 2:
        raise call.unsupported("the weight must be a matrix")
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(matrix)
    if bias is not None:
        layer.bias = nn.Parameter(call.weight(bias, "the bias"))
    return call.emit(layer, x)


def _conv2d(
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: object = 1,
) -> Value:
    """``F.conv2d`` with weights that do not depend on the image."""
    if isinstance(padding, str):
        raise call.unsupported(f"padding {padding!r}; give numbers")
    kernel, n = call.weight(weight, "the weight"), call.whole(groups, "groups")
    layer = nn.Conv2d(
        kernel.shape[1] * n,
        kernel.shape[0],
        (kernel.shape[2], kernel.shape[3]),
        call.pair(stride, "stride"),
        call.pair(padding, "padding"),
        call.pair(dilation, "dilation"),
        n,
        bias is not None,
    )
    layer.weight = nn.Parameter(kernel)
    if bias is not None:
        layer.bias = nn.Parameter(call.weight(bias, "the bias"))
    return call.emit(layer, x)


def _layer_norm(
    call: Call,
    x: Value,
    normalized_shape: Sequence[object],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """``F.layer_norm``."""
    layer = nn.LayerNorm([call.whole(n, "normalized_shape") for n in normalized_shape], call.number(eps, "eps"))
    if weight is not None:
        layer.weight = nn.Parameter(call.weight(weight, "the weight"))
    if bias is not None:
        layer.bias = nn.Parameter(call.weight(bias, "the bias"))
    return call.emit(layer, x)


def _group_norm(
    call: Call,
    x: Value,
    num_groups: object,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    """``F.group_norm``."""
    layer = nn.GroupNorm(call.whole(num_groups, "num_groups"), x.shape[1], call.number(eps, "eps"))
    if weight is not None:
        layer.weight = nn.Parameter(call.weight(weight, "the weight"))
    if bias is not None:
        layer.bias = nn.Parameter(call.weight(bias, "the bias"))
    return call.emit(layer, x)


def _attention(
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """``F.scaled_dot_product_attention`` written out: softmax(q k^T / sqrt(d)) v."""
    if attn_mask is not None or is_causal or enable_gqa or call.number(dropout_p, "dropout_p") != 0:
        raise call.unsupported("attention with a mask, grouped queries or dropout")
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    factor = query.shape[-1] ** -0.5 if scale is None else call.number(scale, "scale")
    scores = call.emit(MatMul(), query, call.emit(Permute(order), key))
    weights = call.emit(nn.Softmax(query.rank - 1), call.emit(Mul(), scores, call.scalar(factor)))
    return call.emit(MatMul(), weights, value)


#: Converter of every function that is a layer with weights, or a product of matrices.
WEIGHTED: dict[str, Converter] = {
    "prelu": _prelu, "matmul": _matmul, "bmm": _matmul, "linear": linear, "conv2d": _conv2d,
    "layer_norm": _layer_norm, "group_norm": _group_norm, "scaled_dot_product_attention": _attention,
}  # fmt: skip
