"""Propagation of channel ids through a canonical network.

Every activation has at most one *channel dimension*; each position along it carries an id. Convolutions and linear
layers emit fresh ids, data movement moves ids, element-wise layers unite them, grouped convolutions unite equal offsets
of their groups, and layers that mix channels freeze what enters them. Ids that end up united form a *unit*: channels
that can only be removed together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from autoprune.network.layers import (
    ACTIVATIONS,
    ELEMENTWISE,
    SPATIAL,
    Add,
    Concat,
    Constant,
    MatMul,
    Mean,
    Pad,
    Permute,
    Reshape,
    Slice,
    Sub,
)
from autoprune.network.network import Network, Shape

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Channels:
    """Ids of one activation: ``ids[i]`` belongs to position ``i`` of dimension `dim`; equal at all other positions."""

    dim: int
    ids: Ids  # (shape[dim],)


@dataclass(frozen=True, slots=True)
class LayerChannels:
    """What a layer sees: the channels of each input and of its output; None where nothing can ever be removed.

    For a :class:`Constant`, which has no input, `output` says along which of its own dimensions it is cut.
    """

    inputs: tuple[Channels | None, ...]
    output: Channels | None


@dataclass(slots=True)
class _Tape:
    """What the propagation writes down: fresh ids, unions, and why ids are frozen or residual."""

    count: int = 0
    unions: list[tuple[Ids, Ids]] = field(default_factory=list)
    frozen: list[tuple[Ids, str]] = field(default_factory=list)
    added: list[Ids] = field(default_factory=list)

    def fresh(self, n: int) -> Ids:
        self.count += n
        return np.arange(self.count - n, self.count)

    def unite(self, a: Ids, b: Ids) -> None:
        self.unions.append((a, b))

    def freeze(self, channels: Channels | None, reason: str) -> None:
        if channels is not None:
            self.frozen.append((channels.ids, reason))


@dataclass(frozen=True, slots=True)
class Units:
    """Result of the propagation: the partition of all ids into units.

    Attributes:
        layers: Per layer name, its channels, with unit numbers in place of ids.
        count: Number of units.
        frozen: Reason per frozen unit.
        residual: Units united by an addition (residual streams).

    """

    layers: dict[str, LayerChannels]
    count: int
    frozen: dict[int, str]
    residual: frozenset[int]


def propagate(network: Network) -> Units:
    """Partition all channels of `network` into units that can only be removed together."""
    tape = _Tape()
    values: dict[str, Channels | None] = {}
    layers: dict[str, LayerChannels] = {}
    constants: dict[str, str] = {}  # node name -> layer name
    for node in network.module.graph.nodes:
        if node.op == "placeholder":
            channels = Channels(1, tape.fresh(network.input_shape[0]))
            tape.freeze(channels, "network input")
            values[node.name] = channels
        elif node.op == "output":
            tape.freeze(values[node.all_input_nodes[0].name], "network output")
        else:
            name, layer = str(node.target), network.module.get_submodule(str(node.target))
            sources = [argument.name for argument in node.args]
            if isinstance(layer, Constant):
                constants[node.name] = name
                values[node.name] = None
                layers[name] = LayerChannels((), None)
                continue
            call = _Call(
                name,
                tuple(values[source] for source in sources),
                tuple(network.shapes[source] for source in sources),
                network.shapes[node.name],
                any(source in constants for source in sources),
            )
            if call.has_constant:
                call = _with_constants(tape, call, sources, layer, constants, values, layers)
            output = _rule(layer)(tape, layer, call)
            values[node.name] = output
            layers[name] = LayerChannels(call.inputs, output)
    return _resolve(tape, layers)


@dataclass(frozen=True, slots=True)
class _Call:
    """One layer applied: name, channels and shapes of its inputs (batch 1), shape of its output."""

    name: str
    inputs: tuple[Channels | None, ...]
    shapes: tuple[Shape, ...]
    output_shape: Shape
    has_constant: bool


_Rule = Callable[[_Tape, nn.Module, _Call], Channels | None]


def _rule(layer: nn.Module) -> _Rule:
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


def _same(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Pass channels through untouched (activations)."""
    return call.inputs[0]


