"""The refit solves layers in order on the pruned network's own inputs and makes good what was lost before."""

import pytest
import torch
from torch import Tensor, fx, nn

from autoprune.errors import DatasetError
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.layers import Add, Constant
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.gram import GramStatistics, collect_grams
from autoprune.reconstruction.reconstructor import Reconstructor
from autoprune.reconstruction.refit import refit
from tests.corpus import NETWORKS, input_shape
from tests.oracles import random_plan


def _images(name: str, n: int, seed: int) -> Tensor:
    return torch.randn(n, *input_shape(name), generator=torch.Generator().manual_seed(seed))


def _set_up(name: str) -> tuple[Network, ChannelGroups, Plan, GramStatistics]:
    network = trace(NETWORKS[name](), input_shape(name))
    groups = find_groups(network)
    statistics = collect_grams(network, groups.prunable(), _images(name, 64, 0), points=16)
    return network, groups, random_plan(groups.prunable(), 0, ratio=0.4), statistics


def _error(network: Network, module: fx.GraphModule, images: Tensor) -> float:
    with torch.no_grad():
        wanted = network.module(images)
        return float((module(images) - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_refit_runs_on_every_network_and_hardly_ever_hurts(name: str) -> None:
    network, groups, plan, statistics = _set_up(name)
    module = prune(network, groups, plan)
    Reconstructor(network, groups, statistics).apply(module, plan)
    fresh = _images(name, 64, 1)
    before = _error(network, module, fresh)
    shapes = {key: tensor.shape for key, tensor in module.state_dict().items()}
    unsolved = refit(network, groups, plan, module, _images(name, 64, 0))
    assert {key: tensor.shape for key, tensor in module.state_dict().items()} == shapes
    assert all("ConvTranspose" in type(network.layers()[layer]).__name__ for layer in unsolved)
    assert _error(network, module, fresh) <= 1.1 * before + 1e-6


def test_a_refit_makes_good_most_of_what_reconstruction_left() -> None:
    network, groups, plan, statistics = _set_up("resnet_padded")
    module = prune(network, groups, plan)
    Reconstructor(network, groups, statistics).apply(module, plan)
    fresh = _images("resnet_padded", 128, 1)
    before = _error(network, module, fresh)
    refit(network, groups, plan, module, _images("resnet_padded", 256, 0))
    assert _error(network, module, fresh) < 0.8 * before


def test_nothing_changes_where_nothing_was_pruned() -> None:
    network, groups, _, _ = _set_up("resnet_padded")
    plan = Plan({}, network.fingerprint())
    module = prune(network, groups, plan)
    refit(network, groups, plan, module, _images("resnet_padded", 8, 0))
    for key, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[key])


def test_the_unpruned_network_is_not_touched_and_equal_seeds_give_equal_weights() -> None:
    network, groups, plan, _ = _set_up("resnet_padded")
    fingerprint = network.fingerprint()
    modules = [prune(network, groups, plan) for _ in range(2)]
    for module in modules:
        refit(network, groups, plan, module, _images("resnet_padded", 32, 0), points=4, seed=7)
    assert network.fingerprint() == fingerprint
    assert all(torch.equal(a, b) for a, b in zip(modules[0].parameters(), modules[1].parameters(), strict=True))


def test_little_memory_means_fewer_images() -> None:
    network, groups, plan, _ = _set_up("resnet_padded")
    few, bounded = prune(network, groups, plan), prune(network, groups, plan)
    images = _images("resnet_padded", 64, 0)
    refit(network, groups, plan, few, images[:1])
    refit(network, groups, plan, bounded, images, memory_bytes=1)
    assert all(torch.equal(a, b) for a, b in zip(few.parameters(), bounded.parameters(), strict=True))


def test_constants_are_told_from_batches_by_their_origin() -> None:
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 8, 3, padding=1), b.input, name="first"), name="relu")
    x = b.add(nn.Conv2d(8, 260, 1), x, name="second")
    shift = b.add(Constant(torch.randn(260, 1, 1)), name="shift")
    network = b.finish(b.add(nn.Conv2d(260, 4, 1), b.add(Add(), x, shift, name="add"), name="third"))
    groups = find_groups(network)
    plan = Plan({"first": (0, 1, 2, 5)}, network.fingerprint())
    images = torch.randn(260, 3, 4, 4, generator=torch.Generator().manual_seed(0))  # as many as channels
    module = prune(network, groups, plan)
    before = _error(network, module, images)
    refit(network, groups, plan, module, images)
    assert _error(network, module, images) < before


def test_no_images_are_refused() -> None:
    network, groups, plan, _ = _set_up("resnet_padded")
    with pytest.raises(DatasetError, match="at least one image"):
        refit(network, groups, plan, prune(network, groups, plan), _images("resnet_padded", 0, 0))
