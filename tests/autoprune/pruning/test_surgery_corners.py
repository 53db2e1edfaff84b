"""Wirings that once went wrong, or nearly: channels on other dimensions, in the batch, shared, cut to pieces."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.costs.cost_model import cost_model
from autoprune.criteria.channels import score_units
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Add, Concat, Constant, Mul, Reshape
from autoprune.network.network import NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.pruning.surgery import prune
from autoprune.pruning.verify import masked_error
from tests.oracles import macs_by_hooks, random_plan


class Mixer(nn.Module):
    """Token mixing: a linear layer along the positions, another along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 4, 4)
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.channels = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.head((x + self.channels(x)).mean(1))


class PixelShuffle(nn.Module):
    """Channels become pixels, then enter a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).reshape(-1, 2, 2, 2, 16, 16).permute(0, 1, 4, 2, 5, 3).reshape(-1, 2, 32, 32)
        return self.head(self.b(x)).mean((2, 3))


class ChannelsInBatch(nn.Module):
    """Half of the channels are handed to the batch and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).reshape(-1, 3, 16, 16)).reshape(-1, 8, 16, 16)
        return self.head(x).mean((2, 3))


class Halves(nn.Module):
    """Each half of the channels goes through a branch without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.a(x).chunk(2, dim=1)
        return self.head(torch.cat([left.sigmoid(), right.tanh()], 1)).mean((2, 3))


@pytest.mark.parametrize("make", [Mixer, PixelShuffle, ChannelsInBatch, Halves])
def test_pruned_equals_masked_and_costs_what_was_counted(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = trace(make().eval(), (3, 16, 16))
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=True)
    assert chosen
    assert score_units(network, groups, "l1").shape == (groups.n_units,)
    costs = cost_model(network, groups, chosen)
    assert costs.cost(costs.full())["macs"] == macs_by_hooks(network.module, network.input_shape)
    images = torch.randn(2, 3, 16, 16)
    for seed in range(4):
        plan = random_plan(chosen, seed, ratio=None if seed else 0.99)
        assert masked_error(network, groups, plan, images) <= 1e-5
        kept = [len(plan.kept[group.name]) for group in chosen]
        assert costs.cost(kept)["macs"] == macs_by_hooks(prune(network, groups, plan), network.input_shape)


def test_no_slice_is_ever_left_empty() -> None:
    network = trace(Halves().eval(), (3, 16, 16))
    assert [len(group) for group in find_groups(network).prunable()] == [4, 4]


def test_a_constant_with_two_uses_is_two_constants() -> None:
    b = NetworkBuilder("image", (3, 8, 8))
    scale = b.add(Constant(torch.rand(1, 4, 1, 1) + 0.5), name="scale")
    left = b.add(Mul(), b.add(nn.Conv2d(3, 4, 1), b.input, name="left"), scale, name="left_scaled")
    right = b.add(Mul(), b.add(nn.Conv2d(3, 4, 1), b.input, name="right"), scale, name="right_scaled")
    both = b.add(Concat(1), left, right, name="both")
    network = b.finish(b.add(nn.Conv2d(8, 2, 1), both, name="head"))
    groups = find_groups(network)
    chosen = groups.prunable()
    assert [(group.name, len(group)) for group in chosen] == [("left", 4), ("right", 4)]
    plan = random_plan(chosen, 1)
    assert masked_error(network, groups, plan, torch.randn(2, 3, 8, 8)) <= 1e-5


def _pooled(**settings: bool) -> str:
    b = NetworkBuilder("image", (3, 8, 8))
    return b.finish(b.add(nn.AvgPool2d(3, 2, 1, **settings), b.input, name="pool")).fingerprint()


def _joined(*order: int) -> str:
    b = NetworkBuilder("image", (3, 8, 8))
    parts = [b.input, b.add(nn.ReLU(), b.input, name="relu")]
    return b.finish(b.add(Concat(1), *(parts[i] for i in order), name="cat")).fingerprint()


def test_different_networks_have_different_fingerprints() -> None:
    prints = [_pooled(), _pooled(count_include_pad=False), _pooled(ceil_mode=True)]
    prints += [_joined(0, 0, 1), _joined(0, 1, 1), _joined(0, 1, 0)]
    assert len(set(prints)) == len(prints)
    assert _pooled() == _pooled()


def test_hooks_on_a_pruned_layer_stay_there() -> None:
    b = NetworkBuilder("image", (3, 8, 8))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 4, 1), b.input, name="a"), name="relu")
    x = b.add(Add(), x, b.add(nn.Conv2d(3, 4, 1), b.input, name="b"), name="sum")
    network = b.finish(b.add(Reshape((-1, 256)), b.add(nn.Conv2d(4, 4, 1), x, name="head"), name="flat"))
    groups = find_groups(network)
    seen: list[str] = []
    for name, layer in prune(network, groups, random_plan((), 0)).named_modules():
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    network.module(torch.zeros(1, 3, 8, 8))
    assert seen == []
