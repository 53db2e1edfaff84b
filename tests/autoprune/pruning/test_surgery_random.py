"""Random networks, random plans: the pruned network is the masked one, and its cost is what was counted."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.costs.cost_model import cost_model
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network
from autoprune.pruning.surgery import prune
from autoprune.pruning.verify import masked_error
from tests.oracles import macs_by_hooks, networks, random_plan


@settings(max_examples=150, deadline=None)
@given(networks(), st.integers(0, 10_000))
def test_pruned_equals_masked_and_costs_what_was_counted(network: Network, seed: int) -> None:
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=True)
    assert chosen, "every such network has a convolution that can be pruned"
    plan = random_plan(chosen, seed)
    images = torch.randn(2, *network.input_shape, generator=torch.Generator().manual_seed(seed))
    assert masked_error(network, groups, plan, images) <= 1e-5

    costs = cost_model(network, groups, chosen)
    kept = [len(plan.kept[group.name]) for group in chosen]
    pruned = prune(network, groups, plan)
    assert costs.cost(kept)["macs"] == macs_by_hooks(pruned, network.input_shape)
    assert costs.cost(costs.full())["macs"] == macs_by_hooks(network.module, network.input_shape)
    assert sum(costs.layer_macs(kept).values()) == costs.cost(kept)["macs"]


@settings(max_examples=50, deadline=None)
@given(networks(), st.integers(0, 10_000))
def test_the_original_is_untouched_and_shares_nothing(network: Network, seed: int) -> None:
    before = network.fingerprint()
    groups = find_groups(network)
    pruned = prune(network, groups, random_plan(groups.prunable(), seed))
    for parameter in pruned.parameters():
        nn.init.zeros_(parameter)
    pruned.train()
    pruned(torch.zeros(2, *network.input_shape))
    assert network.fingerprint() == before
    assert not any(module.training for module in network.module.modules())
