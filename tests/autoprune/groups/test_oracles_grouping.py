"""Channel groups held against two independent libraries, torch-pruning and torch-kirigami.

Each library is asked what must go together with one output channel of a group's first producer. Where it is right, its
answer is exactly our unit. Where it is wrong or refuses, the group is named below with the reason, and the test holds
that this is still so, and by surgery that our unit can be removed.
"""

import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups, is_depthwise
from autoprune.network.layers import PRODUCERS, Constant, Permute
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from autoprune.pruning.plan import Plan
from autoprune.pruning.verify import masked_error
from tests.components import missing
from tests.corpus import NETWORKS, images, input_shape
from tests.oracles import networks

#: Channels that go: (layer or parameter name, "in" or "out") -> their positions.
Cut = dict[tuple[str, str], frozenset[int]]

GROUPED = "a grouped convolution must lose as many channels in every group; the library leaves this to its caller"
SHUFFLED = "channels that are shuffled by reshape, transpose, reshape stay a regular grid only if rows of it go"
PADDED = "padding the channels of a shortcut shifts their positions"
SIZES = "an operator on a size, `width ** -0.5`, is unknown to the library; the cut itself is the same"

TORCH_PRUNING_IS_WRONG = {
    ("resnet_padded", "conv1"): PADDED,
    ("resnet_padded", "layer2.0.conv2"): PADDED,
    ("resnet_padded", "layer3.0.conv2"): PADDED,
    ("resnext", "1.body.0.0"): GROUPED,
    ("resnext", "1.body.1.0"): GROUPED,
    ("resnext", "2.body.0.0"): GROUPED,
    ("resnext", "2.body.1.0"): GROUPED,
    ("shufflenet_v1", "0.0"): GROUPED,
    ("shufflenet_v1", "2.conv1.0"): SHUFFLED,
    ("shufflenet_v2", "0.0"): SHUFFLED,
    ("shufflenet_v2", "0.0#2"): SHUFFLED,
}
KIRIGAMI_REFUSES = TORCH_PRUNING_IS_WRONG | {
    ("vit_token", "blocks.0.mlp.0"): SIZES,
    ("vit_mean", "blocks.0.mlp.0"): SIZES,
}


