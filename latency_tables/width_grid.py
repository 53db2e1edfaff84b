"""Which widths of a unit are measured: few, but all where the times' staircase bends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.interpolation import between, places
from autoprune.latency_tables.table import ALIGNMENT, ONE_WIDTH
from autoprune.latency_tables.unit import Unit


@dataclass(frozen=True, slots=True)
class WidthGrid:
    """The widths of a unit that must be priced: all pairs of `c_in` and `c_out`.

    Attributes:
        shape: The unit; its own channel counts do not matter.
        c_in: Channels that enter, rising. Multiples of 8 and the whole layer's width.
        c_out: Channels that leave, rising; of units of one width (depthwise, pool, elementwise) the same as `c_in`.

    """

    shape: Unit
    c_in: tuple[int, ...]
    c_out: tuple[int, ...]

    @property
    def one_width(self) -> bool:
        """Whether as many channels leave as enter."""
        return self.shape.op in ONE_WIDTH

    def units(self, c_in: Sequence[int], c_out: Sequence[int]) -> list[Unit]:
        """Return the units with all pairs of these widths; `c_out` alone counts for units of one width."""
        if self.one_width:
            return [self.shape.with_channels(width, width) for width in c_out]
        return [self.shape.with_channels(into, out) for into, out in product(c_in, c_out)]


def merged_grids(grids: Sequence[WidthGrid]) -> tuple[WidthGrid, ...]:
    """Return one grid per shape, with the widths of all of them.

    Raises:
        LatencyTableError: A grid has no widths, or widths below 1.

    """
    widths: dict[Unit, tuple[set[int], set[int]]] = {}
    for grid in grids:
        if not grid.c_in or not grid.c_out or min(*grid.c_in, *grid.c_out) < 1:
            raise LatencyTableError(f"{grid.shape}: expected widths of at least 1, found {grid.c_in} and {grid.c_out}")
        c_in, c_out = widths.setdefault(grid.shape.shape, (set(), set()))
        c_in.update(map(int, grid.c_out if grid.one_width else grid.c_in))
        c_out.update(map(int, grid.c_out))
    return tuple(WidthGrid(shape, tuple(sorted(a)), tuple(sorted(b))) for shape, (a, b) in widths.items())


def coarse(widths: Sequence[int]) -> list[int]:
    """Return the first, the middle and the last aligned width, the last of all, and what is not aligned."""
    aligned = [width for width in widths if width % ALIGNMENT == 0]
    middle = [aligned[0], aligned[len(aligned) // 2], aligned[-1]] if aligned else []
    return sorted({*middle, *(width for width in widths if width % ALIGNMENT)})


def staircase_units(grid: WidthGrid) -> list[Unit]:
    """Return the units whose times show where each side's staircase bends."""
    if grid.one_width:
        return grid.units(grid.c_out, grid.c_out)
    return [*grid.units(grid.c_in, _two(grid.c_out)), *grid.units(_two(grid.c_in), grid.c_out)]


def staircase_times(
    grid: WidthGrid, axis: int, times: Mapping[Unit, float]
) -> tuple[Sequence[int], NDArray[np.float64]]:
    """Return all widths of one side, and their times with some widths of the other, ``(lines, n)``."""
    if grid.one_width:
        return grid.c_out, np.array([[times[unit] for unit in grid.units(grid.c_out, grid.c_out)]])
    if axis == 0:
        return grid.c_in, np.array([[times[unit] for unit in grid.units(grid.c_in, [out])] for out in _two(grid.c_out)])
    return grid.c_out, np.array([[times[unit] for unit in grid.units([into], grid.c_out)] for into in _two(grid.c_in)])


def _two(widths: Sequence[int]) -> list[int]:
    """Return the middle of a side's coarse widths, and the widest."""
    few = coarse(widths)
    return sorted({few[len(few) // 2], few[-1]})


def bends(
    widths: Sequence[int], times: NDArray[np.float64], knots: Sequence[int], tolerance: float
) -> list[tuple[int, float]]:
    """Choose widths to be measured, until straight lines between them are within `tolerance` of all times.

    Each time it is the width that the lines so far miss by most.

    Args:
        widths: All widths, ``(n,)``, rising.
        times: Their times for several other sides of the unit, ``(lines, n)``.
        knots: Widths that are measured anyway.
        tolerance: Relative error that may be left, as the mean over the lines with its sign: where lines bend both.

    Returns:
        Each chosen width, in order, with the relative error there before it was chosen.

    """
    chosen: list[tuple[int, float]] = []
    known = np.isin(np.array(widths), np.array(knots))
    points = np.array(widths, dtype=np.int64)
    while not known.all():
        found = places(points[known], points, ALIGNMENT)
        lines = times[:, known]
        priced = lines[:, found.lower] + found.share * (lines[:, found.upper] - lines[:, found.lower])
        errors = np.where(known, 0.0, np.abs((priced / times - 1).mean(axis=0)))
        worst = int(errors.argmax())
        if errors[worst] <= tolerance:
            break
        known[worst] = True
        chosen.append((int(points[worst]), float(errors[worst])))
    return chosen


def sticking_out(times: Mapping[Unit, float], tolerance: float) -> list[Unit]:
    """Return units that took longer than a wider unit of their shape did, by more than `tolerance`.

    Hardly any kernel is faster for being wider (in int8, depthwise ones on whole blocks of 16 channels are); mostly,
    other work took the processor away while these were timed.
    """
    shapes: dict[Unit, list[Unit]] = {}
    for unit in times:
        shapes.setdefault(unit.shape, []).append(unit)
    found = []
    for units in shapes.values():
        c_in, c_out, took = np.array([(unit.c_in, unit.c_out, times[unit]) for unit in units]).T
        for index, unit in enumerate(units):
            wider = (c_in >= unit.c_in) & (c_out >= unit.c_out)
            if took[index] > (1 + tolerance) * took[wider].min():
                found.append(unit)
    return found


def interpolation_errors(
    grid: WidthGrid, knots: tuple[Sequence[int], Sequence[int]], times: Mapping[Unit, float], units: Sequence[Unit]
) -> NDArray[np.float64]:
    """Return relative errors, ``(n,)``, of what a table with these knots says about measured `units`."""
    rows, columns = (np.array(axis, dtype=np.int64) for axis in knots)
    table = np.array([[times[grid.shape.with_channels(int(a), int(b))] for b in columns] for a in rows])
    errors = []
    for unit in units:
        down, across = (
            places(axis, np.array([c]), ALIGNMENT) for axis, c in ((rows, unit.c_in), (columns, unit.c_out))
        )
        errors.append(float(between(table, down, across)[0, 0]) / times[unit] - 1)
    return np.array(errors, dtype=np.float64)
