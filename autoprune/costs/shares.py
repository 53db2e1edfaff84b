"""How much of the network's cost hangs on each channel group."""

import numpy as np

from autoprune.costs.cost_model import cost_model
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network


def group_shares(network: Network, groups: ChannelGroups) -> dict[str, dict[str, float]]:
    """Return, per group name, the share of MACs and parameters that would go if all its channels went.

    Neighbouring groups share layers, so the shares of all groups add up to more than 1.
    """
    costs = cost_model(network, groups, groups.groups)
    full = costs.full()
    whole = costs.cost(full)
    shares = {}
    for index, group in enumerate(groups.groups):
        without = np.where(np.arange(len(full)) == index, 0, full)
        cost = costs.cost(without)
        shares[group.name] = {
            quantity: (whole[quantity] - cost[quantity]) / max(1, whole[quantity]) for quantity in ("macs", "params")
        }
    return shares
