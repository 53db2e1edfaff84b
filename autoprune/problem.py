"""A pruning problem: what may be pruned, how far, and within which budget. Every policy is projected onto it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.budget import Budget, holds
from autoprune.costs.cost_model import CostModel, cost_model
from autoprune.costs.latency_cost import latency_cost
from autoprune.costs.quantities import LATENCY, shown
from autoprune.costs.widths import MAX_RATIO, allowed_widths
from autoprune.errors import BudgetError, InfeasibleBudgetError, ModelError, SearchError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups, find_groups
from autoprune.latency_tables.table import ALIGNMENT, LatencyTable
from autoprune.network.network import Network
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.reconstruction.gram import GramStatistics
from autoprune.reconstruction.orders import OBS, check_criterion, magnitude_orders, measured_orders

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PruningProblem:
    """Everything a search needs to know about a network, except how good its candidates are.

    Attributes:
        network: The unpruned network.
        all_groups: Every channel group, frozen ones included.
        groups: The decision groups; policies and kept counts are in this order.
        costs: Cost of any kept counts.
        limits: Absolute limits, ``{quantity: largest allowed cost}``; hard.
        widths: Per decision group, the allowed kept counts, ascending, the last one the whole group.
        order: Per decision group, its unit indices from most to least important by `criterion`.
        errors: Per decision group, what the layers behind it lose at each allowed width after reconstruction, relative
            to the variance of their outputs, ``(n_widths,)``, 0 at the whole group; None without statistics.
        statistics: Gram matrices of the layers behind the groups; None where candidates are not reconstructed.
        criterion: Name of the criterion that ordered the units.
        model_sha256: Fingerprint of the network as loaded, written into every plan.

    """

    network: Network
    all_groups: ChannelGroups
    groups: tuple[ChannelGroup, ...]
    costs: CostModel
    limits: Mapping[str, int]
    widths: tuple[Counts, ...]
    order: tuple[tuple[int, ...], ...]
    errors: tuple[NDArray[np.float64], ...] | None
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

    def smallest(self) -> Counts:
        """Return the fewest units each group may keep, ``(n_groups,)``."""
        return np.array([width[0] for width in self.widths], dtype=np.int64)

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return the cost of kept counts, ``(n_groups,)``."""
        return self.costs.cost(kept)

    def layer_costs(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return the MACs of each layer, in execution order, for kept counts, ``(n_groups,)``."""
        return self.costs.layer_macs(kept)

    def fits(self, kept: Sequence[int] | Counts) -> bool:
        """Tell whether kept counts, ``(n_groups,)``, hold the budget."""
        return holds(self.costs.cost(kept), self.limits)

    def kept(self, policy: PruningPolicy) -> Counts:
        """Return the allowed kept counts nearest to what `policy` asks for, ``(n_groups,)``; may exceed the budget.

        Raises:
            SearchError: The policy is for another number of groups.

        """
        if len(policy.ratios) != len(self.groups):
            raise SearchError(f"a policy for this problem has {len(self.groups)} ratios, found {len(policy.ratios)}")
        return self._snap(np.array([(1 - r) * len(g) for r, g in zip(policy.ratios, self.groups, strict=True)]))

    def policy(self, kept: Sequence[int] | Counts) -> PruningPolicy:
        """Return the policy that keeps exactly these counts, ``(n_groups,)``."""
        return PruningPolicy.of(1 - int(k) / len(group) for k, group in zip(kept, self.groups, strict=True))

    def project(self, policy: PruningPolicy, *, fill: bool = False) -> PruningPolicy:
        """Return the policy nearest to `policy` that is allowed and holds the budget.

        A policy over budget is moved towards the smallest network along a straight line until it fits, then single
        groups are widened again towards what was asked while the budget holds. With `fill`, the policy is then moved
        and widened towards the unpruned network in the same way, so that it uses the budget up.
        """
        asked, full = self.kept(policy), self.costs.full()
        if not self.fits(asked):
            kept = self._widen(self._walk(asked, self.smallest()), asked)
        elif fill and not self.fits(full):
            kept = self._walk(full, asked)
        else:
            kept = asked
        return self.policy(self._widen(kept, full) if fill else kept)

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

    def _snap(self, wanted: NDArray[np.float64]) -> Counts:
        """Return the allowed counts nearest to `wanted`, ``(n_groups,)``; of two equally near, the smaller."""
        return np.array(
            [width[np.argmin(np.abs(width - want))] for width, want in zip(self.widths, wanted, strict=True)],
            dtype=np.int64,
        )

    def _walk(self, start: Counts, end: Counts) -> Counts:
        """Return the first fitting counts on the line from `start`, which does not fit, to `end`, which does."""
        low, high = 0.0, 1.0  # low does not fit, high does
        best = end
        for _ in range(40):
            middle = (low + high) / 2
            counts = self._snap(start + middle * (end - start))
            if self.fits(counts):
                high, best = middle, counts
            else:
                low = middle
        return best

    def _widen(self, kept: Counts, towards: Counts) -> Counts:
        """Widen the group furthest behind by one step towards `towards`, again and again while the budget holds."""
        kept = kept.copy()
        open_groups = set(np.flatnonzero(kept < towards).tolist())
        sizes = self.costs.full()
        while open_groups:
            index = max(sorted(open_groups), key=lambda g: (towards[g] - kept[g]) / sizes[g])
            width = self.widths[index]
            wider = kept.copy()
            wider[index] = width[np.searchsorted(width, kept[index], side="right")]
            if wider[index] > towards[index] or not self.fits(wider):
                open_groups.discard(index)
            else:
                kept = wider
                if kept[index] == towards[index]:
                    open_groups.discard(index)
        return kept


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
    latencies: LatencyTable | None = None,
    model_sha256: str | None = None,
    opset: int = 18,
) -> PruningProblem:
    """Set up a problem; `groups` may be passed where they are already known.

    Plans carry `model_sha256`, the fingerprint of the network as a user can load it again; it is that of `network`
    itself unless `network` was prepared with data (measured batch norm) after loading. `opset` is that of the file to
    be exported; it matters for budgets of bytes.

    With `statistics`, Gram matrices of the layers behind the groups, the problem knows the error of every width, and
    the criterion may be ``"obs"``.

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

    """
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
    smallest = costs.cost([int(width[0]) for width in widths])
    limits = budget.resolve(costs.cost(costs.full()), smallest)
    if LATENCY in limits:
        limits[LATENCY] = _with_margin(limits[LATENCY], costs, smallest[LATENCY])
    order, errors = _orders(network, all_groups, chosen, criterion, statistics, widths)
    fingerprint = model_sha256 or network.fingerprint()
    return PruningProblem(
        network, all_groups, chosen, costs, limits, widths, order, errors, statistics, criterion, fingerprint
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


def _with_margin(limit_ns: int, costs: CostModel, smallest_ns: int) -> int:
    """Return a limit of latency less the mean error of the table's predictions: what is measured has to hold too.

    Raises:
        InfeasibleBudgetError: The smallest network is within the limit, but not by that much.

    """
    assert costs.latency is not None
    error = costs.latency.calibration.error
    limit = math.floor(limit_ns * (1 - error))
    if smallest_ns > limit:
        raise InfeasibleBudgetError(
            f"budget latency <= {shown(LATENCY, limit_ns)} is too close to the smallest reachable value, "
            f"{shown(LATENCY, smallest_ns)}, for a table whose predictions are off by {error:.1%}; allow more"
        )
    return limit


def _orders(
    network: Network,
    all_groups: ChannelGroups,
    chosen: Sequence[ChannelGroup],
    criterion: str,
    statistics: GramStatistics | None,
    widths: Sequence[Counts],
) -> tuple[tuple[tuple[int, ...], ...], tuple[NDArray[np.float64], ...] | None]:
    """Return the order of every group and, with statistics, the error at every allowed width."""
    check_criterion(criterion)
    if statistics is None and criterion != OBS:
        return magnitude_orders(network, all_groups, chosen, criterion), None
    measured = measured_orders(network, all_groups, chosen, criterion, statistics)
    errors = tuple(each.errors[width] for each, width in zip(measured, widths, strict=True))
    return tuple(each.order for each in measured), errors
