"""The orders of all groups: measured, partly measured, and not at all."""

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.costs.budget import Budget
from autoprune.criteria.channels import score_units
from autoprune.errors import SearchError, UnknownNameError
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Add
from autoprune.network.network import Network, NetworkBuilder
from autoprune.problem import pruning_problem
from autoprune.reconstruction.gram import collect_grams
from autoprune.reconstruction.orders import ranked_groups


def _network(*, convolution: bool) -> Network:
    """One group that a transposed convolution reads, and a convolution too if asked for."""
    b = NetworkBuilder("image", (3, 8, 8))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 8, 3, padding=1), b.input, name="producer"), name="relu")
    y = b.add(nn.ConvTranspose2d(8, 2, 1), x, name="up")
    if convolution:
        y = b.add(Add(), y, b.add(nn.Conv2d(8, 2, 1), x, name="side"), name="add")
    return b.finish(y)


@pytest.mark.parametrize("criterion", ["obs", "l1"])
@pytest.mark.parametrize("convolution", [True, False])
def test_what_is_not_measured_costs_its_share_of_the_weights(criterion: str, convolution: bool) -> None:
    network = _network(convolution=convolution)
    groups = find_groups(network)
    chosen = groups.prunable()
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    statistics = collect_grams(network, chosen, images)
    assert ("side" in statistics.grams) is convolution
    (order,) = ranked_groups(network, groups, chosen, criterion, statistics)
    assert order.errors is not None
    assert sorted(order.order) == list(range(8))
    assert order.errors[-1] == 0
    assert (np.diff(order.errors) < 0).all()
    assert order.errors[0] == pytest.approx(2 if convolution else 1)


def test_scores_follow_the_order_and_are_of_one_scale() -> None:
    network = _network(convolution=True)
    groups = find_groups(network)
    chosen = groups.prunable()
    statistics = collect_grams(network, chosen, torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    for criterion in ("l1", "lamp", "obs"):
        (ranked,) = ranked_groups(network, groups, chosen, criterion, statistics)
        assert ranked.errors is not None
        assert (np.diff(ranked.scores) <= 0).all()
        if criterion == "obs":
            added = ranked.errors[:-1] - ranked.errors[1:]
            assert ranked.scores[-1] == pytest.approx(added[-1])
            assert np.allclose(ranked.scores, [added[place:].max() for place in range(8)])
            continue
        raw = score_units(network, groups, criterion)[list(chosen[0].units)][list(ranked.order)]
        assert np.allclose(ranked.scores, raw / np.sqrt(np.mean(raw**2)) if criterion == "l1" else raw)


def test_obs_without_statistics_and_unknown_criteria_are_refused() -> None:
    network = _network(convolution=True)
    with pytest.raises(SearchError, match="need Gram statistics"):
        pruning_problem(network, Budget.parse("macs=50%"), criterion="obs")
    with pytest.raises(UnknownNameError, match="unknown criterion 'l3'"):
        pruning_problem(network, Budget.parse("macs=50%"), criterion="l3")
