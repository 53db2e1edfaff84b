"""Segments of a network: stretches of layers between cuts, places where a single activation carries everything on."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from autoprune.network.layers import PRODUCERS, Permute, Reshape, Slice
from autoprune.network.network import Network
from autoprune.problem import PruningProblem

#: Layers whose output may be a view of a larger tensor, which a remembered output would keep alive.
_VIEWS = (nn.Identity, Permute, Reshape, Slice)

#: Reading and writing one value takes about as long as so many multiplications.
_VALUE_MACS = 32


@dataclass(frozen=True, slots=True)
class Step:
    """One layer of a segment: what it is applied to, and the values that nothing needs afterwards."""

    layer: str
    inputs: tuple[str, ...]
    output: str
    spent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of layers, one tensor in and one tensor out.

    Attributes:
        steps: Its layers in execution order.
        source: Name of the value that comes in.
        units: Numbers of all units that this segment's layers and those before it touch: the weights of these layers
            depend on nothing but which of the units are kept.

    """

    steps: tuple[Step, ...]
    source: str
    units: NDArray[np.int64]

    def of(self, module: fx.GraphModule) -> Callable[[Tensor], Tensor]:
        """Return the function that runs this segment's layers of `module`, a candidate of the same network."""
        calls = [(module.get_submodule(step.layer), step.inputs, step.output, step.spent) for step in self.steps]
        source, result = self.source, self.steps[-1].output

        def run(inputs: Tensor) -> Tensor:
            values = {source: inputs}
            del inputs  # freed as soon as the layers are through with it
            for layer, names, output, spent in calls:
                values[output] = layer(*[values[name] for name in names])
                for name in spent:
                    del values[name]
            return values[result]

        return run


def segments(problem: PruningProblem, images: int, memory_bytes: int) -> tuple[Segment, ...]:
    """Cut the network of `problem` where it saves most to start from, on average over its groups.

    Args:
        problem: The network and the groups that candidates differ in.
        images: Number of images whose activations are remembered.
        memory_bytes: Bound on the outputs, float32, of all segments but the last.

    """
    nodes = [node for node, _ in problem.network.nodes()]
    last_use = _last_uses(problem.network)
    steps = [
        Step(
            str(node.target),
            tuple(str(argument) for argument in node.args),
            node.name,
            tuple(source.name for source in node.all_input_nodes if last_use[source.name] == position),
        )
        for position, node in enumerate(nodes)
    ]
    touched = [_units(problem, step.layer) for step in steps]
    starts = [next(i for i, units in enumerate(touched) if group.units[0] in units) for group in problem.groups]
    work = list(accumulate(_work(problem.network, node, layer) for node, layer in problem.network.nodes()))
    sizes = {cut: images * size for cut, size in _cuts(problem.network, last_use)}
    borders = [0, *(cut + 1 for cut in choose_cuts(work, starts, sizes, memory_bytes)), len(steps)]
    return tuple(
        Segment(
            tuple(steps[start:end]),
            steps[start - 1].output if start else problem.network.input_name,
            np.unique(np.concatenate(touched[:end])),
        )
        for start, end in pairwise(borders)
    )


def _last_uses(network: Network) -> dict[str, int]:
    """Return the position of the last layer that needs each value; past the end for the network's output."""
    last: dict[str, int] = {}
    for position, (node, _) in enumerate(network.nodes()):
        last |= {source.name: position for source in node.all_input_nodes}
        last[node.name] = len(network.shapes)
    return last


def _cuts(network: Network, last_use: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Yield every position behind which only that layer's output is alive, and its bytes per image."""
    reach = last_use[network.input_name]
    for position, (node, layer) in enumerate(network.nodes()):
        if reach <= position and not isinstance(layer, _VIEWS):
            yield position, 4 * math.prod(network.shapes[node.name])
        reach = max(reach, last_use[node.name])


class _Choice(NamedTuple):
    """Cuts, the memory they take, and the work they save, summed over the groups."""

    memory: int
    saved: int
    cuts: tuple[int, ...]


def choose_cuts(
    work: Sequence[int], starts: Sequence[int], sizes: Mapping[int, int], memory_bytes: int
) -> tuple[int, ...]:
    """Return the positions to cut behind, in order: those that save most within the memory.

    A candidate that differs from the last in one group starts at the last cut before that group's first layer. Exact:
    a dynamic program over the last cut, which keeps every choice that saves more than all that take less memory.

    Args:
        work: Work up to and including every layer, ``(n_layers,)``.
        starts: Position of every group's first layer.
        sizes: Possible cuts, in order, and the memory that each takes.
        memory_bytes: Bound on their sum.

    """
    behind = {cut: sum(start > cut for start in starts) for cut in sizes}  # groups that profit
    useful = [
        cut
        for cut in sizes
        if behind[cut] and not any(cut < o and behind[cut] == behind[o] and sizes[o] <= sizes[cut] for o in sizes)
    ]
    best = {-1: [_Choice(0, 0, ())]}
    for cut in useful:
        gains = {last: behind[cut] * (work[cut] - (work[last] if last >= 0 else 0)) for last in best}
        longer = [
            _Choice(choice.memory + sizes[cut], choice.saved + gains[last], (*choice.cuts, cut))
            for last, choices in best.items()
            for choice in choices
            if choice.memory + sizes[cut] <= memory_bytes
        ]
        best[cut] = _undominated(longer)
    return max((choice for choices in best.values() for choice in choices), key=lambda c: (c.saved, -c.memory)).cuts


def _undominated(choices: Iterable[_Choice]) -> list[_Choice]:
    """Return the choices that save more than any that takes no more memory, by memory."""
    kept: list[_Choice] = []
    for choice in sorted(choices, key=lambda c: (c.memory, -c.saved)):
        if not kept or choice.saved > kept[-1].saved:
            kept.append(choice)
    return kept


def _units(problem: PruningProblem, layer: str) -> NDArray[np.int64]:
    """Return the numbers of the units that a layer touches."""
    channels = problem.all_groups.layers[layer]
    sides = [side.ids for side in (*channels.inputs, channels.output) if side is not None]
    return np.concatenate([np.zeros(0, dtype=np.int64), *sides])


def _work(network: Network, node: fx.Node, layer: nn.Module) -> int:
    """Return roughly how long a layer takes on one image, in multiplications."""
    shape = network.shapes[node.name]
    values = math.prod(shape)
    if not isinstance(layer, PRODUCERS):
        return _VALUE_MACS * values
    channels = shape[-1] if isinstance(layer, nn.Linear) else shape[1]
    return values // channels * layer.weight.numel() + _VALUE_MACS * values
