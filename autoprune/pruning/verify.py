"""The proof that surgery is right: the pruned network equals the masked one."""

import torch
from torch import Tensor

from autoprune.errors import NumericalError
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import mask, prune

TOLERANCE = 1e-5


def masked_error(network: Network, groups: ChannelGroups, plan: Plan, images: Tensor) -> float:
    """Return the largest difference between masked and pruned outputs, relative to the largest output (at least 1).

    Both run in float64 on `images`, ``(n, C, H, W)``, so that only a wrong cut can make a difference.
    """
    with torch.no_grad():
        whole = mask(network, groups, plan).double()(images.double())
        small = prune(network, groups, plan).double()(images.double())
    if small.shape != whole.shape:
        raise NumericalError(f"pruned output has shape {tuple(small.shape)}, masked output {tuple(whole.shape)}")
    scale = max(1.0, float(whole.abs().max()))
    return float((small - whole).abs().max()) / scale


def verify(network: Network, groups: ChannelGroups, plan: Plan, images: Tensor) -> float:
    """Return :func:`masked_error`, or stop.

    Raises:
        NumericalError: Masked and pruned outputs differ by more than 1e-5, or are not finite.

    """
    error = masked_error(network, groups, plan, images)
    if not error <= TOLERANCE:
        raise NumericalError(
            f"masked and pruned networks differ by {error:.2e} (allowed {TOLERANCE:.0e}); "
            "the plan would change what the network computes, so nothing was exported"
        )
    return error
