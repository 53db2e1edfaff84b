"""A penalty on the scales of batch norms makes channels that can be cut by one threshold; plain training does not."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ModelError, SearchError
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.pruning.surgery import prune
from autoprune.pruning.verify import verify
from autoprune.recovery.finetune import Penalty, finetune
from autoprune.training.penalties import GammaL1, GammaSmoothL1, WeightL1
from autoprune.training.slimming import PULL, gamma_scores, slim_plan, usual_strength
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, accuracy, digits_network, digits_splits

STRENGTH = 0.045

#: Of gammas as good as zero.
SMALL = 1e-2

PENALTIES: dict[str, Callable[[float], Penalty] | None] = {"plain": None, "l1": GammaL1, "smooth": GammaSmoothL1}


@cache
def trained(kind: str, seed: int) -> Network:
    network, fit, make = digits_network(seed), digits_splits().fit, PENALTIES[kind]
    settings = replace(FROM_SCRATCH, epochs=12, seed=seed)
    penalty = None if make is None else make(STRENGTH)
    module = finetune(network.module, fit.inputs, fit.labels, settings, penalty=penalty, device=CPU).module
    return Network(module, network.input_shape, network.shapes)


def small_gammas(network: Network, groups: ChannelGroups) -> float:
    scores = gamma_scores(network, groups)
    return float(np.mean(scores[[unit for group in groups.prunable() for unit in group.units]] < SMALL))


def lost(network: Network, groups: ChannelGroups, share: float) -> float:
    plan = slim_plan(network, groups, share)
    verify(network, groups, plan, digits_splits().search.inputs[:4])
    return accuracy(network.module) - accuracy(prune(network, groups, plan))


@pytest.mark.parametrize(("kind", "seed"), [("l1", 0), ("l1", 1), ("smooth", 0)])
def test_slimmed_networks_lose_less_than_half_of_what_plain_ones_lose(kind: str, seed: int) -> None:
    groups = find_groups(digits_network())
    plain, slim = trained("plain", seed), trained(kind, seed)
    assert accuracy(plain.module) > 0.97
    assert accuracy(slim.module) > 0.95
    assert small_gammas(slim, groups) >= max(0.4, 5 * small_gammas(plain, groups))
    assert lost(slim, groups, 0.5) < 0.5 * lost(plain, groups, 0.5)


def test_without_shifts_the_cut_channels_leave_nothing_behind() -> None:
    """A channel with a gamma of 0 puts out a constant: what it does to the network is gone once it is 0 as well."""
    groups, fit = find_groups(digits_network()), digits_splits().fit
    settings = replace(FROM_SCRATCH, epochs=12)
    penalty = GammaL1(usual_strength(settings, len(fit)), shifts=True)
    network = digits_network()
    module = finetune(network.module, fit.inputs, fit.labels, settings, penalty=penalty, device=CPU).module
    slim = Network(module, network.input_shape, network.shapes)
    assert accuracy(module) > 0.95
    assert small_gammas(slim, groups) > 0.3
    assert lost(slim, groups, 0.3) < 0.02


def test_the_usual_strength_moves_scales_as_far_whatever_the_training() -> None:
    for epochs, rate, momentum in ((2, 0.1, 0.9), (20, 0.05, 0.0)):
        settings = replace(FROM_SCRATCH, epochs=epochs, learning_rate=rate, momentum=momentum)
        strength = usual_strength(settings, 320)
        mean_rate = rate / 2 * (1 + 1 / (10 * epochs))  # half a cosine, its first step at the full rate
        assert strength * mean_rate * 10 * epochs / (1 - momentum) == pytest.approx(PULL)


def test_the_threshold_is_one_for_all_layers_and_every_group_keeps_a_channel() -> None:
    network = digits_network()
    groups = find_groups(network)
    layers = network.layers()
    with torch.no_grad():
        for number, size in enumerate((0.1, 1.0, 0.01, 1.0)):
            gamma = layers[f"norm{number}"].get_parameter("weight")
            gamma.copy_(-size * torch.linspace(1, 2, len(gamma)))  # the sign plays no part
    plan = slim_plan(network, groups, 0.5)
    sizes = {name: len(kept) for name, kept in plan.kept.items()}
    assert sizes == {"conv0": 1, "conv1": 19, "conv2": 1, "conv3": 39}  # of equal shares of the two large ones
    assert plan.kept["conv0"] == (15,)
    assert plan.kept["conv2"] == (31,)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 120), (0.3, 84), (1 - 0.9, 108), (0.99, 4)])
def test_the_share_is_of_all_channels(share: float, kept: int) -> None:
    network = digits_network()
    plan = slim_plan(network, find_groups(network), share)
    assert sum(len(indices) for indices in plan.kept.values()) == kept


def test_channels_without_batch_norm_stay() -> None:
    b = NetworkBuilder("image", (1, 4, 4))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(1, 6, 3), b.input, name="bare"), name="relu")
    x = b.add(nn.BatchNorm2d(4), b.add(nn.Conv2d(6, 4, 2), x, name="normed"), name="norm")
    flat = b.add(Reshape((-1, 4)), x, name="flat")
    network = b.finish(b.add(nn.Linear(4, 2), flat, name="head"))
    groups = find_groups(network)
    assert set(slim_plan(network, groups, 0.5).kept) == {"normed"}
    with pytest.raises(SearchError, match="from 0 to below 1, found 1"):
        slim_plan(network, groups, 1.0)
    c = NetworkBuilder("image", (1, 4, 4))
    x = c.add(Reshape((-1, 24)), c.add(nn.Conv2d(1, 6, 3), c.input, name="bare"), name="flat")
    bare = c.finish(c.add(nn.Linear(24, 2), x, name="head"))
    with pytest.raises(ModelError, match="needs channels behind batch norms"):
        slim_plan(bare, find_groups(bare), 0.5)


def test_penalties_are_what_their_names_say() -> None:
    module = digits_network().module
    gammas = [layer.weight for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for gamma in gammas:
            gamma.copy_(torch.linspace(-0.5, 0.02, len(gamma)))
    values = torch.cat([gamma.detach() for gamma in gammas])
    near = values.abs() < 0.01
    smooth = torch.where(near, values**2 / 0.02, values.abs() - 0.005)
    weights: list[Tensor] = [layer.weight for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    total = torch.stack([weight.abs().sum() for weight in weights]).sum()
    torch.testing.assert_close(GammaL1(0.3)(module), 0.3 * values.abs().sum())
    for gamma, layer in zip(
        gammas, (each for each in module.modules() if isinstance(each, nn.BatchNorm2d)), strict=True
    ):
        with torch.no_grad():
            layer.bias.copy_(2 * gamma)
    torch.testing.assert_close(GammaL1(0.3, shifts=True)(module), 3 * 0.3 * values.abs().sum())
    torch.testing.assert_close(GammaSmoothL1(0.3)(module), 0.3 * smooth.sum())
    torch.testing.assert_close(WeightL1(0.3)(module), 0.3 * total)
