"""Propagation of channel ids through a canonical network.

Every activation has at most one *channel dimension*; each position along it carries an id. Convolutions and linear
layers emit fresh ids, data movement moves ids, element-wise layers unite them, grouped convolutions unite equal offsets
of their groups, and layers that mix channels freeze what enters them. Ids that end up united form a *unit*: channels
that can only be removed together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from autoprune.groups.channel_rules import rule_for
from autoprune.groups.channels import Call, Channels, Ids, LayerChannels, Tape
from autoprune.network.layers import ELEMENTWISE, PRODUCERS, Concat, Constant
from autoprune.network.network import Network


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
    tape = Tape()
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
            call = Call(
                name,
                tuple(values[source] for source in sources),
                tuple(network.shapes[source] for source in sources),
                network.shapes[node.name],
                any(source in constants for source in sources),
            )
            if call.has_constant:
                call = _with_constants(tape, call, sources, layer, constants, values, layers)
            output = rule_for(layer)(tape, layer, call)
            values[node.name] = output
            layers[name] = LayerChannels(_cut_inputs(layer, call), output)
    return _resolve(tape, layers)


def _cut_inputs(layer: nn.Module, call: Call) -> tuple[Channels | None, ...]:
    """Return the channels by which a layer's weights are cut: those along its own channel dimension only."""
    if not isinstance(layer, PRODUCERS):
        return call.inputs
    own = len(call.shapes[0]) - 1 if isinstance(layer, nn.Linear) else 1
    return tuple(None if channels is None or channels.dim != own else channels for channels in call.inputs)


def _with_constants(
    tape: Tape,
    call: Call,
    sources: list[str],
    layer: nn.Module,
    constants: dict[str, str],
    values: dict[str, Channels | None],
    layers: dict[str, LayerChannels],
) -> Call:
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


def _resolve(tape: Tape, layers: dict[str, LayerChannels]) -> Units:
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
