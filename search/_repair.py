"""Choices of widths made to hold the real limits, where those they were chosen by were approximations."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.pruning.width_problem import WidthProblem
from autoprune.search._chain import total

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def fitting(problem: WidthProblem, errors: Sequence[Floats], choices: Sequence[Counts]) -> Counts:
    """Return the best of `choices`, each narrowed until it holds the limits of `problem` and widened while it does.

    A choice is one index into the allowed widths per group, ``(n_groups,)``; `errors` are those of all widths.
    """
    fitted = [_widened(problem, errors, _narrowed(problem, errors, choice)) for choice in choices]
    return min(fitted, key=lambda choice: total(errors, choice))


def _narrowed(problem: WidthProblem, errors: Sequence[Floats], choice: Counts) -> Counts:
    """Narrow one group at a time, that which adds the least error per cost saved, until all limits hold.

    Every step narrows a group, and the smallest widths of all fit, so this ends. Where no single group saves anything
    (a plateau of the cost), the one that adds the least error goes to its smallest width.
    """
    excess = _excess(problem, choice)
    while excess > 0:
        rates = []
        for moved, group in _narrower(choice):
            added = float(errors[group][moved[group]] - errors[group][choice[group]])
            after = _excess(problem, moved)
            if after < excess:
                # A step that costs no error is the better the more it saves.
                rate = added / (excess - after) if added > 0 else added - (excess - after)
                rates.append((added > 0, rate, after, moved))
        if rates:
            _, _, excess, choice = min(rates, key=lambda rate: rate[:3])
        else:
            ends = [_moved(choice, group, 0) for group in np.flatnonzero(choice > 0).tolist()]
            choice = min(ends, key=lambda end: total(errors, end))
            excess = _excess(problem, choice)
    return choice


def _widened(problem: WidthProblem, errors: Sequence[Floats], choice: Counts) -> Counts:
    """Widen one group at a time, that which takes away the most error, while all limits hold."""
    while True:
        gains = [
            (float(errors[group][choice[group]] - errors[group][moved[group]]), moved)
            for moved, group in _wider(errors, choice)
        ]
        for gain, moved in sorted(gains, key=lambda pair: -pair[0]):
            if gain > 0 and _excess(problem, moved) <= 0:
                choice = moved
                break
        else:
            return choice


def _narrower(choice: Counts) -> Iterator[tuple[Counts, int]]:
    """Yield every choice with one group narrowed by 1, 2, 4, ... allowed widths or to its smallest, and the group."""
    for group, index in enumerate(choice.tolist()):
        for width in sorted({max(0, index - 2**power) for power in range(index.bit_length())}):
            yield _moved(choice, group, width), group


def _wider(errors: Sequence[Floats], choice: Counts) -> Iterator[tuple[Counts, int]]:
    """Yield every choice with one group widened by 1, 2, 4, ... allowed widths or to its largest, and the group."""
    for group, index in enumerate(choice.tolist()):
        last = len(errors[group]) - 1
        for width in sorted({min(last, index + 2**power) for power in range((last - index).bit_length())}):
            yield _moved(choice, group, width), group


def _moved(choice: Counts, group: int, width: int) -> Counts:
    """Return `choice` with another width of one group."""
    moved = choice.copy()
    moved[group] = width
    return moved


def _excess(problem: WidthProblem, choice: Counts) -> float:
    """Return by which shares a choice really exceeds the limits of `problem`, added up; 0 if it fits."""
    cost = problem.cost([int(width[index]) for width, index in zip(problem.widths, choice, strict=True)])
    return sum(max(0, cost[quantity] - most) / max(1, most) for quantity, most in problem.limits.items())
