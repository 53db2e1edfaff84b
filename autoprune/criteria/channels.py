"""Scores of channels: the importance of every unit of a network by a named criterion."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from autoprune.criteria import activity, data_free, gradients
from autoprune.criteria.applicability import check_applicable
from autoprune.criteria.catalog import find_criterion
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.criteria.members import Scores, sum_members
from autoprune.criteria.synflow import synaptic_flow
from autoprune.errors import NumericalError, UnknownNameError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.network import Network

Formula = Callable[[Network, ChannelGroups, CriterionData], Scores]


def score_units(
    network: Network,
    groups: ChannelGroups,
    criterion: str,
    data: CriterionData = NO_DATA,
    *,
    chosen: Sequence[ChannelGroup] | None = None,
) -> Scores:
    """Return the importance of every unit of the network, ``(n_units,)`` float64; deterministic.

    Args:
        network: The unpruned network; not changed.
        groups: All its groups.
        criterion: A name of :data:`autoprune.criteria.catalog.CRITERIA`, except ``"obs"``.
        data: Images of the fit split and a seed, for criteria that need them.
        chosen: The groups whose scores will be used, and are checked; None for all that can be pruned.

    Raises:
        UnknownNameError: No such criterion for channels.
        CriterionError: The criterion cannot score this network, or not with this data; says why.
        NumericalError: A score is not finite, or all scores of a group are 0; names the group.

    """
    entry = find_criterion(criterion, "channel")
    if criterion not in FORMULAS:
        raise UnknownNameError("criterion that scores single channels", criterion, FORMULAS)
    own = groups.prunable(include_residual=True) if chosen is None else chosen
    check_applicable(entry, network, groups, own, data=data)
    scores = FORMULAS[criterion](network, groups, data)
    for group in own:
        _check(criterion, group, scores[list(group.units)])
    return scores


def ranking(group: ChannelGroup, scores: Scores) -> tuple[int, ...]:
    """Return the group's unit indices from most to least important; ties keep channel order."""
    own = scores[list(group.units)]
    return tuple(np.argsort(-own, kind="stable").tolist())


def comparable(criterion: str, scores: Scores) -> Scores:
    """Return scores of one group as they compare with those of others, ``(n_units,)``.

    Divided by their root mean square over the group, unless the criterion's are of one scale as they are.

    Raises:
        UnknownNameError: No such criterion for channels.

    """
    return scores if find_criterion(criterion, "channel").one_scale else scores / np.sqrt(np.mean(scores**2))


def comparable_units(
    network: Network,
    groups: ChannelGroups,
    criterion: str,
    data: CriterionData = NO_DATA,
    *,
    chosen: Sequence[ChannelGroup],
    checked: bool = True,
) -> Scores:
    """Return the importance of every unit, of one scale over the `chosen` groups, ``(n_units,)`` float64.

    Args:
        network: As of :func:`score_units`.
        groups: As of :func:`score_units`.
        criterion: As of :func:`score_units`.
        data: As of :func:`score_units`.
        chosen: The groups whose units are to be ranked together.
        checked: Whether scores that say nothing are refused; otherwise a group whose scores are all 0 stays at 0.

    Raises:
        AutopruneError: See :func:`score_units`.

    """
    scores = score_units(network, groups, criterion, data, chosen=chosen if checked else ())
    for group in chosen:
        units = list(group.units)
        if scores[units].any():
            scores[units] = comparable(criterion, scores[units])
    return scores


def _check(criterion: str, group: ChannelGroup, scores: Scores) -> None:
    """Refuse scores of one group that say nothing."""
    if not np.isfinite(scores).all():
        raise NumericalError(
            f"criterion {criterion!r}: a score of group {group.name!r} is not finite; check the network's weights and "
            "the images for NaN and very large values, or choose criterion 'l2'"
        )
    if not scores.any():
        raise NumericalError(
            f"criterion {criterion!r}: all scores of group {group.name!r} are 0, so that its channels cannot be told "
            "apart: nothing passes through it, or it makes no difference to the output; choose criterion 'l2', or "
            "check that the network is trained and the images are normalised as it expects"
        )


def _summed(values: Callable[[Network, CriterionData], Mapping[str, Tensor]]) -> Formula:
    """Return the criterion of channels that sums a criterion of weights over a unit's members."""
    return lambda network, groups, data: sum_members(network, groups, values(network, data))


#: How each criterion scores channels.
FORMULAS: Mapping[str, Formula] = {
    "l1": _summed(data_free.magnitudes),
    "l2": data_free.l2_norms,
    "fpgm": data_free.median_distances,
    "bn-gamma": data_free.batchnorm_scales,
    "lamp": data_free.unit_shares,
    "random": data_free.random_units,
    "next-layer": data_free.reader_shares,
    "gradient": _summed(gradients.gradient_magnitudes),
    "taylor": _summed(gradients.taylor),
    "group-taylor": gradients.group_taylor,
    "taylor-gate": gradients.gate_taylor,
    "fisher": _summed(gradients.fisher),
    "snip": _summed(gradients.snip),
    "grasp": _summed(gradients.grasp),
    "synflow": _summed(synaptic_flow),
    "apoz": activity.active_shares,
    "mean-activation": activity.mean_activations,
}