def _barrier(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Freeze everything that enters; nothing that leaves can be removed."""
    for channels in call.inputs:
        tape.freeze(channels, f"mixed by {type(layer).__name__} {call.name!r}")
    return None


def _plane(tape: _Tape, layer: nn.Module, call: _Call) -> Channels:
    """Return the input's channels along dimension 1, fresh frozen ones where they are not there."""
    channels = call.inputs[0]
    if channels is not None and channels.dim == 1:
        return channels
    tape.freeze(channels, f"not the channel dimension of {call.name!r}")
    return _frozen(tape, 1, call.shapes[0][1], f"enters {call.name!r} from a layer that cannot be narrowed")


def _frozen(tape: _Tape, dim: int, size: int, reason: str) -> Channels:
    """Make up channels that nobody can remove."""
    channels = Channels(dim, tape.fresh(size))
    tape.freeze(channels, reason)
    return channels


def _convolution(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
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


def _linear(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Emit fresh channels along the last dimension; channels in any other dimension are frozen."""
    assert isinstance(layer, nn.Linear)
    last = len(call.output_shape) - 1
    if call.inputs[0] is not None and call.inputs[0].dim != last:
        tape.freeze(call.inputs[0], f"{call.name!r} works along another dimension")
        return None
    return Channels(last, tape.fresh(layer.out_features))


def _spatial(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Pass dimension 1 through; channels laid out in height or width are frozen."""
    if call.inputs[0] is None or call.inputs[0].dim == 1:
        return call.inputs[0]
    return _barrier(tape, layer, call)


def _elementwise(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
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


def _batchnorm(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Pass dimension 1 through."""
    return _plane(tape, layer, call)


def _prelu(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Pass dimension 1 through; one slope per channel is cut with it."""
    return _spatial(tape, layer, call)


def _mean(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Pass channels through unless they are averaged."""
    assert isinstance(layer, Mean)
    channels = call.inputs[0]
    if channels is None:
        return None
    if channels.dim in layer.dims:
        return _barrier(tape, layer, call)
    dropped = 0 if layer.keepdim else sum(dim < channels.dim for dim in layer.dims)
    return Channels(channels.dim - dropped, channels.ids)


def _normalized(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Pass channels through layers that normalise along other dimensions only (softmax, layer norm)."""
    channels = call.inputs[0]
    rank = len(call.output_shape)
    if isinstance(layer, nn.Softmax):
        dims = {int(layer.dim or 0) % rank}
    else:
        assert isinstance(layer, nn.LayerNorm)
        dims = set(range(rank - len(layer.normalized_shape), rank))
    return channels if channels is None or channels.dim not in dims else _barrier(tape, layer, call)


def _permute(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Channels follow their dimension."""
    assert isinstance(layer, Permute)
    channels = call.inputs[0]
    return None if channels is None else Channels(layer.dims.index(channels.dim), channels.ids)


def _slice(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Cut the ids where the channel dimension is cut."""
    assert isinstance(layer, Slice)
    channels = call.inputs[0]
    if channels is None or channels.dim != layer.dim:
        return channels
    if layer.step != 1:
        return _barrier(tape, layer, call)
    return Channels(channels.dim, channels.ids[layer.start : layer.stop])


def _pad(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
    """Padded channels are fresh ones without a producer."""
    assert isinstance(layer, Pad)
    channels = call.inputs[0]
    if channels is None:
        return None
    before, after = layer.pads[channels.dim]
    return Channels(channels.dim, np.concatenate([tape.fresh(before), channels.ids, tape.fresh(after)]))


def _concat(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
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


def _reshape(tape: _Tape, layer: nn.Module, call: _Call) -> Channels | None:
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


_RULES: dict[type[nn.Module], _Rule] = {
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


def _with_constants(  # noqa: PLR0913 - the state of one propagation, used here alone
    tape: _Tape,
    call: _Call,
    sources: list[str],
    layer: nn.Module,
    constants: dict[str, str],
    values: dict[str, Channels | None],
    layers: dict[str, LayerChannels],
) -> _Call:
    """Give a constant operand the channels of its partner, so that it is cut along with it."""
    rank = len(call.output_shape)
    partner = next((channels for channels in call.inputs if channels is not None), None)
    if partner is None or not isinstance(layer, (*ELEMENTWISE, Concat)):
        return call
    index = next(i for i, channels in enumerate(call.inputs) if channels is partner)
    dim = partner.dim + rank - len(call.shapes[index])
    inputs = list(call.inputs)
    for i, source in enumerate(sources):
        if source not in constants or values[source] is not None:
            continue
        own = dim - (rank - len(call.shapes[i]))
        if own < 0 or call.shapes[i][own] == 1 or (isinstance(layer, Concat) and layer.dim == dim):
            continue
        inputs[i] = Channels(own, tape.fresh(call.shapes[i][own]))
        values[source] = inputs[i]
        layers[constants[source]] = LayerChannels((), inputs[i])
    return replace(call, inputs=tuple(inputs))


def _resolve(tape: _Tape, layers: dict[str, LayerChannels]) -> Units:
    """Number the units (connected components of the unions) and replace ids by unit numbers."""
    pairs = [(a.ravel(), b.ravel()) for a, b in tape.unions]
    rows = np.concatenate([a for a, _ in pairs]) if pairs else np.empty(0, np.int64)
    columns = np.concatenate([b for _, b in pairs]) if pairs else np.empty(0, np.int64)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(tape.count, tape.count))
    count, labels = connected_components(graph, directed=False)
    unit: Ids = np.asarray(labels, dtype=np.int64)

    def numbered(channels: Channels | None) -> Channels | None:
        return None if channels is None else Channels(channels.dim, unit[channels.ids])

    frozen: dict[int, str] = {}
    for ids, reason in tape.frozen:
        for number in np.unique(unit[ids]).tolist():
            frozen.setdefault(int(number), reason)
    return Units(
        {
            name: LayerChannels(tuple(numbered(c) for c in layer.inputs), numbered(layer.output))
            for name, layer in layers.items()
        },
        int(count),
        frozen,
        frozenset(_flatten(unit[ids].tolist() for ids in tape.added)),
    )


def _flatten(lists: Iterable[list[int]]) -> Iterable[int]:
    """Chain lists."""
    for items in lists:
        yield from items
