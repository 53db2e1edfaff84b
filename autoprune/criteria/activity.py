"""Criteria that watch activations: what passes a channel's ReLUs on images of the fit split."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.criteria.applicability import RELUS
from autoprune.criteria.data import CriterionData
from autoprune.criteria.differentiation import DoubleNetwork
from autoprune.criteria.members import Scores, add_up
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.device import default_device
from autoprune.network.network import Network


def active_shares(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return 1 - APoZ, the share of a unit's activations that are above 0 (Hu et al. 2016, 1607.03250)."""
    return _mean_passed(network, groups, data, lambda values: (values > 0).double())


def mean_activations(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return the mean of a unit's activations (Molchanov et al. 2017, 1611.06440)."""
    return _mean_passed(network, groups, data, lambda values: values)


def _mean_passed(
    network: Network, groups: ChannelGroups, data: CriterionData, formula: Callable[[Tensor], Tensor]
) -> Scores:
    """Return the mean of a formula over everything that leaves the ReLUs of each unit; 0 for units without one."""
    assert data.images is not None, "checked"
    module, sums, counts = DoubleNetwork(network).module, np.zeros(groups.n_units), np.zeros(groups.n_units)

    def watch(name: str) -> None:
        channels = groups.layers[name].output
        if channels is None:
            return

        def hook(_: nn.Module, args: object, output: Tensor) -> None:
            others = [dim for dim in range(output.dim()) if dim != channels.dim]
            found = formula(output).sum(others).cpu().numpy()
            add_up(sums, channels, found)
            add_up(counts, channels, np.full(len(found), output.numel() / len(found)))

        module.get_submodule(name).register_forward_hook(hook)

    for name, layer in network.layers().items():
        if isinstance(layer, RELUS):
            watch(name)
    with torch.no_grad():
        for images in torch.split(data.images, data.batch_size):
            module(images.to(default_device(), torch.float64))
    return np.divide(sums, counts, out=np.zeros(groups.n_units), where=counts > 0)
