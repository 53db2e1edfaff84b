"""The channel groups of a network as a person reads them."""

from autoprune.costs.shares import group_shares
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network
from autoprune.service.result import GroupView


def group_views(network: Network, groups: ChannelGroups) -> list[GroupView]:
    """Describe all groups, in execution order."""
    shares = group_shares(network, groups)
    return [
        GroupView(
            name=group.name,
            units=len(group),
            producers=list(group.producers),
            consumers=list(group.consumers),
            macs_share=shares[group.name]["macs"],
            params_share=shares[group.name]["params"],
            residual=group.residual,
            frozen=group.frozen,
        )
        for group in groups.groups
    ]
