"""Allocation where groups do not form chains: some are held, all others found exactly, again and again.

Only what lowers the sum of errors is accepted, so it ends: where none of the steps below helps any more.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.search._chain import Chain, total
from autoprune.search._labels import best_choice

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Most widths of a cut tried at first, all combinations; of a cut of many groups, that many widths in step.
_GRID, _DIAGONAL = 64, 8


@dataclass(frozen=True, slots=True)
class LimitedCosts:
    """All limited costs: ``linear @ kept + squares @ kept ** 2`` + all pairs of groups once, at most `room`."""

    linear: Counts  # (n_groups, n_limits)
    squares: Counts  # (n_groups, n_limits)
    pairs: Counts  # (n_groups, n_groups, n_limits), symmetric, nothing on the diagonal
    room: Counts  # (n_limits,)


@dataclass(frozen=True, slots=True)
class Cut:
    """Groups that are held while all others are found along chains.

    Attributes:
        widths: Per group, its allowed kept counts.
        costs: What limited quantities cost.
        held: The groups held.
        order: All others, in an order in which each meets at most the one before and the next.

    """

    widths: tuple[Counts, ...]
    costs: LimitedCosts
    held: tuple[int, ...]
    order: tuple[int, ...]

    def chain(self, choice: Counts) -> Chain | None:
        """Return the chains, what is held as in `choice`; None if not even their smallest widths fit.

        A choice is one index into the widths per group, ``(n_groups,)``.
        """
        costs, held, order = self.costs, list(self.held), list(self.order)
        kept = np.array([self.widths[group][choice[group]] for group in held], dtype=np.int64)
        room = costs.room - kept @ costs.linear[held] - kept**2 @ costs.squares[held]
        for index, group in enumerate(held):
            room = room - kept[index] * (kept[:index] @ costs.pairs[group, held[:index]])
        own = []
        for group in order:
            width = self.widths[group][:, None]
            own.append(
                width * (costs.linear[group] + kept @ costs.pairs[group, held]) + width**2 * costs.squares[group]
            )
        links = np.zeros((len(order), len(room)), dtype=np.int64)
        links[:-1] = costs.pairs[order[:-1], order[1:]]
        if (sum(cost[0] for cost in own) > room).any():  # spares most of the work
            return None
        chain = Chain([self.widths[group] for group in order], own, links, room)
        return chain if (chain.cost(np.zeros(len(order), dtype=np.int64)) <= room).all() else None

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
        ends = np.array([len(self._cuts[0].widths[group]) - 1 for group in held])
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
        lengths = {group: len(self._cuts[0].widths[group]) for group in self._cuts[0].held}
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
