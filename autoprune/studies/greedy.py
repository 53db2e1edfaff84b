"""Channels removed one by one, always the one of lowest score, scores taken anew every time; nothing is trained."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from autoprune.criteria.members import Scores
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.network import Network
from autoprune.studies.oracle import leave_one_out, loss_of
from autoprune.training.channel_removal import ChannelScore, Kept, without_lowest


def remove_greedily(
    network: Network,
    chosen: Sequence[ChannelGroup],
    score: ChannelScore,
    images: Tensor,
    labels: Tensor,
    *,
    rise: float,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Return the loss before the first removal and after each, up to the first that is more than `rise` above it.

    Args:
        network: Not changed.
        chosen: Its groups that channels may be removed of; one of each stays.
        score: Ranks the channels of the network as it is at the time.
        images: What the loss is measured on, ``(n, C, H, W)``, normalised.
        labels: ``(n,)`` int64.
        rise: In nats; without a channel that could still go, the list ends below.
        progress: Called after each removal with channels removed and the loss.

    Raises:
        NumericalError: A score or an output is not finite.

    """
    kept: Kept = {group.name: np.arange(len(group)) for group in chosen}
    losses = [loss_of(network.module, images, labels)]
    for removed in range(1, sum(map(len, chosen)) - len(chosen) + 1):
        network, kept = without_lowest(network, kept, score, 1)
        losses.append(loss_of(network.module, images, labels))
        if progress is not None:
            progress(removed, losses[-1])
        if losses[-1] > losses[0] + rise:
            break
    return losses


def removed_within(losses: Sequence[float], rise: float) -> int:
    """Return how many channels went before the loss first was more than `rise` above the first; see above."""
    above = [number for number, loss in enumerate(losses) if loss > losses[0] + rise]
    return above[0] - 1 if above else len(losses) - 1


def oracle_scores(names: Sequence[str], images: Tensor, labels: Tensor, *, absolute: bool = True) -> ChannelScore:
    """Return what scores channels by the leave-one-out oracle, measured anew on every network.

    Args:
        names: Groups that are scored; others, and groups with one channel left, score 0.
        images: What the loss is measured on.
        labels: Likewise.
        absolute: By the absolute loss change; else by what the loss gains.

    """

    def score(network: Network, groups: ChannelGroups) -> Scores:
        chosen = [group for group in groups.groups if group.name in names and len(group) > 1]
        changes = leave_one_out(network, groups, chosen, images, labels).changes
        scores = np.zeros(groups.n_units)
        for group in chosen:
            scores[list(group.units)] = np.abs(changes[group.name]) if absolute else changes[group.name]
        return scores

    return score
