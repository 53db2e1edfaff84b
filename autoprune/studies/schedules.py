"""One shot against iterative pruning: the same MACs in the end, the same training in all, one cut or several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autoprune.costs.cost_model import cost_model
from autoprune.criteria.members import Scores
from autoprune.errors import SearchError
from autoprune.evaluation.metrics import score as scores_of
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.network.network import Network
from autoprune.recovery.finetune import finetune
from autoprune.recovery.finetune_settings import FinetuneSettings
from autoprune.studies.oracle import Progress
from autoprune.training.channel_removal import ChannelScore, Kept, without_lowest
from autoprune.training.slimming import lowest_units

#: Share of the training behind the last of several cuts.
LAST_PART = 0.5


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How a network is brought to a share of its MACs.

    Attributes:
        training: All of it. Half of its minibatches, and all where there is one cut, follow the last cut; the others
            are dealt evenly to the cuts before. Each part has a schedule of the rate, and a seed, of its own.
        kept: Share of the MACs that may be left.
        rounds: Cuts; after number r the MACs are at most ``1 - (1 - kept) r / rounds``.
        include_residual: Also remove channels of residual streams.

    """

    training: FinetuneSettings
    kept: float
    rounds: int
    include_residual: bool = False

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SearchError: A value out of range.

        """
        if not 0 < self.kept < 1 or self.rounds < 1 or self.training.epochs < 1:
            raise SearchError(
                "a schedule needs a share of the MACs above 0 and below 1, at least 1 round and 1 epoch, "
                f"found {self.kept}, {self.rounds} and {self.training.epochs}"
            )


@dataclass(frozen=True, slots=True)
class Cut:
    """What one cut, and the training after it, left.

    Attributes:
        macs: Share of the whole network's.
        channels: Left of those that could go.
        before: Accuracy on the judging images right after the cut.
        after: The same after the training.

    """

    macs: float
    channels: int
    before: float
    after: float


def run_schedule(
    network: Network,
    fit: tuple[Tensor, Tensor],
    judge: tuple[Tensor, Tensor],
    settings: ScheduleSettings,
    score: ChannelScore,
    *,
    progress: Progress | None = None,
) -> tuple[Cut, ...]:
    """Cut the channels of lowest score, train, and so on; return what every cut left.

    Args:
        network: Trained; not changed, and the teacher where the training has one.
        fit: Images ``(n, C, H, W)``, normalised, and labels ``(n,)`` to train on; taken in order, over and over again.
        judge: Others, to score on.
        settings: How much, and how often.
        score: Ranks the channels of all groups of the network as it is at the time.
        progress: Called after each cut and training; what it raises ends the study.

    Raises:
        DatasetError: Images and labels that cannot be trained on.
        SearchError: The share of MACs cannot be reached, or there are more rounds than minibatches.
        NumericalError: The training diverged, or a score is not finite.

    """
    steps = settings.training.epochs * settings.training.steps_per_epoch(len(fit[0]))
    borders = _borders(steps, settings.rounds)
    whole = _macs(network, find_groups(network), ())
    chosen = find_groups(network).prunable(include_residual=settings.include_residual)
    kept: Kept = {group.name: np.arange(len(group)) for group in chosen}
    current, cuts = network, []
    for number in range(settings.rounds):
        limit = whole * (1 - (1 - settings.kept) * (number + 1) / settings.rounds)
        groups = find_groups(current)
        candidates = [group for group in groups.groups if group.name in kept and len(group) > 1]
        scores = score(current, groups)
        count = _count(current, groups, candidates, scores, limit)
        current, kept = without_lowest(current, kept, lambda *_, scores=scores: scores, count)
        before = _accuracy(current, judge)
        current = _trained(current, network, fit, settings.training, borders[number], borders[number + 1])
        left = sum(map(len, kept.values()))
        cuts.append(Cut(_macs(current, find_groups(current), ()) / whole, left, before, _accuracy(current, judge)))
        if progress is not None:
            progress(number + 1, settings.rounds, f"cuts, {cuts[-1].macs:.0%} of the MACs left")
    return tuple(cuts)


def _borders(steps: int, rounds: int) -> list[int]:
    """Return how many minibatches are done before each cut, and in the end, ``(rounds + 1,)``.

    Raises:
        SearchError: Fewer than one per cut.

    """
    between = 0 if rounds == 1 else int(steps * (1 - LAST_PART))
    if rounds - 1 > between or steps == between:
        raise SearchError(f"{rounds} cuts share {steps} minibatches, too few; train longer, or cut less often")
    return [*np.linspace(0, between, rounds).astype(int).tolist(), steps]


def _count(
    network: Network, groups: ChannelGroups, candidates: Sequence[ChannelGroup], scores: Scores, limit: float
) -> int:
    """Return the smallest number of channels of lowest score without which the MACs are at most `limit`.

    Raises:
        SearchError: Not even without all that may go.

    """
    units = [np.array(group.units) for group in candidates]
    costs = cost_model(network, groups, candidates)

    def macs(count: int) -> int:
        gone = lowest_units(scores, units, count)
        return costs.cost([sum(unit not in gone for unit in group.units) for group in candidates])["macs"]

    low, high = 0, sum(map(len, units)) - len(units)
    if macs(high) > limit:
        raise SearchError(
            f"with one channel per group {macs(high):,} MACs are left, more than the {limit:,.0f} asked for; keep a "
            "larger share, or remove channels of residual streams too"
        )
    while low < high:
        middle = (low + high) // 2
        if macs(middle) <= limit:
            high = middle
        else:
            low = middle + 1
    return low


def _macs(network: Network, groups: ChannelGroups, chosen: Sequence[ChannelGroup]) -> int:
    """Return the MACs of a network."""
    return cost_model(network, groups, chosen).cost([])["macs"]


def _accuracy(network: Network, judge: tuple[Tensor, Tensor]) -> float:
    """Return the share of right answers."""
    top1 = scores_of(network.module, *judge).top1
    assert top1 is not None, "there are labels"
    return top1


def _trained(
    current: Network, teacher: Network, fit: tuple[Tensor, Tensor], training: FinetuneSettings, first: int, last: int
) -> Network:
    """Train with the minibatches from number `first` up to `last`, of all images in order, over and over again."""
    images = (torch.arange(first * training.batch_size, last * training.batch_size)) % len(fit[0])
    part = replace(training, epochs=1, seed=training.seed + first)
    module = finetune(current.module, *fit, part, teacher=teacher.module, chosen=images).module
    return Network(module, current.input_shape, current.shapes)
