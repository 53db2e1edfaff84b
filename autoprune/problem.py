"""A pruning problem: what may be pruned, how far, and within which budget. Every policy is projected onto it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.budget import Budget
from autoprune.costs.cost_model import CostModel, cost_model
from autoprune.costs.latency_cost import latency_cost
from autoprune.costs.widths import MAX_RATIO, allowed_widths
from autoprune.criteria.catalog import find_criterion
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.errors import BudgetError, ModelError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.latency_tables.table import ALIGNMENT, LatencyTable
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.width_problem import WidthProblem, absolute_limits
from autoprune.reconstruction.gram import GramStatistics
from autoprune.reconstruction.orders import ranked_groups

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PruningProblem(WidthProblem):
    """Everything a search needs to know about a network, except how good its candidates are.

    Attributes:
        network: The unpruned network.
        all_groups: Every channel group, frozen ones included.
        groups: The decision groups; policies and kept counts are in this order.
        order: Per decision group, its unit indices from most to least important by `criterion`.
        scores: Per decision group, the scores of its units in that order, never rising, ``(n_units,)``; of one scale
            over all groups.
        statistics: Gram matrices of the layers behind the groups; None where candidates are not reconstructed.
        criterion: Name of the criterion that ordered the units.
        model_sha256: Fingerprint of the network as loaded, written into every plan.

    """

    network: Network
    all_groups: ChannelGroups
    groups: tuple[ChannelGroup, ...]
    order: tuple[tuple[int, ...], ...]
    scores: tuple[NDArray[np.float64], ...]
    statistics: GramStatistics | None
    criterion: str
    model_sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the decision groups."""
        return tuple(group.name for group in self.groups)

    @property
    def producers(self) -> tuple[str, ...]:
        """The first layer that produces each decision group's channels."""
        return tuple(group.producers[0] for group in self.groups)

    def layer_costs(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return the MACs of each layer, in execution order, for kept counts, ``(n_groups,)``."""
        return self.costs.layer_macs(kept)

    def plan(self, policy: PruningPolicy) -> Plan:
        """Return the plan that keeps the most important units of every group."""
        kept = self.kept(policy)
        return Plan(
            {
                group.name: tuple(sorted(order[:count]))
                for group, order, count in zip(self.groups, self.order, kept.tolist(), strict=True)
            },
            self.model_sha256,
        )


def pruning_problem(
    network: Network,
    budget: Budget,
    *,
    criterion: str = "l1",
    round_to: int = 1,
    max_ratio: float = MAX_RATIO,
    include_residual: bool = False,
    groups: ChannelGroups | None = None,
    statistics: GramStatistics | None = None,
    data: CriterionData = NO_DATA,
    latencies: LatencyTable | None = None,
    model_sha256: str | None = None,
    opset: int = 18,
) -> PruningProblem:
    """Set up a problem; `groups` may be passed where they are already known.

    Plans carry `model_sha256`, the fingerprint of the network as a user can load it again; it is that of `network`
    itself unless `network` was prepared with data (measured batch norm) after loading. `opset` is that of the file to
    be exported; it matters for budgets of bytes.

    With `statistics`, Gram matrices of the layers behind the groups, the problem knows the error of every width, and
    the criterion may be ``"obs"``. All others that need images or labels get them in `data`.

    With `latencies`, the table of a device, latency is a cost and can be limited. Widths are then multiples of 8, and
    of `round_to`: a runtime takes longer for other widths than for the next wider multiple. The limit is lowered by
    the table's mean error.

    Raises:
        LatencyTableError: The table does not know this network, or not well enough.
        SearchError: Criterion ``"obs"`` without statistics.
        ModelError: Nothing in the network can be pruned.
        BudgetError: `round_to` or `max_ratio` out of range, or a budget the unpruned network already holds.
        InfeasibleBudgetError: A budget below the smallest reachable cost.
        UnknownNameError: No such criterion.
        CriterionError: The criterion cannot score this network, or not with this data.
        NumericalError: A criterion's scores of a group are not finite, or all 0.

    """
    find_criterion(criterion, "channel")
    all_groups = groups or find_groups(network)
    chosen = all_groups.prunable(include_residual=include_residual)
    if not chosen:
        reasons = "; ".join(f"{g.name}: {g.frozen or 'residual stream, opt-in'}" for g in all_groups.groups[:8])
        raise ModelError(
            f"this network has no channel group that may be pruned ({reasons or 'no layer with channels'})"
        )
    widths, costs = widths_and_costs(
        network, all_groups, chosen, round_to=round_to, max_ratio=max_ratio, latencies=latencies, opset=opset
    )
    limits = absolute_limits(budget, costs, widths)
    ranked = ranked_groups(network, all_groups, chosen, criterion, statistics, data)
    pairs = tuple(zip(ranked, widths, strict=True))
    return PruningProblem(
        costs=costs,
        limits=limits,
        widths=widths,
        errors=tuple(each.errors[width] for each, width in pairs if each.errors is not None) or None,
        network=network,
        all_groups=all_groups,
        groups=chosen,
        order=tuple(each.order for each in ranked),
        scores=tuple(each.scores for each in ranked),
        statistics=statistics,
        criterion=criterion,
        model_sha256=model_sha256 or network.fingerprint(),
    )


def widths_and_costs(
    network: Network,
    all_groups: ChannelGroups,
    groups: Sequence[ChannelGroup],
    *,
    round_to: int = 1,
    max_ratio: float = MAX_RATIO,
    latencies: LatencyTable | None = None,
    opset: int = 18,
) -> tuple[tuple[Counts, ...], CostModel]:
    """Return what each of `groups` may keep, ascending, and what that costs; see :func:`pruning_problem`.

    Raises:
        BudgetError: `round_to` or `max_ratio` out of range.
        LatencyTableError: The table does not know this network, or not well enough.

    """
    if round_to < 1:
        raise BudgetError(f"round_to must be a whole number of channels, at least 1, found {round_to}")
    if not 0 < max_ratio < 1:
        raise BudgetError(f"max_ratio must lie between 0 and 1, found {max_ratio}")
    step = round_to if latencies is None else math.lcm(round_to, ALIGNMENT)
    widths = tuple(allowed_widths(len(group), step, max_ratio) for group in groups)
    costs = cost_model(network, all_groups, groups, opset=opset)
    if latencies is not None:
        costs = costs.with_latency(latency_cost(network, all_groups, groups, widths, latencies))
    return widths, costs
