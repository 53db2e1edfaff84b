"""How many channels each group keeps so that the sum of given errors is least within the budget; no network is run.

A multiple-choice knapsack, except that a layer costs the product of its input and output channels. Groups *meet* where
their counts are multiplied. If every group meets two others at most and no circle closes (VGG, MobileNetV1; the inner
groups of ResNets do not meet at all), they form chains and the answer is exact: label setting on exact integer costs,
cut by Lagrangian bounds (`best_choice`). There is no grid and no scaling: all 512 widths of a group are searched.

Elsewhere (residual streams, DenseNet) it is a local search with exact steps. A *cut* is a set of groups without which
the others form chains. The widths of a cut are held and all others found exactly; then single groups of the cut move,
by large steps first, and all others are found exactly again for each move; then a second cut, which frees the first, is
held. Only what lowers the sum of errors is accepted, so this ends: where no such step helps any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.cost_model import QuadraticForm
from autoprune.errors import SearchError
from autoprune.problem import Counts, PruningProblem
from autoprune.search._chain import Chain, total
from autoprune.search._labels import best_choice
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
        self._costs = _limited(problem.costs.quadratic(), problem.limits)
        meets = np.asarray(self._costs.pairs.any(axis=2), dtype=np.bool_)
        cut = find_cut(meets)
        everything, order = range(len(problem.groups)), in_chains(meets, cut)
        if cut:
            self._cuts = [cut, find_cut(meets, [group for group in everything if group not in cut])]
        else:
            windows = [order[start : start + _WINDOW] for start in range(0, len(order), _WINDOW // 2)]
            self._cuts = [cut, *(tuple(group for group in everything if group not in window) for window in windows)]
        self._orders = [in_chains(meets, cut) for cut in self._cuts]
        self._start = _indices(problem.widths, problem.kept(uniform_policy(problem)) if cut else problem.smallest())
        self._whole = None if cut else self._chain(0, self._start)

    def kept(self, errors: Sequence[Floats]) -> Counts:
        """Return the kept counts, ``(n_groups,)``, of :meth:`solve`."""
        return self.solve(errors).kept

    def solve(self, errors: Sequence[Floats]) -> Allocated:
        """Find the allowed counts with the least sum of errors within all limits.

        Where groups form chains this is the optimum, but for rounding (1e-12 of the sum), unless more than 20,000
        partial choices remain open at some group; then the least promising are dropped, and `Allocated.optimal` is
        False. Elsewhere it is a local optimum and never worse than the uniform policy. The limits always hold.

        Args:
            errors: Per group, the error of every allowed width, shaped as ``problem.widths[group]``: finite, at least
                0, in any order (a wider group may have a larger error).

        Raises:
            SearchError: Errors for other groups or widths, infinite, not a number or negative.

        """
        _check(errors, self.problem.widths)
        scale = max(float(error.max()) for error in errors) or 1.0
        scaled = [error.astype(np.float64) / scale for error in errors]
        if self._whole is not None:
            best = best_choice(self._whole, [scaled[group] for group in self._orders[0]])
            assert best.choice is not None, "the smallest widths fit"
            choice, optimal = self._placed(0, self._start, best.choice), best.proven
            if not optimal:
                choice = self._improved(choice, scaled)
        else:
            choice, optimal = self._improved(self._free(0, self._start, scaled, np.inf), scaled), False
        kept = np.array([width[i] for width, i in zip(self.problem.widths, choice, strict=True)], dtype=np.int64)
        assert self.problem.fits(kept), f"{kept.tolist()} breaks {dict(self.problem.limits)}"
        return Allocated(kept, total(errors, choice), optimal)

    def _improved(self, choice: Counts, errors: Sequence[Floats]) -> Counts:
        """Move groups of the first cut, then hold every other cut, until neither helps."""
        error = np.inf
        while (now := total(errors, choice)) < error:
            error = now
            choice = self._moved(choice, errors)
            for number in range(1, len(self._cuts)):
                choice = self._free(number, choice, errors, total(errors, choice))
        return choice

    def _moved(self, choice: Counts, errors: Sequence[Floats]) -> Counts:
        """Move single groups of the first cut, all others found again, by ever smaller steps while it helps."""
        step = max((len(self.problem.widths[group]) for group in self._cuts[0]), default=0) // 2
        while step:
            error = total(errors, choice)
            for group in self._cuts[0]:
                for direction in (-step, step):
                    moved = choice.copy()
                    moved[group] = np.clip(choice[group] + direction, 0, len(self.problem.widths[group]) - 1)
                    if moved[group] != choice[group]:
                        found = self._free(0, moved, errors, total(errors, choice))
                        choice = choice if found is moved else found
            if total(errors, choice) == error:
                step //= 2
        return choice

    def _free(self, number: int, choice: Counts, errors: Sequence[Floats], below: float) -> Counts:
        """Hold the groups of a cut and find all others; return `choice` itself if no sum of errors is under `below`."""
        chain = self._chain(number, choice)
        held = sum(float(errors[group][choice[group]]) for group in self._cuts[number])
        if chain is None or held >= below:
            return choice
        best = best_choice(chain, [errors[group] for group in self._orders[number]], below - held)
        if best.choice is None:
            return choice
        found = self._placed(number, choice, best.choice)
        return found if total(errors, found) < below else choice

    def _placed(self, number: int, choice: Counts, along: Counts) -> Counts:
        """Return `choice` with the groups outside a cut as chosen along their chains."""
        placed = choice.copy()
        placed[self._orders[number]] = along
        return placed

    def _chain(self, number: int, choice: Counts) -> Chain | None:
        """Return the groups outside a cut, the cut held at `choice`; None if not even their smallest widths fit."""
        costs, cut, order, widths = self._costs, list(self._cuts[number]), self._orders[number], self.problem.widths
        held = np.array([widths[group][choice[group]] for group in cut], dtype=np.int64)
        room = costs.room - held @ costs.linear[cut] - held**2 @ costs.squares[cut]
        for index, group in enumerate(cut):
            room = room - held[index] * (held[:index] @ costs.pairs[group, cut[:index]])
        own = []
        for group in order:
            per_unit = costs.linear[group] + held @ costs.pairs[group, cut]
            own.append(widths[group][:, None] * per_unit + widths[group][:, None] ** 2 * costs.squares[group])
        links = np.zeros((len(order), len(room)), dtype=np.int64)
        links[:-1] = costs.pairs[order[:-1], order[1:]]
        chain = Chain([widths[group] for group in order], own, links, room)
        return chain if (chain.cost(np.zeros(len(order), dtype=np.int64)) <= room).all() else None


@dataclass(frozen=True, slots=True)
class _Costs:
    """All limited costs: ``linear @ kept + squares @ kept ** 2 + sum of pairs of groups``, at most `room`."""

    linear: Counts  # (n_groups, n_limits)
    squares: Counts  # (n_groups, n_limits)
    pairs: Counts  # (n_groups, n_groups, n_limits), symmetric, nothing on the diagonal
    room: Counts  # (n_limits,)


def _limited(forms: Mapping[str, QuadraticForm], limits: Mapping[str, int]) -> _Costs:
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
    return _Costs(linear, squares, both, np.array([room for _, _, room in tightest.values()], dtype=np.int64))


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
        if not (np.isfinite(error).all() and (error >= 0).all()):
            raise SearchError(
                f"errors must be finite and at least 0, found {error[~(error >= 0)][:3]} in group {group}"
            )
