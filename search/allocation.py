"""How many channels each group keeps so that the sum of given errors is least within the budget; no network is run.

A multiple-choice knapsack, except that a layer costs what its input and output channels cost together: their product
(MACs, parameters), or whatever a latency table says of them (`PairwiseCost`). Groups *meet* where they share a layer.
If every group meets two others at most and no circle closes (VGG, MobileNetV1; the inner groups of ResNets do not meet
at all), they form chains and the answer is exact: label setting on exact integer costs, cut by Lagrangian bounds
(`best_choice`). There is no grid and no scaling: all 512 widths of a group are searched. Costs need not rise with the
width.

Elsewhere (residual streams, DenseNet) it is a local search with exact steps. A *cut* is a set of groups without which
the others form chains. The widths of a cut are held, on a coarse grid, and all others found exactly for each; then
single groups of the cut move, by large steps first, all others found again; then a second cut, which frees groups of
the first, is held. Only what lowers the sum of errors is accepted, so this ends: where no such step helps any
more.

Where tables are an approximation only (a layer that several groups enter and another leaves), what they lead to is
narrowed until it really fits, and widened again while it does (`fitting`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import SearchError
from autoprune.pruning.width_problem import Counts, WidthProblem
from autoprune.search._chain import total
from autoprune.search._labels import best_choice
from autoprune.search._limited_costs import LimitedCosts
from autoprune.search._local_search import Cut, LocalSearch
from autoprune.search._meetings import find_cut, in_chains
from autoprune.search._repair import fitting
from autoprune.search.uniform import uniform_policy

Floats = NDArray[np.float64]

#: Groups searched together, all others held, where a chain was too long to be solved exactly.
_WINDOW = 6


@dataclass(frozen=True, slots=True)
class Allocated:
    """An allocation within the budget.

    Attributes:
        kept: Kept counts, ``(n_groups,)``.
        error: Its sum of errors.
        optimal: Whether it is proven that no allocation within the budget has a smaller one.

    """

    kept: Counts
    error: float
    optimal: bool


def allocate(problem: WidthProblem, errors: Sequence[Floats]) -> Counts:
    """Return the kept counts, ``(n_groups,)``, with the least sum of errors within all limits of `problem`.

    See :meth:`Allocation.solve`. To solve a problem for many errors, make one :class:`Allocation`.
    """
    return Allocation(problem).kept(errors)


class Allocation:
    """Allocates the budget of one problem for any errors; deterministic, and each call on its own.

    Args:
        problem: Groups, allowed widths and limits; ``problem.smallest()`` holds them.

    """

    def __init__(self, problem: WidthProblem) -> None:
        """Find out which groups meet, and what they cost."""
        self.problem = problem
        tables = problem.costs.pairwise(problem.widths, only=problem.limits)
        smallest = np.zeros(len(problem.widths), dtype=np.int64)
        self._exact = all(tables[quantity].exact for quantity in problem.limits)
        limits = {
            quantity: most if tables[quantity].exact else max(most, tables[quantity].at(smallest))
            for quantity, most in problem.limits.items()
        }
        costs = LimitedCosts([tables[quantity] for quantity in limits], list(limits.values()))
        everything, first = range(len(problem.widths)), find_cut(costs.meets)
        if first:
            rest = [group for group in everything if group not in first]
            cuts = [first, find_cut(costs.meets, rest)]
        else:
            order = in_chains(costs.meets, ())
            windows = [order[start : start + _WINDOW] for start in range(0, len(order), _WINDOW // 2)]
            cuts = [(), *(tuple(group for group in everything if group not in window) for window in windows)]
        self._cuts = [Cut(costs, cut, in_chains(costs.meets, cut)) for cut in cuts]
        self._start = smallest
        if first or not self._exact:
            self._start = _indices(problem.widths, problem.kept(uniform_policy(problem)))
        self._whole = None if first else self._cuts[0].chain(smallest)

    def kept(self, errors: Sequence[Floats]) -> Counts:
        """Return the kept counts, ``(n_groups,)``, of :meth:`solve`."""
        return self.solve(errors).kept

    def solve(self, errors: Sequence[Floats]) -> Allocated:
        """Find the allowed counts with the least sum of errors within all limits.

        Where groups form chains this is the optimum, but for rounding (1e-12 of the sum), unless too many partial
        choices remain open at some group: 20,000, fewer down to 500 where many widths remain open too. Then the least
        promising are dropped, windows of a few groups are solved again until none improves, and `Allocated.optimal`
        is False. Elsewhere it is a local optimum and never worse than the uniform policy. Costs of which the tables are
        an approximation are never called optimal. The limits always hold.

        Args:
            errors: Per group, the error of every allowed width, shaped as ``problem.widths[group]``: finite, at least
                0, in any order (a wider group may have a larger error).

        Raises:
            SearchError: Errors for other groups or widths, infinite, not a number or negative.

        """
        _check(errors, self.problem.widths)
        scale = max(float(error.max()) for error in errors) or 1.0
        scaled = [error.astype(np.float64) / scale for error in errors]
        choice, optimal = self._searched(scaled)
        if not self._exact:
            choice = fitting(self.problem, scaled, [choice, self._start])  # never worse than uniform
        kept = np.array([width[i] for width, i in zip(self.problem.widths, choice, strict=True)], dtype=np.int64)
        assert self.problem.fits(kept), f"{kept.tolist()} breaks {dict(self.problem.limits)}"
        return Allocated(kept, total(errors, choice), optimal and self._exact)

    def _searched(self, errors: Sequence[Floats]) -> tuple[Counts, bool]:
        """Return the best choice of widths by the tables, as indices, and whether that is proven."""
        local = LocalSearch(self._cuts, errors)
        if self._whole is None:
            return local.improved(local.started(self._start)), False
        best = best_choice(self._whole, [errors[group] for group in self._cuts[0].order])
        assert best.choice is not None, "the smallest widths fit"
        choice = self._cuts[0].placed(self._start, best.choice)
        return (choice, True) if best.proven else (local.improved(choice), False)


def _indices(widths: Sequence[Counts], kept: Counts) -> Counts:
    """Return the index of each kept count among the allowed widths, ``(n_groups,)``."""
    return np.array([np.searchsorted(width, k) for width, k in zip(widths, kept, strict=True)], dtype=np.int64)


def _check(errors: Sequence[Floats], widths: Sequence[Counts]) -> None:
    """Refuse errors that are not one finite, non-negative number per allowed width.

    Raises:
        SearchError: They are not.

    """
    if len(errors) != len(widths):
        raise SearchError(f"expected the errors of {len(widths)} groups, found {len(errors)}")
    for group, (error, width) in enumerate(zip(errors, widths, strict=True)):
        if error.shape != width.shape:
            raise SearchError(f"group {group} has {len(width)} allowed widths, found errors of shape {error.shape}")
        if (wrong := ~(np.isfinite(error) & (error >= 0))).any():
            raise SearchError(f"errors must be finite and at least 0, found {error[wrong][0]} in group {group}")
