"""Hints compare the ends of residual blocks; frozen batch norms let a training start from the network itself."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Add, Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.recovery._hints import compared, distance, hint_layers, watched
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings

CPU = torch.device("cpu")
SETTINGS = FinetuneSettings(
    optimizer="sgd", learning_rate=0.02, warmup_epochs=0, batch_size=16, hints=0, freeze_batchnorm=False, augment=False
)


def residual_network() -> Network:
    """Two residual blocks; the second one ends in an addition that two layers read."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        b = NetworkBuilder("image", (3, 8, 8))
        stem = b.add(nn.Conv2d(3, 8, 3, padding=1), b.input, name="stem")
        first = b.add(Add(), _branch(b, stem, "one"), stem, name="one.add")
        first = b.add(nn.ReLU(), first, name="one.relu")
        second = b.add(Add(), _branch(b, first, "two"), first, name="two.add")
        third = b.add(Add(), _branch(b, second, "three"), second, name="three.add")
        pooled = b.add(Reshape((-1, 8)), b.add(nn.AdaptiveAvgPool2d(1), third, name="pool"), name="flat")
        network = b.finish(b.add(nn.Linear(8, 5), pooled, name="head"))
    _measure(network.module)
    return network


def _branch(b: NetworkBuilder, source: fx.Node, name: str) -> fx.Node:
    """Two convolutions with batch norms."""
    inner = b.add(nn.Conv2d(8, 12, 3, padding=1, bias=False), source, name=f"{name}.conv1")
    inner = b.add(nn.ReLU(), b.add(nn.BatchNorm2d(12), inner, name=f"{name}.bn1"), name=f"{name}.inner")
    outer = b.add(nn.Conv2d(12, 8, 3, padding=1, bias=False), inner, name=f"{name}.conv2")
    return b.add(nn.BatchNorm2d(8), outer, name=f"{name}.bn2")


def _measure(module: nn.Module) -> None:
    """Give batch norms statistics of their own."""
    module.train()
    with torch.no_grad():
        for seed in range(20):
            module(images(32, seed))
    module.eval()


def images(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def pruned(network: Network, *, residual: bool = False) -> fx.GraphModule:
    """The network after a third of the channels of each group is gone; the residual stream's too on request."""
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=residual)
    plan = Plan({group.name: tuple(range(len(group) * 2 // 3)) for group in chosen}, network.fingerprint())
    return prune(network, groups, plan).eval()


@pytest.fixture(scope="module")
def network() -> Network:
    return residual_network()


def test_ends_of_blocks_are_compared(network: Network) -> None:
    assert hint_layers(pruned(network), network.module, images(1)) == ("one.relu", "two.add", "three.add")


def test_ends_that_lost_channels_are_not(network: Network) -> None:
    assert hint_layers(pruned(network, residual=True), network.module, images(1)) == ()
    with compared(pruned(network, residual=True), network.module, images(1)) as hint:
        assert hint is None


def test_networks_without_a_graph_have_none() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert hint_layers(plain, plain, images(1)) == ()


def test_the_distance_is_relative_to_the_teacher(network: Network) -> None:
    student, x = pruned(network), images(6, 9)
    with compared(student, network.module, images(1)) as hint, torch.no_grad():
        assert hint is not None
        student(x)
        network.module(x)
        measured = float(hint())
    with watched(student, ["one.relu"]) as own, watched(network.module, ["one.relu"]) as other, torch.no_grad():
        student(x)
        network.module(x)
    error = (own["one.relu"] - other["one.relu"]).square().mean() / other["one.relu"].square().mean()
    assert float(distance(own, other)) == pytest.approx(float(error))
    assert 0.01 < measured < 2
    assert float(distance(other, other)) == 0


def test_a_teacher_that_is_zero_gives_a_finite_distance() -> None:
    zero = {"a": torch.zeros(2, 3)}
    assert float(distance(zero, zero)) == 0


def test_nothing_stays_attached(network: Network) -> None:
    student = pruned(network)
    result = finetune(student, images(32), None, replace(SETTINGS, hints=5.0), teacher=network.module, device=CPU)
    for module in (student, network.module, result.module):
        assert not any(layer._forward_hooks for layer in module.modules())


def test_hints_bring_the_blocks_closer(network: Network) -> None:
    student, fit, other = pruned(network), images(256), images(64, 77)

    def error(module: nn.Module) -> float:
        with compared(module, network.module, other[:1]) as hint, torch.no_grad():
            assert hint is not None
            module(other)
            network.module(other)
            return float(hint())

    settings = replace(SETTINGS, freeze_batchnorm=True, optimizer="adamw", learning_rate=0.003)
    without = finetune(student, fit, None, settings, teacher=network.module, device=CPU)
    hinted = finetune(student, fit, None, replace(settings, hints=10.0), teacher=network.module, device=CPU)
    assert error(hinted.module) < 0.8 * error(student)
    assert error(hinted.module) < 0.8 * error(without.module)


def test_frozen_batch_norms_keep_their_statistics(network: Network) -> None:
    student, fit = pruned(network), images(64)
    statistics = {name: value.clone() for name, value in student.named_buffers()}
    frozen = finetune(
        student, fit, None, replace(SETTINGS, freeze_batchnorm=True), teacher=network.module, device=CPU
    ).module
    moved = finetune(student, fit, None, SETTINGS, teacher=network.module, device=CPU).module
    assert all(torch.equal(value, statistics[name]) for name, value in frozen.named_buffers())
    assert not all(torch.equal(value, statistics[name]) for name, value in moved.named_buffers())
    assert not any(layer.training for layer in frozen.modules())
    assert not torch.equal(frozen.get_submodule("one.bn1").weight, student.get_submodule("one.bn1").weight)


def test_with_frozen_batch_norms_the_unpruned_network_has_nothing_to_learn(network: Network) -> None:
    settings = replace(SETTINGS, epochs=1, freeze_batchnorm=True, hints=1.0, weight_decay=0.0)
    itself = copy.deepcopy(network.module)
    result = finetune(itself, images(64), None, settings, teacher=network.module, device=CPU)
    assert result.history[0].loss == pytest.approx(0, abs=1e-5)
    assert finetune(itself, images(64), None, replace(settings, freeze_batchnorm=False), teacher=network.module,
                    device=CPU).history[0].loss > 1e-3  # fmt: skip
