"""Expansions of the loss by gates on channels, to second order, for networks that are linear in pieces.

A gate is 1 and multiplies a channel; without the channel it is 0. The loss then gains ``-g + h / 2``, with g and h the
first and second derivative by the gate, up to third order (Molchanov et al. 2019, 1906.10771, eq. 4). Between
images and outputs there are only layers that are linear in pieces (ReLU, max-pool, no batch norm of a batch's own), so
that the outputs have no second derivative by one gate, and h follows from their first derivatives exactly.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.differentiation import DoubleNetwork
from autoprune.criteria.gradients import gates
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network

Kind = Literal["first order", "mean of absolutes", "exact", "fisher"]


def expanded(network: Network, groups: ChannelGroups, data: CriterionData, kind: Kind) -> NDArray[np.float64]:
    """Return the absolute loss change that an expansion predicts for every unit, ``(n_units,)``.

    Args:
        network: See above; not changed.
        groups: All its groups.
        data: Images and labels.
        kind: ``|g|``; the mean over images of ``|g|`` (Molchanov et al. 2017, 1611.06440, eq. 8); ``|-g + h / 2|``, h
            exact; or the same with the mean over images of ``g^2`` for h.

    """
    assert data.labels is not None
    slopes, curvatures = _derivatives(network, groups, data)
    means = slopes.mean(0)
    found = {
        "first order": means.abs(),
        "mean of absolutes": slopes.abs().mean(0),
        "exact": (curvatures.mean(0) / 2 - means).abs(),
        "fisher": (slopes.square().mean(0) / 2 - means).abs(),
    }
    return found[kind].numpy()


def _derivatives(network: Network, groups: ChannelGroups, data: CriterionData) -> tuple[Tensor, Tensor]:
    """Return first and second derivative of every image's loss by every unit's gate, ``(n_images, n_units)`` each."""
    assert data.images is not None
    assert data.labels is not None
    module = DoubleNetwork(network).module
    ones = torch.ones(len(data.images), groups.n_units, dtype=torch.float64, requires_grad=True)

    def gate(name: str) -> None:
        channels = groups.layers[name].output
        assert channels is not None

        def hook(_: nn.Module, args: object, output: Tensor) -> Tensor:
            shape = [len(output), *(1 for _ in output.shape[1:])]
            shape[channels.dim] = len(channels.ids)
            return output * ones[:, torch.from_numpy(channels.ids)].reshape(shape)

        module.get_submodule(name).register_forward_hook(hook)

    for name in gates(network, groups):
        gate(name)
    logits = module(data.images.double())
    rows = [torch.autograd.grad(logits[:, k].sum(), ones, retain_graph=True)[0] for k in range(logits.shape[1])]
    jacobian = torch.stack(rows, 1)  # (n_images, classes, n_units)
    shares = torch.softmax(logits.detach(), 1)
    wrong = shares - nn.functional.one_hot(data.labels, logits.shape[1])
    means = torch.einsum("nc,ncu->nu", shares, jacobian)
    squares = torch.einsum("nc,ncu->nu", shares, jacobian.square())
    return torch.einsum("nc,ncu->nu", wrong, jacobian), squares - means.square()
