"""How the tracer converts functions that move values: views, slices, concatenation, padding."""

from collections.abc import Callable, Sequence

import torch

from autoprune.network._trace_call import Call, Output, Value
from autoprune.network.layers import Add, Concat, Pad, Permute, Reshape, Slice

Converter = Callable[..., Output]


def _same(call: Call, x: Value, *args: object, **kwargs: object) -> Value:
    """Nothing happens at inference: dropout, contiguous, clone."""
    return x


def _view(call: Call, x: Value, *args: object, **kwargs: object) -> Value:
    """Every function that only changes the shape."""
    return call.reshape(x)


def _permute(call: Call, x: Value, *dims: object, **kwargs: object) -> Value:
    """Any order of dimensions, as numbers or one tuple."""
    order = kwargs.get("dims", dims[0] if len(dims) == 1 else dims)
    if not isinstance(order, tuple | list):
        raise call.unsupported("the order of dimensions must be known")
    return call.emit(Permute([x.dim(call.whole(dim, "dims")) for dim in order]), x)


def _transpose(call: Call, x: Value, dim0: object, dim1: object) -> Value:
    """Two dimensions change places."""
    a, b = x.dim(call.whole(dim0, "dim0")), x.dim(call.whole(dim1, "dim1"))
    order = list(range(x.rank))
    order[a], order[b] = b, a
    return call.emit(Permute(order), x)


def _matrix_transpose(call: Call, x: Value) -> Value:
    """Transpose the last two dimensions (``x.t()``, ``x.mT``)."""
    return _transpose(call, x, -2, -1)


def _slice(call: Call, x: Value, dim: int, bounds: slice) -> Value:
    """Cut along one dimension; nothing where nothing is cut."""
    (dim,) = call.not_batch(x, (dim,), "slicing")
    size = x.shape[dim]
    start, stop, step = bounds.indices(size)
    if (start, stop, step) == (0, size, 1):
        return x
    if stop <= start:
        raise call.unsupported("the slice is empty")
    shape = (*x.shape[:dim], len(range(start, stop, step)), *x.shape[dim + 1 :])
    return call.emit(Slice(dim, start, stop, step), x, like=Value(shape, x.batch_dim))


def _getitem(call: Call, x: object, index: object) -> Output:
    """Pick from a tuple of tensors, or index a tensor with numbers, slices, None and Ellipsis."""
    if isinstance(x, tuple | list):
        if isinstance(index, slice):
            return tuple(call.tensor(item, "every part") for item in x[index])
        return call.tensor(x[call.whole(index, "the index")], "the part")
    value = call.tensor(x, "the indexed value")
    items = index if isinstance(index, tuple) else (index,)
    consumed = sum(item is not None and item is not Ellipsis for item in items)
    dim = 0
    for item in items:
        if item is Ellipsis:
            dim += value.rank - consumed
        elif isinstance(item, slice):
            bounds = [None if b is None else call.whole(b, "the bound") for b in (item.start, item.stop, item.step)]
            if bounds not in ([None, None, None], [0, None, None]):
                value = _slice(call, value, dim, slice(*bounds))
            dim += 1
        elif item is not None:
            at = call.whole(item, "the index") % value.shape[dim]
            value = _slice(call, value, dim, slice(at, at + 1))
            dim += 1
    return call.reshape(value)


def _narrow(call: Call, x: Value, dim: object, start: object, length: object) -> Value:
    """Cut `length` positions from `start` on."""
    first = call.whole(start, "start")
    return _slice(call, x, call.whole(dim, "dim"), slice(first, first + call.whole(length, "length")))


def _select(call: Call, x: Value, dim: object, index: object) -> Value:
    """Cut one position and drop the dimension."""
    where = x.dim(call.whole(dim, "dim"))
    at = call.whole(index, "index") % x.shape[where]
    return call.reshape(_slice(call, x, where, slice(at, at + 1)))


def _pieces(call: Call, x: Value, size: object, dim: object = 0) -> tuple[Value, ...]:
    """Cut into the pieces the original returned, one after the other (split, chunk)."""
    assert isinstance(call.output, tuple)
    where = x.dim(call.whole(dim, "dim"))
    pieces, start = [], 0
    for piece in call.output:
        stop = start + piece.shape[where]
        pieces.append(_slice(call, x, where, slice(start, stop)))
        start = stop
    return tuple(pieces)


def _unbind(call: Call, x: Value, dim: object = 0) -> tuple[Value, ...]:
    """Cut into single positions and drop the dimension."""
    assert isinstance(call.output, tuple)
    where = x.dim(call.whole(dim, "dim"))
    return tuple(call.reshape(_slice(call, x, where, slice(i, i + 1)), to) for i, to in enumerate(call.output))


