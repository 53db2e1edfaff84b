"""Times of widths between measured ones: linear between aligned widths, rounded up to an aligned width otherwise.

Runtimes work on blocks of channels: a width inside a block costs what the whole block costs, or more where the runtime
leaves its fast path. So nothing is ever interpolated *to* an unaligned width: it costs what the next wider width that
is aligned, or was itself measured, costs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Places:
    """Where widths lie among measured ones: between two knots, with a share of the upper one.

    Attributes:
        lower: Index of the knot below (or at) each width, ``(n,)``; -1 where the width lies outside.
        upper: Index of the knot above (or at) each width, ``(n,)``.
        share: Share of the upper knot, ``(n,)``, from 0 to 1.

    """

    lower: Ints
    upper: Ints
    share: Floats

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which widths can be priced, ``(n,)``."""
        return np.asarray(self.lower >= 0)


def places(knots: Ints, widths: Ints, alignment: int) -> Places:
    """Find `widths` among the measured `knots`.

    A measured width is itself. Any other width is first rounded up to the next multiple of `alignment`, or to the next
    measured width where that comes first. Then it lies between the two nearest measured *aligned* widths; where none
    lies above it, the next wider measured one stands for it.

    Args:
        knots: Measured widths, ``(k,)``, rising.
        widths: Widths to be priced, ``(n,)``.
        alignment: Channels of a block.

    """
    lower, upper = np.full(len(widths), -1), np.full(len(widths), -1)
    share = np.zeros(len(widths))
    aligned = np.flatnonzero(knots % alignment == 0)
    for index, width in enumerate(widths.tolist()):
        above = int(np.searchsorted(knots, width))  # first knot that is at least as wide
        if width < 1 or above == len(knots):
            continue
        rounded = -(-width // alignment) * alignment
        if int(knots[above]) <= rounded:  # measured, or the next wider measured one lies in the same block
            lower[index] = upper[index] = above
            continue
        after = int(np.searchsorted(knots[aligned], rounded))
        if after == len(aligned):
            lower[index] = upper[index] = above
        elif after > 0:
            low, high = int(aligned[after - 1]), int(aligned[after])
            lower[index], upper[index] = low, high
            share[index] = (rounded - int(knots[low])) / (int(knots[high]) - int(knots[low]))
    return Places(lower, upper, share)


def between(grid: Floats, rows: Places, columns: Places) -> Floats:
    """Return bilinear values of `grid`, ``(k_rows, k_columns)``, at the places, ``(n_rows, n_columns)``."""
    top, bottom = (grid[index][:, columns.lower] for index in (rows.lower, rows.upper))
    top_right, bottom_right = (grid[index][:, columns.upper] for index in (rows.lower, rows.upper))
    across, down = columns.share[None, :], rows.share[:, None]
    upper = _mixed(top, top_right, across)
    lower = _mixed(bottom, bottom_right, across)
    return _mixed(upper, lower, down)


def filled(grid: Floats, rows: Ints, columns: Ints, alignment: int) -> Floats:
    """Fill the holes (NaN) of a grid that was measured in part, from the nearest measured points of row and column.

    A hole between two measured points of its row, of its column, or of both gets the value on the line between them
    (of two lines, the one with the nearer points counts for more); holes that only filled points surround are filled
    after them. Lines run between aligned widths alone. Holes that nothing surrounds stay NaN.
    """
    while True:
        along_rows, row_gap = _lines(grid, columns, alignment)
        down, column_gap = _lines(grid.T, rows, alignment)
        down, column_gap = down.T, column_gap.T
        weights = np.stack([1 / row_gap, 1 / column_gap])
        total = weights.sum(axis=0)
        values = np.stack([np.nan_to_num(along_rows), np.nan_to_num(down)])
        new = np.isnan(grid) & (total > 0)
        if not new.any():
            return grid
        grid = grid.copy()
        grid[new] = ((weights * values).sum(axis=0) / np.where(total > 0, total, 1.0))[new]


def _lines(grid: Floats, columns: Ints, alignment: int) -> tuple[Floats, Floats]:
    """Return what the holes of each row get from their row, and the gap that the line bridges (inf: no line)."""
    values, gaps = np.full_like(grid, np.nan), np.full_like(grid, np.inf)
    for row, known in enumerate(~np.isnan(grid)):
        holes = np.flatnonzero(~known & known.any())
        if not len(holes):
            continue
        measured = np.flatnonzero(known)
        found = places(columns[measured], columns[holes], alignment)
        inside = found.inside & (columns[holes] % alignment == 0)
        low, high = measured[found.lower[inside]], measured[found.upper[inside]]
        values[row, holes[inside]] = _mixed(grid[row, low], grid[row, high], found.share[inside])
        gaps[row, holes[inside]] = columns[high] - np.minimum(columns[low], columns[holes[inside]])
    return values, gaps


def _mixed(first: Floats, second: Floats, share: Floats) -> Floats:
    """Return what lies between two arrays; where the share is 0, exactly the first."""
    return np.where(share == 0, first, first + share * (second - first))
