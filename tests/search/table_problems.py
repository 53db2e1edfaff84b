"""Problems whose costs are random tables: of any order, over any graph of groups that meet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.pairwise_cost import PairwiseCost
from autoprune.problem import PruningProblem
from tests.search.small_problems import small_problem

Counts = NDArray[np.int64]
Edges = Sequence[tuple[int, int]]

_problem = cache(small_problem)


@dataclass(frozen=True)
class TableCosts:
    """Costs that are tables, and a share more or less of them where they approximate a cost."""

    widths: tuple[Counts, ...]
    tables: Mapping[str, PairwiseCost]
    wrong: Mapping[tuple[int, ...], float]

    def full(self) -> Counts:
        return np.array([width[-1] for width in self.widths])

    def pairwise(self, widths: Sequence[Counts], *, only: Collection[str] | None = None) -> dict[str, PairwiseCost]:
        assert all((mine == given).all() for mine, given in zip(self.widths, widths, strict=True))
        return {quantity: table for quantity, table in self.tables.items() if only is None or quantity in only}

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        choice = [int(np.flatnonzero(width == k)[0]) for width, k in zip(self.widths, kept, strict=True)]
        share = self.wrong.get(tuple(choice), 1.0)
        return {
            q: table.at(choice) if table.exact else int(share * table.at(choice)) for q, table in self.tables.items()
        }


def table_problem(
    seed: int, edges: Edges, shares: Mapping[str, float], *, n_groups: int, most: int = 5, wrong: float = 0.0
) -> PruningProblem:
    """Return a problem of up to `most` widths per group, each of `shares` limiting a random table of its own.

    A share is that of the way from what the smallest widths cost to the dearest choice. With `wrong` the tables are
    approximations: the cost of each choice is off by up to that share.
    """
    rng = np.random.default_rng(seed)
    widths = tuple(np.sort(rng.choice(np.arange(1, 20), rng.integers(1, most + 1), False)) for _ in range(n_groups))
    sizes = [len(width) for width in widths]
    tables = {quantity: _random_cost(rng, sizes, edges, exact=not wrong) for quantity in shares}
    choices = list(np.ndindex(*sizes))
    off = {choice: float(1 + rng.uniform(-wrong, wrong)) for choice in choices} if wrong else {}
    costs = TableCosts(widths, tables, off)
    limits = {}
    for quantity, share in shares.items():
        least = costs.cost([width[0] for width in widths])[quantity]
        dearest = max(tables[quantity].at(choice) for choice in choices)
        limits[quantity] = least + int(share * max(0, dearest - least))
    groups = cast(Any, tuple(range(int(width[-1])) for width in widths))
    return replace(_problem(), groups=groups, costs=cast(Any, costs), widths=widths, limits=limits)


def _random_cost(rng: np.random.Generator, sizes: Sequence[int], edges: Edges, *, exact: bool) -> PairwiseCost:
    """Return tables of which some rise, some are stairs, some have no order and some are 0."""

    def table(*shape: int) -> Counts:
        kind = rng.integers(0, 4)
        values = rng.integers(0, int(10 ** rng.uniform(0.5, 9)), shape)
        if kind == 0:
            for axis in range(len(shape)):
                values = np.sort(values, axis=axis)
        elif kind == 1:
            values = values[tuple(np.ix_(*(np.arange(n) // 2 for n in shape)))]
        return np.asarray(values * (kind < 3 or rng.random() < 0.5), dtype=np.int64)

    own = tuple(table(size) for size in sizes)
    pairs = {(min(edge), max(edge)): table(sizes[min(edge)], sizes[max(edge)]) for edge in edges}
    return PairwiseCost(int(rng.integers(0, 1000)), own, pairs, exact)