def _cat(call: Call, tensors: Sequence[object], dim: object = 0, **kwargs: object) -> Value:
    """Concatenate; constants at either end (class tokens) become padding plus an addition."""
    values = [call.tensor(value, "every part") for value in tensors]
    where = call.whole(kwargs.get("axis", dim), "dim") % call.result.rank
    if call.result.batch_dim == where:
        raise call.unsupported("concatenation along the batch")
    computed = [value.constant is None for value in values]
    first, last = computed.index(True), len(values) - computed[::-1].index(True)
    if not all(computed[first:last]):
        raise call.unsupported("a constant between computed parts")
    middle = values[first:last]
    size = sum(value.shape[where] for value in middle)
    inner = Value((*call.result.shape[:where], size, *call.result.shape[where + 1 :]), call.result.batch_dim)
    x = call.emit(Concat(where), *middle, like=inner) if len(middle) > 1 else middle[0]
    if size == call.result.shape[where]:
        return x
    before = sum(value.shape[where] for value in values[:first])
    after = call.result.shape[where] - size - before
    pads = [(before, after) if d == where else (0, 0) for d in range(call.result.rank)]
    shape = [1 if d == inner.batch_dim else n for d, n in enumerate(inner.shape)]
    parts = [torch.zeros(shape) if v is middle[0] else v.constant for v in values[: first + 1] + values[last:]]
    constant = Value((), None, constant=torch.cat([part for part in parts if part is not None], where))
    return call.emit(Add(), call.emit(Pad(pads), x), constant)


def _stack(call: Call, tensors: Sequence[object], dim: object = 0) -> Value:
    """Concatenate along a new dimension."""
    where = call.whole(dim, "dim") % call.result.rank
    shape = (*call.result.shape[:where], 1, *call.result.shape[where + 1 :])
    plane = Value(shape, call.result.batch_dim)
    parts = [call.reshape(call.tensor(value, "every part"), plane) for value in tensors]
    return call.emit(Concat(where), *parts)


def pad(call: Call, x: Value, pad: object, mode: str = "constant", value: object = None) -> Value:
    """``F.pad`` with a constant; negative amounts cut."""
    if mode != "constant":
        raise call.unsupported(f"padding mode {mode!r}; only 'constant' is supported")
    amounts = [call.whole(p, "the padding") for p in pad] if isinstance(pad, tuple | list) else []
    pairs = [(0, 0)] * (x.rank - len(amounts) // 2)
    pairs += [(amounts[i], amounts[i + 1]) for i in range(len(amounts) - 2, -1, -2)]
    for dim, (before, after) in enumerate(pairs):
        if before < 0 or after < 0:
            x = _slice(call, x, dim, slice(max(0, -before), x.shape[dim] + min(0, after)))
    positive = [(max(0, before), max(0, after)) for before, after in pairs]
    if not any(before or after for before, after in positive):
        return x
    call.not_batch(x, [dim for dim, pair in enumerate(positive) if pair != (0, 0)], "padding")
    return call.emit(Pad(positive, 0.0 if value is None else float(call.number(value, "value"))), x)


def _roll(call: Call, x: Value, shifts: object, dims: object = None) -> Value:
    """Cut in two and concatenate the other way round."""
    if dims is None:
        raise call.unsupported("torch.roll needs dims")
    pairs = zip(
        shifts if isinstance(shifts, tuple | list) else (shifts,),
        dims if isinstance(dims, tuple | list) else (dims,),
        strict=True,
    )
    for shift, dim in pairs:
        (where,) = call.not_batch(x, (call.whole(dim, "dims"),), "rolling")
        size = x.shape[where]
        cut = -call.whole(shift, "shifts") % size
        if cut:
            tail, head = _slice(call, x, where, slice(cut, size)), _slice(call, x, where, slice(0, cut))
            x = call.emit(Concat(where), tail, head, like=x)
    return x


def pixel_shuffle(call: Call, x: Value, upscale_factor: object) -> Value:
    """``F.pixel_shuffle`` as reshape, permute, reshape."""
    r = call.whole(upscale_factor, "upscale_factor")
    _, c, h, w = x.shape
    split = call.emit(Reshape((-1, c // (r * r), r, r, h, w)), x)
    return call.emit(Reshape(call.result.literal), call.emit(Permute((0, 1, 4, 2, 5, 3)), split))


def channel_shuffle(call: Call, x: Value, groups: object) -> Value:
    """``torch.channel_shuffle`` as reshape, permute, reshape."""
    g = call.whole(groups, "groups")
    _, c, h, w = x.shape
    split = call.emit(Reshape((-1, g, c // g, h, w)), x)
    return call.emit(Reshape(x.literal), call.emit(Permute((0, 2, 1, 3, 4)), split))


_VIEWS = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "ravel")
_NOTHING = (
    "dropout", "dropout1d", "dropout2d", "alpha_dropout", "feature_alpha_dropout", "contiguous", "clone", "detach",
    "to", "float", "type_as", "requires_grad_", "cpu", "positive", "pos",
)  # fmt: skip

#: Converter of every function and method that moves values.
MOVES: dict[str, Converter] = {
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_NOTHING, _same),
    "permute": _permute, "transpose": _transpose, "swapaxes": _transpose, "swapdims": _transpose,
    "t": _matrix_transpose, "mT": _matrix_transpose,
    "getitem": _getitem, "narrow": _narrow, "select": _select, "chunk": _pieces, "split": _pieces,
    "unsafe_chunk": _pieces, "split_with_sizes": _pieces, "tensor_split": _pieces, "unbind": _unbind,
    "cat": _cat, "concat": _cat, "concatenate": _cat, "stack": _stack, "pad": pad, "roll": _roll,
    "pixel_shuffle": pixel_shuffle, "channel_shuffle": channel_shuffle,
}  # fmt: skip
