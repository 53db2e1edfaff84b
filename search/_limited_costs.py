"""What choices of widths cost in every limited quantity, laid out so that parts of it are looked up fast.

A choice is one index into the allowed widths per group, ``(n_groups,)``. All costs are exact integers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.pairwise_cost import PairwiseCost

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Tables that differ from a multiple of each other by no more than this share share one; only bounds are told apart.
_ROUNDING = 1e-15

#: Most that a quantity is multiplied by to compare it with another.
_MOST_UNITS = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """What each pair of widths of two groups that meet costs.

    Attributes:
        costs: Exact, ``(n_limits, n_widths of one, n_widths of the other)``.
        tables: The same in few tables: the costs of limit l are ``weights[l] @ tables``, but for rounding.
        weights: ``(n_limits, n_tables)``.
        least: Per limit, the least cost of each width of the first group, ``(n_widths, n_limits)``.
        kinds: Per width of the first group, a number that it shares with those that cost the same beside all widths
            of the other, ``(n_widths,)``.

    """

    costs: Counts
    tables: tuple[Floats, ...]
    weights: Floats
    least: Counts
    kinds: Counts

    @classmethod
    def of(cls, costs: Counts) -> "Link":
        """Find what the limits have in common; MACs and parameters of a layer are multiples of each other."""
        tables: list[Floats] = []
        weights = np.zeros((len(costs), len(costs)))
        for limit, cost in enumerate(costs):
            most = float(cost.max())
            if most == 0:
                continue
            table = cost / most
            same = [i for i, other in enumerate(tables) if np.abs(other - table).max() <= _ROUNDING]
            if not same:
                tables.append(table)
            weights[limit, same[0] if same else len(tables) - 1] = most
        seen: dict[bytes, int] = {}
        kinds = [seen.setdefault(costs[:, width].tobytes(), len(seen)) for width in range(costs.shape[1])]
        least = np.ascontiguousarray(costs.min(axis=2).T)
        return cls(costs, tuple(tables), weights[:, : len(tables)], least, np.array(kinds, dtype=np.int64))

    def priced(self, prices: Floats) -> Floats | None:
        """Return the priced cost of each pair, ``(n_widths of one, of the other)``; None if that is 0."""
        slopes = prices @ self.weights
        parts = [slope * table for slope, table in zip(slopes.tolist(), self.tables, strict=True) if slope]
        return sum(parts[1:], start=parts[0]) if parts else None

    def priced_beside(self, width: int, prices: Floats) -> Floats:
        """Return the priced cost of all widths of the other group beside one of the first, ``(n_widths,)``."""
        slopes = prices @ self.weights
        return np.asarray(sum(s * table[width] for s, table in zip(slopes.tolist(), self.tables, strict=True)))


@dataclass(frozen=True, slots=True, eq=False)
class _Among:
    """Where the tables of pairs of groups begin, and the steps from one width to the next in them, ``(n_pairs,)``."""

    start: Counts
    first: Counts  # a group
    first_step: Counts
    second: Counts  # another
    second_step: Counts


@dataclass(frozen=True, slots=True, eq=False)
class _Beside:
    """Where the costs of each width of a group beside the first of others are, and the steps to their next ones."""

    start: Counts  # (n_widths, n_others)
    others: Counts  # (n_others,)
    step: Counts  # (n_others,)


class LimitedCosts:
    """All limited costs of a problem.

    Args:
        costs: Per limit, what it limits.
        limits: How much that may be.

    Attributes:
        own: Per group, the cost of each width by itself, ``(n_widths, n_limits)``.
        room: What a choice may cost at most without the constants, ``(n_limits,)``.
        meets: Whether two groups share a cost, ``(n_groups, n_groups)``.

    """

    def __init__(self, costs: Sequence[PairwiseCost], limits: Sequence[int]) -> None:
        """Lay out the tables of all limits side by side."""
        rooms = [limit - cost.constant for cost, limit in zip(costs, limits, strict=True)]
        kept = _tightest(costs, rooms)
        costs = [costs[index] for index in kept]
        self.room = np.array([rooms[index] for index in kept], dtype=np.int64)
        self.own = tuple(np.stack(tables, axis=-1) for tables in zip(*(cost.own for cost in costs), strict=True))
        n = len(self.own)
        self._sizes = [len(own) for own in self.own]
        edges = sorted({edge for cost in costs for edge, table in cost.pairs.items() if table.any()})
        self.meets = np.zeros((n, n), dtype=np.bool_)
        for g, h in edges:
            self.meets[g, h] = self.meets[h, g] = True
        starts = np.cumsum([0, *(self._sizes[g] * self._sizes[h] for g, h in edges)])
        self._start = dict(zip(edges, starts.tolist(), strict=False))
        self._flat = np.zeros((len(costs), int(starts[-1])), dtype=np.int64)
        for row, cost in zip(self._flat, costs, strict=True):
            for edge, start in self._start.items():
                if edge in cost.pairs:
                    row[start : start + cost.pairs[edge].size] = cost.pairs[edge].ravel()
        self._links: dict[tuple[int, int], Link] = {}

    def link(self, first: int, second: int) -> Link | None:
        """Return what pairs of widths of two groups cost; None where they do not meet."""
        if not self.meets[first, second]:
            return None
        if (first, second) not in self._links:
            g, h = min(first, second), max(first, second)
            start, shape = self._start[g, h], (self._sizes[g], self._sizes[h])
            costs = self._flat[:, start : start + shape[0] * shape[1]].reshape(-1, *shape)
            self._links[first, second] = Link.of(costs if first == g else np.ascontiguousarray(costs.swapaxes(1, 2)))
        return self._links[first, second]

    def among(self, groups: Iterable[int]) -> _Among:
        """Return where all pairs among `groups` are, for :meth:`between`."""
        inside = set(groups)
        edges = [edge for edge in self._start if inside.issuperset(edge)]
        rows = [(self._start[g, h], g, self._sizes[h], h, 1) for g, h in edges]
        return _Among(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)

    def between(self, pairs: _Among, choice: Counts) -> Counts:
        """Return what `pairs` cost together, ``(n_limits,)``."""
        at = pairs.start + choice[pairs.first] * pairs.first_step + choice[pairs.second] * pairs.second_step
        return np.asarray(self._flat[:, at].sum(axis=1))

    def beside(self, group: int, groups: Iterable[int]) -> _Beside | None:
        """Return where the pairs of `group` with each of `groups` are, for :meth:`along`; None if it meets none."""
        others = [other for other in groups if self.meets[other, group]]
        if not others:
            return None
        widths = np.arange(self._sizes[group])[:, None]
        edges = [(min(group, other), max(group, other)) for other in others]
        own_step = np.array([1 if other < group else self._sizes[other] for other in others])
        step = np.array([self._sizes[group] if other < group else 1 for other in others])
        start = np.array([self._start[edge] for edge in edges])
        return _Beside(start + widths * own_step, np.array(others), step)

    def along(self, pairs: _Beside, choice: Counts) -> Counts:
        """Return what each width of a group costs beside the others as in `choice`, ``(n_widths, n_limits)``."""
        at = pairs.start + choice[pairs.others] * pairs.step
        return np.asarray(self._flat[:, at].sum(axis=2).T)


def _tightest(costs: Sequence[PairwiseCost], rooms: Sequence[int]) -> list[int]:
    """Return the limits that matter: of costs that are the same but for their unit, the tightest.

    The bytes of a file are four per parameter and a constant: limits on both are one.
    """
    kept: list[int] = []
    for index, cost in enumerate(costs):
        for place, other in enumerate(kept):
            units = _units(cost, costs[other])
            if units is not None:
                if rooms[index] * units[0] < rooms[other] * units[1]:
                    kept[place] = index
                break
        else:
            kept.append(index)
    return kept


def _units(one: PairwiseCost, other: PairwiseCost) -> tuple[int, int] | None:
    """Return small a and b > 0 such that ``a * one`` and ``b * other`` are the same but for constants, or None."""
    if one.pairs.keys() != other.pairs.keys():
        return None
    tables = [*zip(one.own, other.own, strict=True), *((one.pairs[edge], other.pairs[edge]) for edge in one.pairs)]
    a, b = (max(int(pair[side].max()) for pair in tables) for side in (1, 0))
    if a == 0 or b == 0:
        return (1, 1) if a == b else None
    a, b = a // math.gcd(a, b), b // math.gcd(a, b)
    if max(a, b) > _MOST_UNITS or any((a * mine != b * its).any() for mine, its in tables):
        return None
    return a, b
