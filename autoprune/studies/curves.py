"""Sensitivity curves: every group pruned alone, to a grid of shares (Li et al. 2017, 1608.08710, fig. 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx

from autoprune.datasets.splits import SearchSplits
from autoprune.errors import SearchError
from autoprune.evaluation.evaluator import RECALIBRATION_IMAGES
from autoprune.evaluation.metrics import predict, score_logits
from autoprune.evaluation.recalibration import recalibrate
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.surgery import prune
from autoprune.reconstruction.gram import GramStatistics
from autoprune.reconstruction.reconstructor import Reconstructor
from autoprune.studies.notebook import Notebook
from autoprune.studies.oracle import Progress

#: What is done after the cut, before scoring: nothing; batch norms recalibrated; the layers behind the group
#: reconstructed too, as in a search.
Recovery = Literal["none", "batchnorm", "reconstruction"]

#: Channel indices of every group, most important first.
Orders = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Point:
    """One network: one group pruned, all others whole.

    Attributes:
        group: Its name.
        recovery: What was done after the cut.
        removed: Share of its channels that went.
        kept: Channels left.
        quality: Share of right answers on the search split; without labels, of answers that are the whole network's.
        loss: Mean cross entropy there; without labels, the divergence from the whole network; in nats.

    """

    group: str
    recovery: Recovery
    removed: float
    kept: int
    quality: float
    loss: float


@dataclass(frozen=True, slots=True)
class Curves:
    """All points, by group and recovery, shares ascending; the first of each is the whole network."""

    points: tuple[Point, ...]

    def of(self, group: str, recovery: Recovery) -> tuple[Point, ...]:
        """Return one curve."""
        return tuple(point for point in self.points if (point.group, point.recovery) == (group, recovery))


def sensitivity_curves(
    network: Network,
    groups: ChannelGroups,
    orders: Orders,
    splits: SearchSplits,
    *,
    steps: int,
    recoveries: Sequence[Recovery],
    statistics: GramStatistics | None = None,
    notebook: Notebook | None = None,
    progress: Progress | None = None,
) -> Curves:
    """Prune every group that `orders` names alone, to the shares 1 / (steps + 1), 2 / (steps + 1), ...; score each.

    Shares that leave the same number of channels are measured once; one channel stays.

    Args:
        network: Not changed.
        groups: All its groups.
        orders: Which groups, and which of their channels go last.
        splits: Recalibration takes the first fit images, scores all search images.
        steps: Shares between 0 and 1.
        recoveries: What is done after a cut; a curve each.
        statistics: Of the layers behind the groups, for ``"reconstruction"``.
        notebook: Keeps what was measured.
        progress: Called after every point; what it raises ends the study.

    Raises:
        SearchError: No shares, or reconstruction without statistics.
        NumericalError: A statistic or an output is not finite.

    """
    if steps < 1 or ("reconstruction" in recoveries and statistics is None):
        raise SearchError("curves need at least one share, and Gram statistics for reconstruction")
    measure = _Measure(network, groups, splits, statistics)
    notebook = Notebook() if notebook is None else notebook  # an empty one is false
    by_name = {group.name: group for group in groups.groups}
    planned = [
        (group, recovery, kept)
        for group in (by_name[name] for name in orders)
        for recovery in recoveries
        for kept in _widths(len(group), steps)
    ]
    points = []
    for done, (group, recovery, kept) in enumerate(planned, start=1):

        def figures(group: ChannelGroup = group, recovery: Recovery = recovery, kept: int = kept) -> list[float]:
            return measure(Plan({group.name: tuple(sorted(orders[group.name][:kept]))}, ""), recovery)

        key = ["whole"] if kept == len(group) else [group.name, recovery, kept]
        quality, loss = notebook.get(key, figures if kept < len(group) else measure.whole)
        points.append(Point(group.name, recovery, 1 - kept / len(group), kept, quality, loss))
        if progress is not None:
            progress(done, len(planned), f"networks scored, {group.name}")
    return Curves(tuple(points))


def _widths(size: int, steps: int) -> list[int]:
    """Return the numbers of channels to keep, the whole group first."""
    kept = [round(size * (1 - step / (steps + 1))) for step in range(steps + 1)]
    return list(dict.fromkeys(max(1, count) for count in kept))


class _Measure:
    """Scores what plans leave."""

    def __init__(
        self, network: Network, groups: ChannelGroups, splits: SearchSplits, statistics: GramStatistics | None
    ) -> None:
        self._network, self._groups, self._search = network, groups, splits.search
        self._fit = splits.fit.inputs[:RECALIBRATION_IMAGES]
        self._reference = predict(network.module, splits.search.inputs)
        self._reconstructor = None if statistics is None else Reconstructor(network, groups, statistics)

    def whole(self) -> list[float]:
        """Return quality and loss of the whole network."""
        return self._figures(self._reference)

    def __call__(self, plan: Plan, recovery: Recovery) -> list[float]:
        """Return quality and loss of what `plan` leaves."""
        module: fx.GraphModule = prune(self._network, self._groups, plan)
        if recovery == "reconstruction":
            assert self._reconstructor is not None, "checked"
            self._reconstructor.apply(module, plan)
        if recovery != "none":
            recalibrate(module, self._fit)
        return self._figures(predict(module, self._search.inputs))

    def _figures(self, logits: torch.Tensor) -> list[float]:
        """Return quality and loss of outputs."""
        scores = score_logits(logits, self._search.labels, reference_logits=self._reference)
        return [scores.objective, scores.regret]
