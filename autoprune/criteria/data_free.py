"""Criteria that look at weights alone."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.criteria.data import CriterionData
from autoprune.criteria.members import Scores, add_up, filters, sum_members, sum_sides, weights_of
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.batchnorm import is_restored
from autoprune.network.network import Network

#: What is divided by where all weights of a layer are 0.
_TINY = 1e-300


def magnitudes(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return |w| of every weight (Han et al. 2015, 1506.02626)."""
    return {name: weight.abs() for name, weight in weights_of(network).items()}


def l2_norms(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return the L2 norm of all weights of every unit."""
    squares = {name: weight.square() for name, weight in weights_of(network).items()}
    return np.sqrt(sum_members(network, groups, squares))


def median_distances(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return the sum of every unit's distances to the other units of its group (He et al. 2019, 1811.00250).

    A unit's filter is all that makes it: with several producers (a residual stream, a depthwise layer) all of theirs.
    The filter with the smallest sum is nearest to the geometric median, and the others can best stand in for it.
    """
    scores = np.zeros(groups.n_units)
    for group in groups.groups:
        rows = filters(network, groups, group)
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        scores[list(group.units)] = distances.sum(1).numpy()
    return scores


def batchnorm_scales(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return the mean |gamma| of the trained batch norms of every unit, 0 without one (Liu et al. 2017, 1708.06519)."""
    trained = {name: layer for name, layer in network.layers().items() if not is_restored(name)}
    return mean_scales(trained, groups, without=0.0)


def mean_scales(layers: Mapping[str, nn.Module], groups: ChannelGroups, *, without: float) -> Scores:
    """Return the mean |gamma| of every unit over those layers that are batch norms; `without` where there is none."""
    total, count = np.zeros(groups.n_units), np.zeros(groups.n_units)
    for name, layer in layers.items():
        if isinstance(layer, nn.BatchNorm2d) and layer.affine:
            scales = layer.weight.detach().double().abs().cpu().numpy()
            add_up(total, groups.layers[name].output, scales)
            add_up(count, groups.layers[name].output, np.ones(len(scales)))
    means = np.full(groups.n_units, without)
    np.divide(total, count, out=means, where=count > 0)
    return means


def weight_shares(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Return LAMP scores of single weights (Lee et al. 2021, 2010.07611); the largest of a layer has 1."""
    return {
        name: torch.from_numpy(_lamp(weight.flatten().square().numpy())).reshape(weight.shape)
        for name, weight in weights_of(network).items()
    }


def unit_shares(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return LAMP scores of units: that of weights, over the sums of w^2 of a group's units."""
    squares = l2_norms(network, groups, data) ** 2
    for group in groups.groups:
        squares[list(group.units)] = _lamp(squares[list(group.units)])
    return squares


def random_units(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Draw a number from [0, 1) for every unit."""
    return np.random.default_rng(data.seed).random(groups.n_units)


def random_weights(network: Network, data: CriterionData) -> dict[str, Tensor]:
    """Draw a number from [0, 1) for every weight."""
    generator = np.random.default_rng(data.seed)
    return {
        name: torch.from_numpy(generator.random(tuple(weight.shape))) for name, weight in weights_of(network).items()
    }


def reader_shares(network: Network, groups: ChannelGroups, data: CriterionData) -> Scores:
    """Return ``sum over readers of (sum of |w| that reads the unit) / (sum of |w| of the reader)``, per unit.

    A reader is a layer whose inputs hold the unit. The shares of one reader add up to 1, however large its weights.
    """
    sums = {name: weight.abs() for name, weight in weights_of(network).items()}
    shares = {name: values / values.sum().clamp(min=_TINY) for name, values in sums.items()}
    return sum_sides(network, groups, shares)[1]


def _lamp(squares: Scores) -> Scores:
    """Return each square as a share of those no smaller, ``(n,)``; of equals the first counts as the largest."""
    order = np.argsort(-squares, kind="stable")
    sums = np.cumsum(squares[order])
    scores = np.zeros(len(squares))
    scores[order] = np.divide(squares[order], sums, out=np.zeros(len(squares)), where=sums != 0)
    return scores
