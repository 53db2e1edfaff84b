"""What is left of a pruning problem without its network: allowed widths, their costs, and limits to project onto."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.budget import Budget, holds
from autoprune.costs.cost_model import CostModel
from autoprune.costs.quantities import LATENCY, shown
from autoprune.errors import InfeasibleBudgetError, LatencyTableError, SearchError
from autoprune.pruning.policy import PruningPolicy

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WidthProblem:
    """Which counts every group may keep, what they cost and what they may cost: all that an allocation needs.

    Attributes:
        costs: Cost of any kept counts.
        limits: Absolute limits, ``{quantity: largest allowed cost}``; hard.
        widths: Per decision group, the allowed kept counts, ascending, the last one the whole group.
        errors: Per decision group, what the layers behind it lose at each allowed width after reconstruction, relative
            to the variance of their outputs, ``(n_widths,)``, 0 at the whole group; None without statistics.

    """

    costs: CostModel
    limits: Mapping[str, int]
    widths: tuple[Counts, ...]
    errors: tuple[NDArray[np.float64], ...] | None

    def smallest(self) -> Counts:
        """Return the fewest units each group may keep, ``(n_groups,)``."""
        return np.array([width[0] for width in self.widths], dtype=np.int64)

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return the cost of kept counts, ``(n_groups,)``."""
        return self.costs.cost(kept)

    def fits(self, kept: Sequence[int] | Counts) -> bool:
        """Tell whether kept counts, ``(n_groups,)``, hold the budget."""
        return holds(self.costs.cost(kept), self.limits)

    def kept(self, policy: PruningPolicy) -> Counts:
        """Return the allowed kept counts nearest to what `policy` asks for, ``(n_groups,)``; may exceed the budget.

        Raises:
            SearchError: The policy is for another number of groups.

        """
        sizes = self.costs.full().tolist()
        if len(policy.ratios) != len(sizes):
            raise SearchError(f"a policy for this problem has {len(sizes)} ratios, found {len(policy.ratios)}")
        return self._snap(np.array([(1 - ratio) * size for ratio, size in zip(policy.ratios, sizes, strict=True)]))

    def policy(self, kept: Sequence[int] | Counts) -> PruningPolicy:
        """Return the policy that keeps exactly these counts, ``(n_groups,)``."""
        return PruningPolicy.of(1 - int(k) / size for k, size in zip(kept, self.costs.full().tolist(), strict=True))

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


def absolute_limits(budget: Budget, costs: CostModel, widths: Sequence[Counts]) -> dict[str, int]:
    """Return the absolute limits of `budget`, ``{quantity: largest allowed cost}``, for widths and their costs.

    A limit of latency is lowered by the mean error of the table's predictions: what is measured has to hold too.

    Raises:
        BudgetError: A budget the unpruned network already holds, or of a cost that is not known here.
        InfeasibleBudgetError: A budget below the smallest reachable cost.
        LatencyTableError: The table's correction leaves nothing of the smallest network.

    """
    smallest = costs.cost([int(width[0]) for width in widths])
    limits = budget.resolve(costs.cost(costs.full()), smallest)
    if LATENCY in limits:
        limits[LATENCY] = _with_margin(limits[LATENCY], costs, smallest[LATENCY])
    return limits


def _with_margin(limit_ns: int, costs: CostModel, smallest_ns: int) -> int:
    """Return a limit of latency less the mean error of the table's predictions: what is measured has to hold too.

    Raises:
        InfeasibleBudgetError: The smallest network is within the limit, but not by that much.
        LatencyTableError: The smallest network would take no time at all.

    """
    assert costs.latency is not None
    if smallest_ns <= 0:
        raise LatencyTableError(
            "expected a latency table that can price the smallest network that may be left, found that its correction, "
            f"{costs.latency.calibration.offset_us:.0f} us, leaves nothing of it ({costs.latency.conditions}); remove "
            "less of every layer (max_ratio), or measure again with more networks (--networks)"
        )
    error = costs.latency.calibration.error
    limit = math.floor(limit_ns * (1 - error))
    if smallest_ns > limit:
        raise InfeasibleBudgetError(
            f"budget latency <= {shown(LATENCY, limit_ns)} is too close to the smallest reachable value, "
            f"{shown(LATENCY, smallest_ns)}, for a table whose predictions are off by {error:.1%}; allow more"
        )
    return limit
