"""Latency as a cost: the sum of a network's units from a table, corrected as its calibration says, in nanoseconds.

Whole numbers, so that a budget of latency is as exact as one of MACs, and tables of widths, because latency is a
staircase: no formula, no gradient, and a wider layer may be faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.costs.fused_units import FusedUnit, fused_units, structure_key
from autoprune.costs.pairwise_cost import PairwiseCost
from autoprune.costs.sides import Counts, Side
from autoprune.errors import LatencyTableError
from autoprune.groups.channel_group import ChannelGroup, ChannelGroups
from autoprune.latency_tables.table import ALIGNMENT, ONE_WIDTH, Calibration, LatencyTable
from autoprune.network.network import Network

#: Mean error of a table's predictions, on networks that were not used to fit it, beyond which no budget is accepted.
MOST_ERROR = 0.10

_NS_PER_US = 1000

#: The tables of a :class:`LatencyCost` as its fields are called, in their order.
_ARRAYS = ("rows", "columns", "times_ns", "row_starts", "column_starts", "starts", "lengths")


@dataclass(frozen=True, slots=True, eq=False)
class LatencyCost:
    """Predicted latency of any kept counts, in nanoseconds.

    Attributes:
        calibration: How the sum of units became the latency of a network.
        conditions: What the latency is valid for, in words.
        table_sha256: Hash of the table it was read from.

    """

    calibration: Calibration
    conditions: str
    table_sha256: str
    _into: Side
    _out: Side
    _rows: Counts  # of every unit, the row of each count of channels that enter, one unit after the other
    _columns: Counts  # the same for channels that leave
    _times_ns: Counts  # of every unit, its table, one unit after the other
    _row_starts: (
        Counts  # (n_units,): where the rows, columns and times of each unit begin, and the columns of its table
    )
    _column_starts: Counts
    _starts: Counts
    _lengths: Counts

    def at(self, kept: Sequence[int] | Counts) -> Counts:
        """Return nanoseconds for kept units, ``(..., n_groups)`` to ``(...)``."""
        counts = np.asarray(kept, dtype=np.int64)
        rows = self._rows[self._row_starts + self._into.at(counts)]
        columns = self._columns[self._column_starts + self._out.at(counts)]
        times = self._times_ns[self._starts + rows * self._lengths + columns]
        return np.asarray(times.sum(axis=-1) + self._offset_ns, dtype=np.int64)

    def pairwise(self, widths: Sequence[Counts]) -> PairwiseCost:
        """Return the same cost as tables of the groups' allowed `widths`, per group ``(n_widths,)``.

        Units between three and more groups (behind a concatenation, say) are not sums over pairs; they are taken at
        half of all groups' widths, one group at a time away from that, and the result is marked as not exact.
        """
        middle = np.array([width[len(width) // 2] for width in widths], dtype=np.int64)
        own = [np.zeros(len(width), dtype=np.int64) for width in widths]
        pairs: dict[tuple[int, int], Counts] = {}
        constant, exact = self._offset_ns, True
        touched = (self._into.per_unit > 0) | (self._out.per_unit > 0)
        for unit in range(touched.shape[1]):
            groups = np.flatnonzero(touched[:, unit]).tolist()
            if not groups:
                constant += int(self._unit(unit, middle))
            elif len(groups) == 1:
                own[groups[0]] += self._unit(unit, _moved(middle, groups, widths))
            elif len(groups) == 2:
                first, second = groups
                table = self._unit(unit, _moved(middle, groups, widths))
                pairs[first, second] = pairs[first, second] + table if (first, second) in pairs else table
            else:
                exact = False
                at_middle = int(self._unit(unit, middle))
                constant += at_middle
                for group in groups:
                    change = self._unit(unit, _moved(middle, [group], widths)) - at_middle
                    own[group] += change - change.min()
                    constant += int(change.min())
        return PairwiseCost(constant, tuple(own), pairs, exact=exact)

    def to_arrays(self) -> tuple[dict[str, Counts], dict[str, Any]]:
        """Return all of it as arrays of whole numbers, by name, and as JSON-ready data: the same costs in a file."""
        arrays = {name: getattr(self, f"_{name}") for name in _ARRAYS}
        for name, side in (("into", self._into), ("out", self._out)):
            arrays |= {f"{name}.per_unit": side.per_unit, f"{name}.offset": side.offset}
        data = {
            "calibration": asdict(self.calibration),
            "conditions": self.conditions,
            "table_sha256": self.table_sha256,
        }
        return arrays, data

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Counts], data: Mapping[str, Any]) -> "LatencyCost":
        """Return the latency of which :meth:`to_arrays` made these; a KeyError names what is missing."""
        into, out = (Side(arrays[f"{name}.per_unit"], arrays[f"{name}.offset"]) for name in ("into", "out"))
        points = tuple((float(total), float(whole)) for total, whole in data["calibration"]["points"])
        calibration = Calibration(**{**data["calibration"], "points": points})
        rest = [arrays[name] for name in _ARRAYS]
        return cls(calibration, data["conditions"], data["table_sha256"], into, out, *rest)

    @property
    def _offset_ns(self) -> int:
        """What every network takes besides its units, or less than they take one by one."""
        return round(self.calibration.offset_us * _NS_PER_US)

    def _unit(self, unit: int, kept: Counts) -> Counts:
        """Return the nanoseconds of one unit for kept units, ``(..., n_groups)`` to ``(...)``."""
        rows = self._rows[self._row_starts[unit] + self._into.at(kept)[..., unit]]
        columns = self._columns[self._column_starts[unit] + self._out.at(kept)[..., unit]]
        return np.asarray(self._times_ns[self._starts[unit] + rows * self._lengths[unit] + columns], dtype=np.int64)


def latency_cost(
    network: Network,
    all_groups: ChannelGroups,
    groups: Sequence[ChannelGroup],
    widths: Sequence[Counts],
    table: LatencyTable,
) -> LatencyCost:
    """Read from `table` what `network` takes when the decision `groups` keep one of their allowed `widths`.

    Args:
        network: The unpruned network.
        all_groups: All its groups; those not in `groups` stay whole.
        groups: The decision groups.
        widths: Per decision group, the counts it may keep, ascending, ``(n_widths,)``.
        table: Of the device.

    Raises:
        LatencyTableError: The table lacks a unit or a width, was never compared with this network measured whole, or
            its error there is above 10%; or it is not of one image at a time.

    """
    units = fused_units(network, all_groups)
    calibration = _trusted(table, structure_key(units))
    into = Side.of([unit.into for unit in units], groups, all_groups.n_units)
    out = Side.of([unit.out for unit in units], groups, all_groups.n_units)
    least = np.array([width[0] for width in widths], dtype=np.int64)
    smallest_in, smallest_out = into.at(least).tolist(), out.at(least).tolist()
    rows, columns, times, starts, row_starts, column_starts, lengths = [], [], [], [0], [0], [0], []
    for index, unit in enumerate(units):
        row_of, grid_in = _grid(smallest_in[index], unit.unit.c_in)
        column_of, grid_out = _grid(smallest_out[index], unit.unit.c_out)
        if unit.unit.op in ONE_WIDTH:
            row_of, grid_in = np.zeros_like(row_of), grid_in[:1]
        found = _times_us(table, unit, grid_in, grid_out) * (calibration.scale * _NS_PER_US)
        rows.append(row_of)
        columns.append(column_of)
        times.append(np.rint(found).astype(np.int64).ravel())
        lengths.append(len(grid_out))
        for total, part in ((row_starts, rows), (column_starts, columns), (starts, times)):
            total.append(total[-1] + len(part[-1]))
    positions = [np.array(each[: len(units)], dtype=np.int64) for each in (row_starts, column_starts, starts, lengths)]
    return LatencyCost(
        calibration,
        _described(table),
        table.sha256,
        into,
        out,
        np.concatenate(rows),
        np.concatenate(columns),
        np.concatenate(times),
        *positions,
    )


def _described(table: LatencyTable) -> str:
    """Return a table's conditions in words."""
    c = table.conditions
    return f"{c.device}, {c.runtime}, {c.precision}, {c.threads} threads, batch {c.batch}"


