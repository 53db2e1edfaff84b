"""How many channels each group keeps so that the sum of given errors is least within the budget; no network is run.

A multiple-choice knapsack, except that a layer costs the product of its input and output channels. Groups *meet* where
their counts are multiplied. If every group meets two others at most and no circle closes (VGG, MobileNetV1; the inner
groups of ResNets do not meet at all), they form chains and the answer is exact: label setting on exact integer costs,
cut by Lagrangian bounds (`best_choice`). There is no grid and no scaling: all 512 widths of a group are searched.

Elsewhere (residual streams, DenseNet) it is a local search with exact steps. A *cut* is a set of groups without which
the others form chains. The widths of a cut are held, on a coarse grid, and all others found exactly for each; then
single groups of the cut move, by large steps first, all others found again; then a second cut, which frees groups of
the first, is held. Only what lowers the sum of errors is accepted, so this ends: where no such step helps any
more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.quadratic_form import QuadraticForm
from autoprune.errors import SearchError
from autoprune.problem import Counts, PruningProblem
from autoprune.search._chain import total
from autoprune.search._labels import best_choice
from autoprune.search._local_search import Cut, LimitedCosts, LocalSearch
from autoprune.search._meetings import find_cut, in_chains
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


def allocate(problem: PruningProblem, errors: Sequence[Floats]) -> Counts:
    """Return the kept counts, ``(n_groups,)``, with the least sum of errors within all limits of `problem`.

    See :meth:`Allocation.solve`. To solve a problem for many errors, make one :class:`Allocation`.
    """
    return Allocation(problem).kept(errors)


class Allocation:
    """Allocates the budget of one problem for any errors; deterministic, and each call on its own.

    Args:
        problem: Groups, allowed widths and limits; ``problem.smallest()`` holds them.

    """

    def __init__(self, problem: PruningProblem) -> None:
        """Find out which groups meet, and what they cost."""
        self.problem = problem
        costs = _limited(problem.costs.quadratic(), problem.limits)
        meets = np.asarray(costs.pairs.any(axis=2), dtype=np.bool_)
        everything, first = range(len(problem.groups)), find_cut(meets)
        if first:
            rest = [group for group in everything if group not in first]
            cuts = [first, find_cut(meets, rest)]
        else:
            order = in_chains(meets, ())
            windows = [order[start : start + _WINDOW] for start in range(0, len(order), _WINDOW // 2)]
            cuts = [(), *(tuple(group for group in everything if group not in window) for window in windows)]
        self._cuts = [Cut(problem.widths, costs, cut, tuple(in_chains(meets, cut))) for cut in cuts]
        start = problem.kept(uniform_policy(problem)) if first else problem.smallest()
        self._start = _indices(problem.widths, start)
        self._whole = None if first else self._cuts[0].chain(self._start)

    def kept(self, errors: Sequence[Floats]) -> Counts:
        """Return the kept counts, ``(n_groups,)``, of :meth:`solve`."""
        return self.solve(errors).kept

    def solve(self, errors: Sequence[Floats]) -> Allocated:
        """Find the allowed counts with the least sum of errors within all limits.

        Where groups form chains this is the optimum, but for rounding (1e-12 of the sum), unless too many partial
        choices remain open at some group: 20,000, fewer down to 500 where many widths remain open too. Then the least
        promising are dropped, windows of a few groups are solved again until none improves, and `Allocated.optimal`
        is False. Elsewhere it is a local optimum and never worse than the uniform policy. The limits always hold.

        Args:
            errors: Per group, the error of every allowed width, shaped as ``problem.widths[group]``: finite, at least
                0, in any order (a wider group may have a larger error).

        Raises:
            SearchError: Errors for other groups or widths, infinite, not a number or negative.

        """
        _check(errors, self.problem.widths)
        scale = max(float(error.max()) for error in errors) or 1.0
        scaled = [error.astype(np.float64) / scale for error in errors]
        local = LocalSearch(self._cuts, scaled)
        optimal = False
        if self._whole is None:
            choice = local.improved(local.started(self._start))
        else:
            best = best_choice(self._whole, [scaled[group] for group in self._cuts[0].order])
            assert best.choice is not None, "the smallest widths fit"
            choice, optimal = self._cuts[0].placed(self._start, best.choice), best.proven
            if not optimal:
                choice = local.improved(choice)
        kept = np.array([width[i] for width, i in zip(self.problem.widths, choice, strict=True)], dtype=np.int64)
        assert self.problem.fits(kept), f"{kept.tolist()} breaks {dict(self.problem.limits)}"
        return Allocated(kept, total(errors, choice), optimal)


def _limited(forms: Mapping[str, QuadraticForm], limits: Mapping[str, int]) -> LimitedCosts:
    """Return the limited quantities in their largest whole units; those that are the same but for their unit are one.

    The bytes of a file are four per parameter and a constant: limits on both are one.
    """
    tightest: dict[bytes, tuple[Counts, Counts, int]] = {}
    for quantity, most in limits.items():
        form = forms[quantity]
        unit = int(np.gcd.reduce([*form.linear.tolist(), *form.pairs.ravel().tolist()])) or 1
        linear, pairs, room = form.linear // unit, form.pairs // unit, (most - form.constant) // unit
        key = linear.tobytes() + pairs.tobytes()
        if key not in tightest or room < tightest[key][2]:
            tightest[key] = (linear, pairs, room)
    linear = np.stack([linear for linear, _, _ in tightest.values()], axis=-1)
    pairs = np.stack([pairs for _, pairs, _ in tightest.values()], axis=-1)
    squares = np.einsum("ggl->gl", pairs).copy()
    both = pairs + pairs.transpose(1, 0, 2)
    both[np.arange(len(both)), np.arange(len(both))] = 0
    return LimitedCosts(linear, squares, both, np.array([room for _, _, room in tightest.values()], dtype=np.int64))


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
