"""The channel groups of a network as a person reads them."""

from torch import nn

from autoprune.costs.shares import group_shares
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network
from autoprune.service.results.job_result import GroupView


def group_views(network: Network, groups: ChannelGroups) -> list[GroupView]:
    """Describe all groups, in execution order."""
    shares, layers = group_shares(network, groups), network.layers()
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
            kernel=_kernel(layers[group.producers[0]]),
        )
        for group in groups.groups
    ]


def _kernel(layer: nn.Module) -> list[int] | None:
    """Return height and width of a convolution's kernel; None for other layers."""
    return list(layer.kernel_size) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) else None