def _trusted(table: LatencyTable, key: str) -> Calibration:
    """Return the table's calibration on a network, if it is good enough to promise anything."""
    device, precision, batch = table.conditions.device, table.conditions.precision, table.conditions.batch
    if batch != 1:
        raise LatencyTableError(
            f"the latency table of {device!r} is of {batch} images at a time; networks are timed on one image: measure "
            "a table of batch 1"
        )
    calibration = table.calibrations.get(key)
    if calibration is None:
        raise LatencyTableError(
            f"the latency table of {device!r} was never compared with this network measured whole, or not since its "
            "times changed, so nobody knows how far off it is; measure it with: autoprune device measure MODEL "
            f"--device {device} --precision {precision} (elsewhere: autoprune device pack MODEL)"
        )
    if calibration.error > MOST_ERROR:
        raise LatencyTableError(
            f"the latency table of {device!r} predicts this network with a mean error of {calibration.error:.1%} "
            f"(worst {calibration.worst:.1%}); at most {MOST_ERROR:.0%} is accepted for a budget. Measure again on a "
            "quiet device, or limit macs or params"
        )
    return calibration


def _grid(smallest: int, whole: int) -> tuple[Counts, Counts]:
    """Return which row prices each count, ``(whole + 1,)``, and the counts that have rows: aligned ones and `whole`."""
    first = min(whole, -(-smallest // ALIGNMENT) * ALIGNMENT)
    grid = np.unique(np.array([*range(first, whole, ALIGNMENT), whole], dtype=np.int64))
    return np.searchsorted(grid, np.arange(whole + 1)), grid


def _times_us(table: LatencyTable, unit: FusedUnit, c_in: Counts, c_out: Counts) -> NDArray[np.float64]:
    """Look up one unit; errors name the layer."""
    try:
        return table.times_us(unit.unit.shape, c_in, c_out)
    except LatencyTableError as error:
        raise LatencyTableError(f"layer {unit.layers[0]}: {error}") from error


def _moved(middle: Counts, groups: Sequence[int], widths: Sequence[Counts]) -> Counts:
    """Return kept counts, `middle` but for `groups`, which take all their widths, ``(n_widths, ..., n_groups)``."""
    sizes = [len(widths[group]) for group in groups]
    kept = np.broadcast_to(middle, (*sizes, len(middle))).copy()
    for axis, group in enumerate(groups):
        kept[..., group] = widths[group].reshape([-1 if each == axis else 1 for each in range(len(groups))])
    return kept