def _library(name: str) -> Any:  # noqa: ANN401 - a module without types
    """Import an oracle; without it the test cannot run."""
    if find_spec(name) is None:
        missing(f"the Python module {name}", "pip install -e '.[test]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


class TorchPruning:
    """Asks torch-pruning, which follows autograd; it always answers."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        self.module = module
        with warnings.catch_warnings():  # about parameters outside of layers
            warnings.simplefilter("ignore")
            self.graph = _library("torch_pruning").DependencyGraph()
            self.graph.build_dependency(module, torch.zeros(1, *shape), verbose=False)

    def group(self, layer: str, channels: Iterable[int]) -> Any:  # noqa: ANN401 - a type without types
        target = self.module.get_submodule(layer)
        prune_output = self.graph.get_pruner_of_module(target).prune_out_channels
        return self.graph.get_pruning_group(target, prune_output, list(channels))

    def cut(self, layer: str, channels: Iterable[int]) -> Cut:
        names: dict[Any, str] = {module: name for name, module in self.module.named_modules() if name}
        names |= {parameter: name for name, parameter in self.module.named_parameters()}
        cut: Cut = {}
        for dependency, positions in self.group(layer, channels):
            name = names.get(dependency.target.module)
            if name is not None:
                side = "out" if self.graph.is_out_channel_pruning_fn(dependency.handler) else "in"
                cut[name, side] = cut.get((name, side), frozenset()) | frozenset(positions)
        return cut


class Kirigami:
    """Asks torch-kirigami, which follows torch.fx; it says whether its answer is complete."""

    def __init__(self, module: nn.Module, shape: tuple[int, ...]) -> None:
        self.library = _library("torch_kirigami")
        self.module = module
        self.graph = self.library.DependencyGraph.build(module, args=(torch.zeros(2, *shape),))
        self.calls = {call.module_paths[0]: call for call in self.graph.operations() if call.module is not None}

    def cut(self, channels: Mapping[str, Iterable[int]]) -> tuple[Cut, bool]:
        """Remove output channels of layers; return what goes with them, and whether this can be done."""
        indices = self.library.IndexSet
        requests = []
        for name, positions in channels.items():
            output = self.calls[name].outputs[0]
            axes = [indices.span(0, size) for size in output.shape]
            axes[_channel_dim(self.calls[name].module)] = indices.of(positions)
            requests.append(output.select([self.library.Region(tuple(axes))]))
        impact = self.graph.propagate(remove=requests)
        cut: Cut = {}
        for name, side, tensor, dim in self._sides():
            gone = impact.selections.get(tensor.id)
            positions = (
                [i for lo, hi in gone.fully_selected_indices(dim).intervals for i in range(lo, hi)] if gone else []
            )
            if positions:
                cut[name, side] = frozenset(positions)
        return cut, impact.status == "resolved"

    def _sides(self) -> Iterator[tuple[str, str, Any, int]]:
        """List what can be cut: name, side, the library's tensor and its channel dimension."""
        for name, call in self.calls.items():
            dim = _channel_dim(call.module)
            if isinstance(call.module, PRODUCERS) and not is_depthwise(call.module):
                yield name, "in", call.inputs[0], dim
            if isinstance(call.module, (*PRODUCERS, nn.BatchNorm2d, nn.PReLU)):
                yield name, "out", call.outputs[0], dim
        for name, parameter in self.module.named_parameters():
            if name.rpartition(".")[0] not in self.calls:  # a parameter outside of layers
                yield name, "out", self.graph.parameter(name), int(np.argmax(parameter.shape))


def _channel_dim(layer: nn.Module) -> int:
    return -1 if isinstance(layer, nn.Linear) else 1


@dataclass(frozen=True)
class Case:
    """One unit of one group: where a library starts, and what we say must go."""

    group: ChannelGroup
    index: int  # in the group
    unit: Cut

    @property
    def first(self) -> tuple[str, list[int]]:
        """The group's first producer and the unit's channels there."""
        layer = self.group.producers[0]
        return layer, sorted(self.unit[layer, "out"])

    @property
    def outputs(self) -> dict[str, list[int]]:
        """The unit's channels at all producers."""
        return {layer: sorted(self.unit[layer, "out"]) for layer in self.group.producers}


def _cases(network: Network, groups: ChannelGroups) -> Iterator[Case]:
    """First and last unit of every group that can be pruned, residual streams included."""
    for group in groups.prunable(include_residual=True):
        for index in (0, len(group) - 1):
            yield Case(group, index, _unit(network, groups, group.units[index]))


def _unit(network: Network, groups: ChannelGroups, number: int) -> Cut:
    """Find the positions of a unit at every layer with weights."""
    cut: Cut = {}
    for name, layer in network.layers().items():
        channels = groups.layers[name]
        sides = {"out": channels.output}
        if isinstance(layer, PRODUCERS) and not is_depthwise(layer):
            sides["in"] = channels.inputs[0]
        if isinstance(layer, (*PRODUCERS, nn.BatchNorm2d, nn.PReLU, Constant)):
            for side, ids in sides.items():
                if ids is not None and number in ids.ids:
                    cut[name, side] = frozenset(np.flatnonzero(ids.ids == number).tolist())
    return cut


@cache
def _traced(name: str) -> tuple[Network, ChannelGroups]:
    network = trace(NETWORKS[name](), input_shape(name))
    return network, find_groups(network)


def _error_of_our_cut(name: str, case: Case) -> float:
    """Remove just this unit, by surgery; return how far the result is from the masked network."""
    network, groups = _traced(name)
    kept = tuple(index for index in range(len(case.group)) if index != case.index)
    return masked_error(network, groups, Plan({case.group.name: kept}, ""), images(name))


def _error_of_torch_pruning(name: str, layer: str, channels: list[int]) -> float:
    """Let the library cut; return how far the result is from ignoring what it removes, infinity if it breaks."""
    oracle, blinded = TorchPruning(NETWORKS[name](), input_shape(name)), NETWORKS[name]()
    for (consumer, side), positions in oracle.cut(layer, channels).items():
        if side == "in":
            target = blinded.get_submodule(consumer)
            target.register_forward_pre_hook(_without(sorted(positions), _channel_dim(target)))
    try:
        oracle.group(layer, channels).prune()
        with torch.no_grad():
            return float((oracle.module(images(name)) - blinded(images(name))).abs().max())
    except (RuntimeError, IndexError):
        return float("inf")


def _without(positions: list[int], dim: int) -> Any:  # noqa: ANN401 - a hook
    """Return a hook that zeroes channels of a layer's input."""
    return lambda layer, args: args[0].index_fill(dim, torch.tensor(positions), 0.0)


def _named(exceptions: Mapping[tuple[str, str], str], name: str) -> dict[str, str]:
    """Return the groups of one network that are exceptions, with the reason."""
    return {group: reason for (network, group), reason in exceptions.items() if network == name}


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_pruning_removes_the_same_channels(name: str) -> None:
    wrong = _named(TORCH_PRUNING_IS_WRONG, name)
    oracle = TorchPruning(NETWORKS[name](), input_shape(name))
    for case in _cases(*_traced(name)):
        layer, channels = case.first
        reason = wrong.get(case.group.name)
        if reason is None:
            assert oracle.cut(layer, channels) == case.unit, case.group.name
            continue
        assert oracle.cut(layer, channels[:1]) != case.unit, f"{case.group.name} is right now"
        assert _error_of_torch_pruning(name, layer, channels[:1]) > 1e-3
        if reason == GROUPED:  # with the choice made, it agrees
            assert oracle.cut(layer, channels) == case.unit, case.group.name


@pytest.mark.parametrize("name", NETWORKS)
def test_kirigami_removes_the_same_channels(name: str) -> None:
    refused = _named(KIRIGAMI_REFUSES, name)
    oracle = Kirigami(NETWORKS[name](), input_shape(name))
    for case in _cases(*_traced(name)):
        layer, channels = case.first
        reason = refused.get(case.group.name)
        cut, complete = oracle.cut({layer: channels[:1]})
        assert complete == (reason is None), case.group.name
        if complete or reason == SIZES:
            assert cut == case.unit, case.group.name
        else:
            assert _is_part(cut, case.unit), case.group.name
        if reason in (GROUPED, SHUFFLED):  # with the choice made, it agrees
            assert oracle.cut(case.outputs) == (case.unit, True), case.group.name


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_kirigami_agrees_on_random_networks(network: Network) -> None:
    """Torch-pruning is not asked: it is wrong on slices, depthwise multipliers and flattened concatenations too."""
    groups = find_groups(network)
    oracle = Kirigami(network.module, network.input_shape)
    layers = network.layers().values()
    plain = not any(isinstance(layer, Permute) or _is_grouped(layer) for layer in layers)
    for case in _cases(network, groups):
        layer, channels = case.first
        cut, complete = oracle.cut({layer: channels[:1]})
        assert complete or not plain
        assert cut == case.unit if complete else _is_part(cut, case.unit)
        assert oracle.cut(case.outputs) == (case.unit, True)


def _is_grouped(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups > 1 and not is_depthwise(layer)


def _is_part(cut: Cut, whole: Cut) -> bool:
    """Tell whether everything in `cut` is in `whole` too."""
    return all(positions <= whole.get(side, frozenset()) for side, positions in cut.items())


def test_what_the_libraries_cannot_do_is_removed_correctly_here() -> None:
    for name in sorted({network for network, _ in KIRIGAMI_REFUSES}):
        for case in _cases(*_traced(name)):
            if (name, case.group.name) in KIRIGAMI_REFUSES:
                assert _error_of_our_cut(name, case) <= 1e-5


def test_the_libraries_judge_almost_every_group() -> None:
    names = {(name, case.group.name) for name in NETWORKS for case in _cases(*_traced(name))}
    assert TORCH_PRUNING_IS_WRONG.keys() | KIRIGAMI_REFUSES.keys() <= names
    assert len(names) >= 90
    assert len(names - TORCH_PRUNING_IS_WRONG.keys()) >= 79
    assert len(names - KIRIGAMI_REFUSES.keys()) >= 77
