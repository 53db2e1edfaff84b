"""Reconstruction is the least-squares solution on the same samples, for every kind of consumer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import DatasetError, NumericalError
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.network import Network, NetworkBuilder
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.gram import GramStatistics, collect_grams
from autoprune.reconstruction.least_squares import solve_kept
from autoprune.reconstruction.patches import outputs_at, sample_patches
from autoprune.reconstruction.reconstructor import Reconstructor
from tests.autoprune.reconstruction.consumers import CONSUMERS, SIDE, built, consumer_inputs, images

ALL_POSITIONS = 1000


def _measured(network: Network, inputs: Tensor) -> tuple[ChannelGroups, GramStatistics]:
    groups = find_groups(network)
    return groups, collect_grams(network, groups.prunable(), inputs, points=ALL_POSITIONS)


def _first_group_plan(network: Network, groups: ChannelGroups, kept: tuple[int, ...]) -> Plan:
    return Plan({groups.prunable()[0].name: kept}, network.fingerprint())


def _rows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """All patches by PyTorch's own unfold, ``(maps, samples, features)``: independent of ours."""
    if isinstance(layer, nn.Linear):
        return inputs[None]
    assert isinstance(layer, nn.Conv2d)
    assert not isinstance(layer.padding, str)
    columns = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return columns.transpose(1, 2).flatten(0, 1).unflatten(1, (layer.groups, -1)).transpose(0, 1)


@pytest.mark.parametrize("name", CONSUMERS)
def test_reconstruction_equals_lstsq_on_the_same_samples(name: str) -> None:
    network = built(name)
    inputs = images()
    groups, statistics = _measured(network, inputs)
    size = len(groups.prunable()[0])
    kept = (0, 2, 3) if size == 4 else (0, 2, 3, 6, 7)
    plan = _first_group_plan(network, groups, kept)
    pruned = prune(network, groups, plan)
    assert Reconstructor(network, groups, statistics, ridge=1e-12).apply(pruned, plan) == ()

    original = network.module.get_submodule("consumer")
    assert isinstance(original, nn.Conv2d | nn.Linear)
    source = groups.layers["consumer"].inputs[0]
    assert source is not None
    units = [groups.prunable()[0].units[index] for index in kept]
    into = torch.from_numpy(np.flatnonzero(np.isin(source.ids, units)))
    entering = consumer_inputs(network, inputs)
    narrow = pruned.get_submodule("consumer")
    with torch.no_grad():
        wanted = original(entering)
    patches = _rows(narrow, entering.index_select(1, into)).double().numpy()
    maps = len(patches)
    targets = wanted if isinstance(original, nn.Linear) else wanted.flatten(2).transpose(1, 2).flatten(0, 1)
    for index in range(maps):
        rows = np.hstack([patches[index], np.ones((len(patches[index]), 1))])
        share = targets.unflatten(1, (maps, -1))[:, index].double().numpy()
        best, *_ = np.linalg.lstsq(rows, share, rcond=None)
        weight = narrow.weight.detach().flatten(1).unflatten(0, (maps, -1))[index].double().numpy()
        bias = narrow.bias.detach().unflatten(0, (maps, -1))[index].double().numpy()
        ours = np.hstack([weight, bias[:, None]]).T
        assert np.linalg.norm(ours - best) <= 1e-4 * np.linalg.norm(best)


@pytest.mark.parametrize("name", CONSUMERS)
def test_patches_times_weights_are_the_layers_outputs(name: str) -> None:
    network = built(name)
    layer = network.module.get_submodule("consumer")
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    entering = consumer_inputs(network, images(6))
    patches, positions = sample_patches(layer, entering, 4, torch.Generator().manual_seed(3))
    maps = len(patches)
    with torch.no_grad():
        seen = outputs_at(layer, layer(entering), positions)
        computed = patches @ layer.weight.flatten(1).unflatten(0, (maps, -1)).transpose(1, 2)
        computed = computed + layer.bias.unflatten(0, (maps, -1))[:, None]
    assert torch.allclose(seen, computed, atol=1e-5)


