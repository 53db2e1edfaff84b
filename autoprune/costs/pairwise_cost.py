"""A cost as tables: of every allowed width by itself, and of pairs of widths of two groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.quadratic_form import QuadraticForm

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PairwiseCost:
    """A cost of one width per group: a constant, what each width costs, and what each pair of widths costs.

    No order is assumed: a wider group may cost less. All entries are whole, and those of the tables never negative.

    Attributes:
        constant: What every choice of widths costs, or, below 0, costs less than its entries.
        own: Per group, the cost of each allowed width by itself, ``(n_widths,)``.
        pairs: Per pair of groups ``(g, h)`` with ``g < h`` that share a cost, ``(n_widths of g, n_widths of h)``.
        exact: Whether this is the cost itself; False where it is an approximation, too low or too high.

    """

    constant: int
    own: tuple[Counts, ...]
    pairs: Mapping[tuple[int, int], Counts]
    exact: bool = True

    def __post_init__(self) -> None:
        """Check the shapes of all tables, and that none holds a negative number."""
        sizes = [len(table) for table in self.own]
        for table in (*self.own, *self.pairs.values()):
            assert table.dtype == np.int64, f"costs are 64-bit integers, found {table.dtype}"
            assert table.size == 0 or table.min() >= 0, "costs are never negative"
        for (g, h), table in self.pairs.items():
            assert 0 <= g < h < len(sizes), f"a pair is two groups in ascending order, found {(g, h)}"
            assert table.shape == (sizes[g], sizes[h]), f"pair {(g, h)} has shape {table.shape}"

    @classmethod
    def of_quadratic(cls, form: QuadraticForm, widths: Sequence[Counts]) -> "PairwiseCost":
        """Tabulate a polynomial over the allowed `widths`, per group ``(n_widths,)``; exact."""
        own = tuple(
            width * per_unit + width**2 * per_square
            for width, per_unit, per_square in zip(
                widths, form.linear.tolist(), form.pairs.diagonal().tolist(), strict=True
            )
        )
        pairs = {
            (g, h): np.multiply.outer(widths[g] * form.pairs[g, h], widths[h])
            for g, h in zip(*(axis.tolist() for axis in np.nonzero(np.triu(form.pairs, 1))), strict=True)
        }
        return cls(form.constant, own, pairs)

    def at(self, choice: Sequence[int] | Counts) -> int:
        """Return the cost of one width per group, given as indices into the allowed widths, ``(n_groups,)``."""
        picked = [int(index) for index in choice]
        assert len(picked) == len(self.own), f"expected {len(self.own)} widths, found {len(picked)}"
        own = sum(int(table[index]) for table, index in zip(self.own, picked, strict=True))
        return self.constant + own + sum(int(table[picked[g], picked[h]]) for (g, h), table in self.pairs.items())
