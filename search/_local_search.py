"""Allocation where groups do not form chains: some are held, all others found exactly, again and again.

Only what lowers the sum of errors is accepted, so it ends: where none of the steps below helps any more.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.search._chain import Chain, total
from autoprune.search._labels import best_choice
from autoprune.search._limited_costs import LimitedCosts

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Most widths of a cut tried at first, all combinations; of a cut of many groups, that many widths in step.
_GRID, _DIAGONAL = 64, 8


class Cut:
    """Groups that are held while all others are found along chains.

    Args:
        costs: What limited quantities cost.
        held: The groups held.
        order: All others, in an order in which each meets at most the one before and the next.

    """

    def __init__(self, costs: LimitedCosts, held: Sequence[int], order: Sequence[int]) -> None:
        """Find out who meets whom."""
        self.costs, self.held, self.order = costs, tuple(held), tuple(order)
        self._inside = costs.among(self.held)
        self._beside = [costs.beside(group, self.held) for group in self.order]
        self._links = [costs.link(group, after) for group, after in itertools.pairwise(self.order)]

    def n_widths(self, group: int) -> int:
        """Return the number of allowed widths of a group."""
        return len(self.costs.own[group])

    def chain(self, choice: Counts) -> Chain | None:
        """Return the chains, what is held as in `choice`; None if even the cheapest widths exceed some limit.

        A choice is one index into the widths per group, ``(n_groups,)``.
        """
        costs = self.costs
        room = costs.room - costs.between(self._inside, choice)
        for group in self.held:
            room = room - costs.own[group][choice[group]]
        own = [costs.own[group] for group in self.order]
        if self.held:
            beside = zip(self._beside, own, strict=True)
            own = [cost if pairs is None else cost + costs.along(pairs, choice) for pairs, cost in beside]
            if (sum(cost.min(axis=0) for cost in own) > room).any():  # spares most of the work
                return None
        chain = Chain(own, self._links, room)
        return chain if (chain.least <= room).all() else None

    def placed(self, choice: Counts, along: Counts) -> Counts:
        """Return `choice` with all groups but those held as chosen along the chains."""
        placed = choice.copy()
        placed[list(self.order)] = along
        return placed


class LocalSearch:
    """Improves a choice for one set of errors; a choice is one index into the widths per group, ``(n_groups,)``.

    Args:
        cuts: Groups of the first are moved; all are held in turn.
        errors: Per group, the error of every width.

    """

    def __init__(self, cuts: Sequence[Cut], errors: Sequence[Floats]) -> None:
        self._cuts = cuts
        self._errors = errors
        self._rates: dict[int, Floats] = {}  # per cut, the best prices last found: the next ones are near

    def started(self, choice: Counts) -> Counts:
        """Return the best of `choice` and a coarse grid of widths of the first cut, all others found."""
        held = list(self._cuts[0].held)
        ends = np.array([self._cuts[0].n_widths(group) - 1 for group in held])
        levels = int(round(_GRID ** (1 / len(held)), 9))
        combined = levels > 1
        grid = itertools.product(
            np.linspace(0, 1, levels if combined else _DIAGONAL), repeat=len(held) if combined else 1
        )
        best = self._better(choice, 0, choice)
        for point in grid:
            moved = choice.copy()
            moved[held] = np.rint(ends * np.array(point))
            best = self._better(best, 0, moved)
        return best

    def improved(self, choice: Counts) -> Counts:
        """Move groups of the first cut, then hold every other cut, until neither helps."""
        error = np.inf
        while (now := total(self._errors, choice)) < error:
            error = now
            choice = self._moved(choice)
            for number in range(1, len(self._cuts)):
                choice = self._better(choice, number, choice)
        return choice

    def _moved(self, choice: Counts) -> Counts:
        """Move single groups of the first cut, all others found again, by ever smaller steps while it helps."""
        lengths = {group: self._cuts[0].n_widths(group) for group in self._cuts[0].held}
        step = max(lengths.values(), default=0) // 2
        while step:
            error = total(self._errors, choice)
            for group, direction in itertools.product(lengths, (-step, step)):
                moved = choice.copy()
                moved[group] = np.clip(choice[group] + direction, 0, lengths[group] - 1)
                if moved[group] != choice[group]:
                    choice = self._better(choice, 0, moved)
            if total(self._errors, choice) == error:
                step //= 2
        return choice

    def _better(self, choice: Counts, number: int, held: Counts) -> Counts:
        """Return `choice`, or the best with the groups of a cut held as in `held` if that is better."""
        cut, errors = self._cuts[number], self._errors
        chain, below = cut.chain(held), total(errors, choice)
        fixed = sum(float(errors[group][held[group]]) for group in cut.held)
        if chain is None or fixed >= below:
            return choice
        rates = self._rates.get(number)
        best = best_choice(
            chain,
            [errors[group] for group in cut.order],
            below=below - fixed,
            prices=None if rates is None else rates * chain.scale,
        )
        self._rates[number] = best.prices / chain.scale
        if best.choice is None:
            return choice
        found = cut.placed(held, best.choice)
        return found if total(errors, found) < below else choice
