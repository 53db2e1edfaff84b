"""Network Slimming: channels cut by one threshold over the scales of all batch norms (Liu et al. 2017, 1708.06519)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.criteria.data_free import mean_scales
from autoprune.criteria.members import Scores
from autoprune.errors import ModelError, NumericalError, SearchError
from autoprune.groups.channel_group import ChannelGroups
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.training.rounds import removed_count

#: How far a penalty of usual strength moves a scale in the course of a training, if nothing else does; they begin at 1.
#: In the paper, 1e-4 moves it so far: 160 epochs of 782 steps, most of them at 0.1 or 0.01, with a momentum of 0.9.
PULL = 7.0


def usual_strength(training: FinetuneSettings, images: int) -> float:
    """Return the strength of an L1 penalty that suits the length of a training with SGD on so many images."""
    steps_per_epoch = training.steps_per_epoch(images)
    rates = (training.learning_rate_at(step, steps_per_epoch) for step in range(training.epochs * steps_per_epoch))
    return PULL * (1 - training.momentum) / sum(rates)


def gamma_scores(network: Network, groups: ChannelGroups) -> Scores:
    """Return the mean |gamma| of the batch norms that every unit goes through, ``(n_units,)``; NaN without one."""
    return mean_scales(network.layers(), groups, without=np.nan)


def slim_plan(network: Network, groups: ChannelGroups, share: float, *, include_residual: bool = False) -> Plan:
    """Return the plan that removes a share of all prunable channels: those of smallest gamma, over all layers.

    Args:
        network: Trained with :func:`autoprune.training.penalties.GammaL1`, or another penalty on the scales.
        groups: Of `network`; those whose channels go through no batch norm stay whole.
        share: Of the channels, from 0 to below 1, rounded; of every group at least one channel stays.
        include_residual: Also cut residual streams.

    Raises:
        SearchError: `share` is out of range.
        ModelError: No channel that can be removed goes through a batch norm.
        NumericalError: A scale is not finite.

    """
    if not 0 <= share < 1:
        raise SearchError(f"expected the share of channels to remove, from 0 to below 1, found {share}")
    scores = gamma_scores(network, groups)
    slimmed = [
        g for g in groups.prunable(include_residual=include_residual) if not np.isnan(scores[list(g.units)]).any()
    ]
    if not slimmed:
        raise ModelError("network slimming needs channels behind batch norms with a scale, found none to remove")
    count = removed_count(sum(len(group) for group in slimmed), share)
    removed = lowest_units(scores, [np.array(group.units) for group in slimmed], count)
    kept = {
        group.name: tuple(index for index, unit in enumerate(group.units) if unit not in removed) for group in slimmed
    }
    return Plan(kept, network.fingerprint())


def lowest_units(scores: Scores, groups: Sequence[NDArray[np.int64]], count: int) -> frozenset[int]:
    """Return the `count` units of lowest score, or all that can go: the best of each group stays.

    Args:
        scores: Of every unit of the network, ``(n_units,)``.
        groups: Numbers of the units of each group that may be cut.
        count: How many go.

    Raises:
        NumericalError: A score is not finite.

    """
    units = np.concatenate(groups)
    if not np.isfinite(scores[units]).all():
        raise NumericalError("expected finite scores of channels; check the weights for NaN, or train at a lower rate")
    protected = {int(each[np.argmax(scores[each])]) for each in groups}
    order = units[np.argsort(scores[units], kind="stable")].tolist()
    return frozenset([unit for unit in order if unit not in protected][:count])
