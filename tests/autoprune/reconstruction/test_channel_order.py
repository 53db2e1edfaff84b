"""OBS: the first step is the cheapest of all, and the curve is the error of the refitted layer at every width."""

import numpy as np
import pytest
import torch

from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from autoprune.reconstruction.channel_order import channel_order
from autoprune.reconstruction.gram import GramStatistics, collect_grams
from autoprune.reconstruction.least_squares import damped, pull, solve_kept
from autoprune.reconstruction.patches import features_of, weight_matrix
from tests.autoprune.reconstruction.consumers import CONSUMERS, built, images
from tests.corpus import NETWORKS, input_shape
from tests.corpus import images as corpus_images


def _refitted_error(
    network: Network, groups: ChannelGroups, group: ChannelGroup, statistics: GramStatistics, kept: list[int]
) -> float:
    """Error of all consumers after least squares on the kept units, each relative to its outputs' variance."""
    total = 0.0
    units = {group.units[index] for index in kept}
    removed = set(group.units) - units
    for name in dict.fromkeys(group.consumers):
        if name not in statistics.grams:
            continue
        layer, gram = network.layers()[name], statistics.grams[name].matrix
        source = groups.layers[name].inputs[0]
        assert source is not None
        weight, bias = weight_matrix(layer)
        columns: list[list[torch.Tensor]] = [[] for _ in gram]
        for position, unit in enumerate(source.ids.tolist()):
            if unit not in removed:
                which, features = features_of(layer, position)
                columns[which].append(features)
        ridge = pull(weight.shape[2], statistics.grams[name].samples)
        errors = [
            (
                _constrained_error(gram[i], weight[i], bias[i], columns[i], ridge),
                _constrained_error(gram[i], weight[i], bias[i], [], ridge),
            )
            for i in range(len(columns))
        ]
        total += sum(error for error, _ in errors) / sum(whole for _, whole in errors)
    return total


def _constrained_error(
    gram: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, columns: list[torch.Tensor], ridge: float
) -> float:
    """Return ``tr((V - W) H (V - W)^T)`` for the refitted weights V; with no column left, for the best constant."""
    changed = torch.cat([-weight, torch.zeros_like(bias)[:, None]], dim=1)
    if columns:
        kept = torch.cat(columns)
        solution = solve_kept(gram, weight, bias, kept, ridge=ridge)
        changed[:, kept] += solution.weight
        changed[:, -1] = solution.bias - bias
    else:
        changed[:, -1] = weight @ gram[:-1, -1]
    return float(((changed @ damped(gram, ridge)) * changed).sum())


@pytest.mark.parametrize("name", CONSUMERS)
def test_the_first_unit_to_go_is_the_cheapest_of_all(name: str) -> None:
    network = built(name)
    groups = find_groups(network)
    group = groups.prunable()[0]
    statistics = collect_grams(network, [group], images(), points=20)
    found = channel_order(network, groups, group, statistics)
    assert found is not None
    everyone = list(range(len(group)))
    brute = [
        _refitted_error(network, groups, group, statistics, [i for i in everyone if i != gone]) for gone in everyone
    ]
    assert found.order[-1] == int(np.argmin(brute))
    assert found.errors[-2] == pytest.approx(min(brute), rel=1e-6)


@pytest.mark.parametrize("name", CONSUMERS)
def test_the_curve_is_the_refitted_error_at_every_width(name: str) -> None:
    network = built(name)
    groups = find_groups(network)
    for group in groups.prunable():
        statistics = collect_grams(network, [group], images(), points=20)
        found = channel_order(network, groups, group, statistics)
        assert found is not None
        assert sorted(found.order) == list(range(len(group)))
        assert found.errors[len(group)] == 0.0
        for width in range(1, len(group)):
            refitted = _refitted_error(network, groups, group, statistics, sorted(found.order[:width]))
            assert found.errors[width] == pytest.approx(refitted, rel=1e-6, abs=1e-9)


def test_a_given_order_is_followed_and_obs_is_no_worse_at_the_first_step() -> None:
    network = built("3x3")
    groups = find_groups(network)
    group = groups.prunable()[0]
    statistics = collect_grams(network, [group], images(), points=20)
    given = tuple(range(len(group)))
    followed = channel_order(network, groups, group, statistics, order=given)
    best = channel_order(network, groups, group, statistics)
    assert followed is not None
    assert best is not None
    assert followed.order == given
    assert best.errors[-2] <= followed.errors[-2]
    for width in range(1, len(group)):
        refitted = _refitted_error(network, groups, group, statistics, list(range(width)))
        assert followed.errors[width] == pytest.approx(refitted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_group_of_every_network_gets_an_order(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=True)
    inputs = corpus_images(name, 8)
    statistics = collect_grams(network, chosen, inputs, points=8)
    for group in chosen:
        found = channel_order(network, groups, group, statistics)
        if found is None:
            assert not set(group.consumers) & set(statistics.grams)
            continue
        assert sorted(found.order) == list(range(len(group)))
        assert np.isfinite(found.errors).all()
        assert (np.diff(found.errors) <= 0).all()


def test_errors_are_shares_whatever_the_scale_of_a_layer() -> None:
    network = built("3x3")
    groups = find_groups(network)
    group = groups.prunable()[0]
    plain = channel_order(network, groups, group, collect_grams(network, [group], images(), points=20))
    with torch.no_grad():
        network.module.get_submodule("consumer").weight.mul_(1e-4)
    small = channel_order(network, groups, group, collect_grams(network, [group], images(), points=20))
    assert plain is not None
    assert small is not None
    assert 0.2 < plain.errors[0] <= 1 + 1e-9
    assert small.errors == pytest.approx(plain.errors, rel=1e-6, abs=1e-9)


def test_a_dead_group_loses_nothing() -> None:
    network = built("3x3")
    with torch.no_grad():
        network.module.get_submodule("producer").bias.fill_(-100.0)
    groups = find_groups(network)
    group = groups.prunable()[0]
    dead = channel_order(network, groups, group, collect_grams(network, [group], images(), points=20))
    assert dead is not None
    assert (dead.errors == 0).all()
