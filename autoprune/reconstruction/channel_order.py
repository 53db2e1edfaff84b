"""Which channels of a group go first, and what the layers behind it lose at every width: structured OBS.

With H = X^T X of a layer's inputs, removing the features of unit j costs ``tr(W_j (H^-1_jj)^-1 W_j^T)`` of the layer's
output, if the other weights are updated to make good what they can; both cost and update are exact (Hassibi & Stork
1993; for whole structures Frantar, Singh & Alistarh 2022, 2208.11580, and Kurtic et al. 2023, 2302.04089, eq. 3).
Removing the cheapest unit again and again gives a nested order with the error of every width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import NumericalError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.batchnorm import foldable_batchnorms
from autoprune.network.network import Network
from autoprune.reconstruction.gram import Gram, GramStatistics
from autoprune.reconstruction.least_squares import damped, pull
from autoprune.reconstruction.patches import features_of, has_bias, weight_matrix

Errors = NDArray[np.float64]

#: Outputs whose variance is a smaller share of their mean square are constant: nothing is lost with their inputs.
_CONSTANT = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class ChannelOrder:
    """How a group is pruned, unit by unit.

    Attributes:
        order: Its unit indices from most to least important, ``(n_units,)``.
        errors: By kept count, ``(n_units + 1,)``: sum over the consumers of what least squares leaves (squared error of
            the outputs, and the pull), as a share of what is left without any input: the variance of the outputs where
            a bias can be fitted. Each consumer adds at most 1; 0 where all units are kept or outputs are constant.

    """

    order: tuple[int, ...]
    errors: Errors


def channel_order(
    network: Network,
    groups: ChannelGroups,
    group: ChannelGroup,
    statistics: GramStatistics,
    *,
    order: Sequence[int] | None = None,
    ridge: float | None = None,
) -> ChannelOrder | None:
    """Return the OBS order of `group` with its errors; with `order`, the errors of that order.

    None where none of the group's consumers was measured. Deterministic; of equally cheap units the first goes first.

    Args:
        network: The unpruned network.
        groups: All its groups.
        group: The group to order.
        statistics: Gram matrices of its consumers.
        order: Unit indices from most to least important, to be followed instead of the cheapest.
        ridge: Relative pull towards the trained weights, as in the reconstruction; None for what fits the samples.

    Raises:
        NumericalError: A Gram matrix has no inverse even with a stronger pull.

    """
    norms = frozenset(foldable_batchnorms(network).values())
    layers = network.layers()
    maps: list[_Map] = []
    for name in dict.fromkeys(group.consumers):
        if name in statistics.grams:
            fit_bias = has_bias(layers[name]) or name in norms
            maps += _maps(name, layers[name], groups, group, statistics.grams[name], fit_bias, ridge)
    if not maps:
        return None
    alive = list(range(len(group)))
    errors = np.zeros(len(group) + 1)
    gone: list[int] = []
    for left in range(len(group) - 1, -1, -1):
        if order is None:
            costs = sum((each.costs(alive) for each in maps), np.zeros(len(alive)))
            chosen = int(np.argmin(costs))
            cost = float(costs[chosen])
        else:
            chosen = alive.index(order[left])
            cost = float(sum(each.costs([alive[chosen]])[0] for each in maps))
        unit = alive.pop(chosen)
        for each in maps:
            each.remove(unit)
        gone.append(unit)
        errors[left] = errors[left + 1] + max(0.0, cost)
    if not np.isfinite(errors).all():
        raise NumericalError(f"group {group.name!r}: reconstruction errors are not finite; check weights and images")
    return ChannelOrder(tuple(reversed(gone)), errors)


class _Map:
    """One linear map behind the group, as the sweep goes: updated weights and the inverse on what is left."""

    def __init__(self, weight: Tensor, inverse: Tensor, columns: Mapping[int, Tensor], scale: float) -> None:
        self._weight, self._inverse, self._columns, self._scale = weight, inverse, columns, scale

    def costs(self, units: Sequence[int]) -> Errors:
        """Return what removing each of `units` alone costs now, ``(len(units),)``."""
        costs = np.zeros(len(units))
        here = [i for i, unit in enumerate(units) if unit in self._columns]
        if not here:
            return costs
        index = torch.stack([self._columns[units[i]] for i in here])  # (units, features of each)
        blocks = self._inverse[index[:, :, None], index[:, None, :]]
        weights = self._weight[:, index].permute(1, 2, 0)  # (units, features, outputs)
        solved = torch.cholesky_solve(weights, torch.linalg.cholesky(blocks))
        costs[here] = self._scale * (weights * solved).sum((1, 2)).numpy()
        return costs

    def remove(self, unit: int) -> None:
        """Take the unit's features out: update the weights that stay and the inverse (2208.11580, eqs. 3 and 4)."""
        gone = self._columns.get(unit)
        if gone is None:
            return
        rows = self._inverse[gone]
        gain = torch.linalg.solve(rows[:, gone], rows)
        self._weight.addmm_(self._weight[:, gone], gain, alpha=-1)
        self._weight[:, gone] = 0.0
        self._inverse.addmm_(rows.T, gain, alpha=-1)