def test_keeping_everything_changes_nothing() -> None:
    network = built("3x3")
    groups, statistics = _measured(network, images())
    plan = _first_group_plan(network, groups, tuple(range(8)))
    pruned = prune(network, groups, plan)
    Reconstructor(network, groups, statistics).apply(pruned, plan)
    assert torch.equal(pruned.get_submodule("consumer").weight, network.module.get_submodule("consumer").weight)


def test_reconstruction_comes_closer_than_cutting() -> None:
    network, inputs = built("3x3"), images(seed=5)
    groups, statistics = _measured(network, images())
    plan = _first_group_plan(network, groups, (0, 1, 2, 3))
    cut, solved = prune(network, groups, plan), prune(network, groups, plan)
    Reconstructor(network, groups, statistics).apply(solved, plan)
    with torch.no_grad():
        wanted = network.module(inputs)
        errors = [float((module(inputs) - wanted).square().mean()) for module in (cut, solved)]
    assert errors[1] < 0.5 * errors[0]


def test_answers_do_not_depend_on_what_was_solved_before() -> None:
    network = built("3x3 strided")
    groups, statistics = _measured(network, images())
    plans = [_first_group_plan(network, groups, kept) for kept in ((0, 1), (2, 5, 7), (0, 1))]
    shared = Reconstructor(network, groups, statistics)
    for plan in plans:
        alone, after = prune(network, groups, plan), prune(network, groups, plan)
        Reconstructor(network, groups, statistics).apply(alone, plan)
        shared.apply(after, plan)
        assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), after.parameters(), strict=True))


def test_a_singular_layer_keeps_its_weights_and_is_named() -> None:
    network = built("1x1")
    groups, statistics = _measured(network, images())
    name = "consumer"
    broken = GramStatistics({name: type(statistics.grams[name])(-statistics.grams[name].matrix, 1)})
    plan = _first_group_plan(network, groups, (1, 2))
    pruned, cut = prune(network, groups, plan), prune(network, groups, plan)
    assert Reconstructor(network, groups, broken).apply(pruned, plan) == (name,)
    assert torch.equal(pruned.get_submodule(name).weight, cut.get_submodule(name).weight)


def test_inputs_that_are_always_zero_leave_the_weights_alone() -> None:
    weight, bias = torch.randn(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    gram = torch.zeros(5, 5, dtype=torch.float64)
    gram[-1, -1] = 1.0
    solution = solve_kept(gram, weight, bias, torch.tensor([0, 2]), ridge=1e-3)
    assert not solution.singular
    assert torch.allclose(solution.weight, weight[:, [0, 2]])


def test_statistics_are_the_same_in_one_pass_and_in_several() -> None:
    network, inputs = built("3x3"), images()
    groups = find_groups(network)
    whole = collect_grams(network, groups.prunable(), inputs, points=5)
    largest = max(gram.matrix.nbytes for gram in whole.grams.values())
    several = collect_grams(network, groups.prunable(), inputs, points=5, memory_bytes=largest)
    assert len(whole.grams) > 1
    assert whole.grams.keys() == several.grams.keys()
    assert all(torch.equal(whole.grams[name].matrix, several.grams[name].matrix) for name in whole.grams)


def test_a_layer_beyond_the_memory_bound_is_left_out_and_named() -> None:
    network = built("3x3")
    statistics = collect_grams(network, find_groups(network).prunable(), images(), memory_bytes=1000)
    assert "consumer" not in statistics.grams
    assert "GiB allowed" in statistics.unmeasured["consumer"]


def test_transposed_convolutions_are_left_out_and_named() -> None:
    b = NetworkBuilder("image", (3, SIDE, SIDE))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 8, 3), b.input, name="producer"), name="relu")
    network = b.finish(b.add(nn.ConvTranspose2d(8, 2, 2), x, name="up"))
    statistics = collect_grams(network, find_groups(network).prunable(), images())
    assert statistics.unmeasured == {"up": "ConvTranspose2d is not reconstructed"}


def test_bad_images_are_refused() -> None:
    network = built("1x1")
    groups = find_groups(network).prunable()
    with pytest.raises(DatasetError, match="at least one image"):
        collect_grams(network, groups, images(0))
    with pytest.raises(NumericalError, match="layer 'consumer': what enters it is not finite"):
        collect_grams(network, groups, torch.full((2, 3, SIDE, SIDE), float("nan")))
