"""How channels pass through each kind of layer: one rule per kind, each ``rule(tape, layer, call) -> channels``."""

from collections.abc import Callable

import numpy as np
from torch import nn

from autoprune.groups.channels import Call, Channels, Tape
from autoprune.network.layers import (
    ACTIVATIONS,
    ELEMENTWISE,
    SPATIAL,
    Add,
    Concat,
    MatMul,
    Mean,
    Pad,
    Permute,
    Reshape,
    Slice,
    Sub,
)
from autoprune.network.network import Shape

Rule = Callable[[Tape, nn.Module, Call], Channels | None]


def rule_for(layer: nn.Module) -> Rule:
    """Return how channels pass through a layer of this type."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution
    if isinstance(layer, ACTIVATIONS):
        return _same
    if isinstance(layer, ELEMENTWISE):
        return _elementwise
    if isinstance(layer, SPATIAL):
        return _spatial
    return _RULES.get(type(layer), _barrier)


def _same(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Pass channels through untouched (activations)."""
    return call.inputs[0]


def _barrier(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Freeze everything that enters; nothing that leaves can be removed."""
    for channels in call.inputs:
        tape.freeze(channels, f"mixed by {type(layer).__name__} {call.name!r}")
    return None


def _plane(tape: Tape, layer: nn.Module, call: Call) -> Channels:
    """Return the input's channels along dimension 1, fresh frozen ones where they are not there."""
    channels = call.inputs[0]
    if channels is not None and channels.dim == 1:
        return channels
    tape.freeze(channels, f"not the channel dimension of {call.name!r}")
    return _frozen(tape, 1, call.shapes[0][1], f"enters {call.name!r} from a layer that cannot be narrowed")


def _frozen(tape: Tape, dim: int, size: int, reason: str) -> Channels:
    """Make up channels that nobody can remove."""
    channels = Channels(dim, tape.fresh(size))
    tape.freeze(channels, reason)
    return channels


def _convolution(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Emit fresh channels; groups tie equal offsets, a group of one input channel ties it to its outputs."""
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    source = _plane(tape, layer, call).ids
    output = tape.fresh(layer.out_channels)
    groups = layer.groups
    if groups > 1 and layer.in_channels == groups:
        tape.unite(np.repeat(source, layer.out_channels // groups), output)
    elif groups > 1:
        for ids in (source, output):
            per_group = ids.reshape(groups, -1)
            tape.unite(per_group, np.broadcast_to(per_group[0], per_group.shape))
    return Channels(1, output)


def _linear(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Emit fresh channels along the last dimension; channels in any other dimension are frozen."""
    assert isinstance(layer, nn.Linear)
    last = len(call.output_shape) - 1
    if call.inputs[0] is not None and call.inputs[0].dim != last:
        tape.freeze(call.inputs[0], f"{call.name!r} works along another dimension")
        return None
    return Channels(last, tape.fresh(layer.out_features))


def _spatial(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Pass dimension 1 through; channels laid out in height or width are frozen."""
    if call.inputs[0] is None or call.inputs[0].dim == 1:
        return call.inputs[0]
    return _barrier(tape, layer, call)


def _elementwise(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Unite the channels of both operands position by position, with broadcasting."""
    rank = len(call.output_shape)
    a, b = (
        None if channels is None else Channels(channels.dim + rank - len(shape), channels.ids)
        for channels, shape in zip(call.inputs, call.shapes, strict=True)
    )
    if a is None and b is None:
        return None
    if a is not None and b is not None and a.dim == b.dim and len(a.ids) == len(b.ids):
        tape.unite(a.ids, b.ids)
        if isinstance(layer, Add | Sub) and not call.has_constant:
            tape.added.append(a.ids)
        return a
    # One side is broadcast along the other's channels, or has none there that could follow.
    for own, other_shape, other in ((a, call.shapes[1], b), (b, call.shapes[0], a)):
        if own is not None and len(own.ids) > 1 and _size(other_shape, own.dim, rank) == 1:
            tape.freeze(other, f"broadcast by {call.name!r}")
            return own
    for own in (a, b):
        tape.freeze(own, f"joined by {call.name!r} to values that cannot be narrowed")
    return None


def _size(shape: Shape, dim: int, rank: int) -> int:
    """Size of `shape` along `dim` of a result of `rank` dimensions, as broadcasting aligns them."""
    own = dim - (rank - len(shape))
    return shape[own] if own >= 0 else 1


def _batchnorm(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Pass dimension 1 through."""
    return _plane(tape, layer, call)


def _prelu(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Pass dimension 1 through; one slope per channel is cut with it."""
    return _spatial(tape, layer, call)


def _mean(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Pass channels through unless they are averaged."""
    assert isinstance(layer, Mean)
    channels = call.inputs[0]
    if channels is None:
        return None
    if channels.dim in layer.dims:
        return _barrier(tape, layer, call)
    dropped = 0 if layer.keepdim else sum(dim < channels.dim for dim in layer.dims)
    return Channels(channels.dim - dropped, channels.ids)


def _normalized(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Pass channels through layers that normalise along other dimensions only (softmax, layer norm)."""
    channels = call.inputs[0]
    rank = len(call.output_shape)
    if isinstance(layer, nn.Softmax):
        dims = {int(layer.dim or 0) % rank}
    else:
        assert isinstance(layer, nn.LayerNorm)
        dims = set(range(rank - len(layer.normalized_shape), rank))
    return channels if channels is None or channels.dim not in dims else _barrier(tape, layer, call)


def _permute(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Channels follow their dimension."""
    assert isinstance(layer, Permute)
    channels = call.inputs[0]
    return None if channels is None else Channels(layer.dims.index(channels.dim), channels.ids)


def _slice(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Cut the ids where the channel dimension is cut."""
    assert isinstance(layer, Slice)
    channels = call.inputs[0]
    if channels is None or channels.dim != layer.dim:
        return channels
    if layer.step != 1:
        return _barrier(tape, layer, call)
    return Channels(channels.dim, channels.ids[layer.start : layer.stop])


def _pad(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Padded channels are fresh ones without a producer."""
    assert isinstance(layer, Pad)
    channels = call.inputs[0]
    if channels is None:
        return None
    before, after = layer.pads[channels.dim]
    return Channels(channels.dim, np.concatenate([tape.fresh(before), channels.ids, tape.fresh(after)]))


def _concat(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Append ids along the channel dimension; unite them where another dimension is concatenated."""
    assert isinstance(layer, Concat)
    dims = {channels.dim for channels in call.inputs if channels is not None}
    if not dims:
        return None
    if len(dims) > 1:
        return _barrier(tape, layer, call)
    dim = dims.pop()
    parts = [
        channels or _frozen(tape, dim, shape[dim], f"joined by {call.name!r} to a layer that cannot be narrowed")
        for channels, shape in zip(call.inputs, call.shapes, strict=True)
    ]
    if layer.dim == dim:
        return Channels(dim, np.concatenate([part.ids for part in parts]))
    for part in parts[1:]:
        tape.unite(parts[0].ids, part.ids)
    return parts[0]


def _reshape(tape: Tape, layer: nn.Module, call: Call) -> Channels | None:
    """Move the ids; where a channel dimension is split in two, equal offsets of the minor one are tied."""
    assert isinstance(layer, Reshape)
    channels = call.inputs[0]
    if channels is None:
        return None
    view = np.expand_dims(channels.ids, tuple(d for d in range(len(call.shapes[0])) if d != channels.dim))
    moved = np.broadcast_to(view, call.shapes[0]).reshape(call.output_shape)
    varying = [dim for dim in range(moved.ndim) if moved.shape[dim] > 1 and np.any(np.diff(moved, axis=dim))]
    if not varying:  # a single channel
        return _barrier(tape, layer, call)
    dim = varying[-1]
    if layer.shape[dim] == -1 or dim == 0:
        return _barrier(tape, layer, call)
    ids = np.moveaxis(moved, dim, 0).reshape(moved.shape[dim], -1)
    if len(varying) > 1:
        tape.unite(ids, np.broadcast_to(ids[:, :1], ids.shape))
    return Channels(dim, ids[:, 0].copy())


_RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.BatchNorm2d: _batchnorm,
    nn.PReLU: _prelu,
    nn.Softmax: _normalized,
    nn.LayerNorm: _normalized,
    MatMul: _barrier,
    Mean: _mean,
    Permute: _permute,
    Slice: _slice,
    Pad: _pad,
    Concat: _concat,
    Reshape: _reshape,
}