def _maps(
    name: str,
    layer: nn.Module,
    groups: ChannelGroups,
    group: ChannelGroup,
    gram: Gram,
    fit_bias: bool,
    ridge: float | None,
) -> list[_Map]:
    """Return the linear maps of one consumer."""
    source = groups.layers[name].inputs[0]
    assert source is not None
    columns: list[dict[int, list[Tensor]]] = [{} for _ in range(len(gram.matrix))]
    index_of = {unit: index for index, unit in enumerate(group.units)}
    for position, unit in enumerate(source.ids.tolist()):
        if unit in index_of:
            which, features = features_of(layer, position)
            columns[which].setdefault(index_of[unit], []).append(features)
    weight, bias = weight_matrix(layer)
    size = weight.shape[2] + int(fit_bias)
    ridge = pull(weight.shape[2], gram.samples) if ridge is None else ridge
    whole, scale = _without_inputs(gram.matrix, weight, fit_bias, ridge), 0.0
    if whole > _CONSTANT * float(((weight @ gram.matrix[:, :-1, :-1]) * weight).sum() + bias.square().sum()):
        scale = 1.0 / whole
    return [
        _Map(
            torch.cat([weight[i], bias[i][:, None]], dim=1)[:, :size].clone(),
            _inverse(name, gram.matrix[i], size, ridge),
            {unit: torch.cat(parts) for unit, parts in columns[i].items()},
            scale,
        )
        for i in range(len(columns))
        if columns[i]
    ]


def _without_inputs(gram: Tensor, weight: Tensor, fit_bias: bool, ridge: float) -> float:
    """Return what least squares leaves of a layer that loses all its inputs, the pull included, over all maps."""
    total = 0.0
    for matrix, rows in zip(gram, weight, strict=True):
        moments = damped(matrix, ridge)[:-1, :-1]
        if fit_bias:
            moments = moments - torch.outer(matrix[:-1, -1], matrix[:-1, -1])
        total += float(((rows @ moments) * rows).sum())
    return total


def _inverse(name: str, gram: Tensor, size: int, ridge: float) -> Tensor:
    """Return the inverse of the damped matrix's leading `size` rows; with a stronger pull where it has none."""
    for strength in (1.0, 1e2, 1e4):
        factor, info = torch.linalg.cholesky_ex(damped(gram, max(ridge, 1e-12) * strength)[:size, :size])
        if int(info) == 0:
            inverse: Tensor = torch.cholesky_inverse(factor)
            return inverse
    raise NumericalError(f"layer {name!r}: the Gram matrix of its inputs has no inverse; are its inputs all zero?")
