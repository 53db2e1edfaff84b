"""A latency table: how long every fused unit takes on one device, and how far sums of units are from whole networks.

docs/latency-table.md describes the file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LatencyTableError
from autoprune.latency_tables import _table_file, _validation
from autoprune.latency_tables.interpolation import Floats, Ints, between, filled, places
from autoprune.latency_tables.table_diff import Change, TableDiff
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.values import Calibration, Conditions, Timing

__all__ = ["ALIGNMENT", "ONE_WIDTH", "Calibration", "Change", "Conditions", "LatencyTable", "TableDiff", "Timing"]

#: Channels that runtimes handle at a time at least; see :mod:`autoprune.latency_tables.interpolation`.
ALIGNMENT = 8

#: How far a newer table may move the times of an older one, as a share of all of them (the slowest unit of each
#: shape), so that calibrations of the older still hold.
AGREEMENT = 0.05

#: Units with as many channels leaving as entering: their times depend on one width.
ONE_WIDTH = ("depthwise", "elementwise", "pool")


@dataclass(frozen=True)
class LatencyTable:
    """Times of fused units on one device under one set of conditions.

    Not to be changed after construction; safe to read from several threads, and can be sent to other processes.

    Attributes:
        conditions: What the times are valid for.
        entries: Timing of every measured unit with its channel counts.
        calibrations: By fingerprint of the network that they were measured on.
        provenance: Where the table comes from: short names, and short texts or numbers. ``measured_at`` (ISO 8601,
            UTC) decides which of two tables is newer.

    Raises:
        LatencyTableError: A value is malformed; see ``docs/latency-table.md``.

    """

    conditions: Conditions
    entries: Mapping[Unit, Timing]
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    provenance: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("entries", "calibrations", "provenance"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        _validation.check_entries(self.entries, ONE_WIDTH)
        _validation.check_names(self.calibrations, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from a file.

        Raises:
            LatencyTableError: The file is missing, not such a table, of another version, truncated, altered, or holds
                values that cannot be; says which.

        """
        return cls.from_json(_table_file.read(Path(path)), str(path))

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "latency table") -> "LatencyTable":
        """Read a table from the text of a file; errors as of :meth:`load`, speaking of `name`."""
        try:
            content = _table_file.content_of(text)
            return cls(
                Conditions(**content["conditions"]),
                {unit: Timing(*timing) for unit, timing in _table_file.entries_of(content)},
                {
                    key: Calibration(**{**data, "points": tuple((point[0], point[1]) for point in data["points"])})
                    for key, data in content["calibrations"].items()
                },
                content["provenance"],
            )
        except LatencyTableError as error:
            raise LatencyTableError(f"{name}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the table to a file, whole or not at all."""
        _table_file.write(Path(path), self.to_json())

    def to_json(self) -> str:
        """Return the text of the table's file."""
        return _table_file.text_of(self._content())

    @cached_property
    def sha256(self) -> str:
        """Hash of the canonical content: equal tables have equal hashes."""
        return _table_file.sha256_of(self._content())

    @property
    def shapes(self) -> tuple[Unit, ...]:
        """Units without their channel counts, in order."""
        return tuple(sorted({unit.shape for unit in self.entries}))

    def widths(self, shape: Unit) -> tuple[Ints, Ints]:
        """Return the measured counts of channels that enter and that leave a unit, both rising; empty if unknown."""
        grid = self._grids.get(shape.shape)
        none = np.empty(0, dtype=np.int64)
        return (none, none) if grid is None else (grid[0], grid[1])

    def merged(self, other: "LatencyTable") -> "LatencyTable":
        """Return a table with what either holds; the newer one wins.

        Where the newer measured a unit, the older's times between its widths go: lines through times of two occasions
        would bend where nothing does. The older's calibrations stay if that moves its times by at most 5% in all;
        otherwise nobody knows any more how far its predictions are from the truth.

        The newer is the one with the later ``measured_at``; `other`, where that is missing or the same.

        Raises:
            LatencyTableError: The two were not measured under the same conditions.

        """
        difference = self.conditions.differences(other.conditions)
        if difference:
            raise LatencyTableError(
                f"only tables of the same conditions can be merged; these differ in {difference}: measure again under "
                "one set of conditions, or keep two tables"
            )
        dates = [str(table.provenance.get("measured_at", "")) for table in (self, other)]
        old, new = (other, self) if all(dates) and dates[0] > dates[1] else (self, other)
        kept = {unit: timing for unit, timing in old.entries.items() if not new._spans(unit)}
        return LatencyTable(
            self.conditions,
            {**kept, **new.entries},
            {**(old.calibrations if _agree(old, new) else {}), **new.calibrations},
            {**old.provenance, **new.provenance},
        )

    def _spans(self, unit: Unit) -> bool:
        """Tell whether the unit's widths are measured here, or lie between widths that are."""
        rows, columns = self.widths(unit.shape)
        sides = [(columns, unit.c_out)] if unit.op in ONE_WIDTH else [(rows, unit.c_in), (columns, unit.c_out)]
        return all(
            len(widths) > 0
            and widths[0] <= count <= widths[-1]
            and (count % ALIGNMENT == 0 or bool((widths == count).any()))
            for widths, count in sides
        )

    def diff(self, other: "LatencyTable") -> TableDiff:
        """Compare with a table (of any conditions) that is taken as the later one."""
        changes = [
            Change(unit, timing, other.entries[unit])
            for unit, timing in self.entries.items()
            if unit in other.entries and other.entries[unit].median_us != timing.median_us
        ]
        changes.sort(key=lambda change: (-max(change.ratio, 1 / change.ratio), change.unit))
        return TableDiff(
            self.conditions.differences(other.conditions),
            tuple(changes),
            tuple(sorted(set(other.entries) - set(self.entries))),
            tuple(sorted(set(self.entries) - set(other.entries))),
        )

    def with_calibrations(self, calibrations: Mapping[str, Calibration]) -> "LatencyTable":
        """Return the same table with more calibrations."""
        return replace(self, calibrations={**self.calibrations, **calibrations})

    def times_us(self, shape: Unit, c_in: NDArray[np.int64], c_out: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the median kernel times of a unit for all pairs of widths.

        Between measured multiples of 8 the values are bilinear; a width that was not measured and is no multiple of 8
        costs what the next wider such one costs. Nothing is extrapolated.

        A unit of :data:`ONE_WIDTH` (depthwise, elementwise, pool) has one width, the one that leaves: then `c_in` has
        one value, which is not looked at, or is the same as `c_out`, and all rows of the answer are alike.

        Args:
            shape: A unit; its own channel counts do not matter.
            c_in: Channels that enter, ``(n_in,)``.
            c_out: Channels that leave, ``(n_out,)``.

        Returns:
            Microseconds, ``(n_in, n_out)``.

        Raises:
            LatencyTableError: The unit was not measured, or some of these widths lie outside what was; names them.

        """
        grid = self._grids.get(shape.shape)
        if grid is None:
            raise LatencyTableError(f"the table of {self.conditions.device} has no times of {_described(shape)}")
        rows, columns, times = grid
        c_in, c_out = np.asarray(c_in, dtype=np.int64), np.asarray(c_out, dtype=np.int64)
        across = places(columns, c_out, ALIGNMENT)
        if shape.op in ONE_WIDTH:
            assert len(c_in) == 1 or np.array_equal(c_in, c_out), "units of one width keep their channels"
            self._check_inside(shape, ("channels", c_out, across.inside, columns))
            one = between(times, places(np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64), 1), across)
            return np.repeat(one, len(c_in), axis=0)
        down = places(rows, c_in, ALIGNMENT)
        self._check_inside(
            shape,
            ("channels that enter", c_in, down.inside, rows),
            ("channels that leave", c_out, across.inside, columns),
        )
        found = between(times, down, across)
        if np.isnan(found).any():
            row, column = (int(index[0]) for index in np.nonzero(np.isnan(found)))
            raise LatencyTableError(
                f"the table of {self.conditions.device} has no times around {c_in[row]}->{c_out[column]} channels of "
                f"{_described(shape)}: measure it again with the corners of the grid"
            )
        return found

    @cached_property
    def _grids(self) -> dict[Unit, tuple[Ints, Ints, Floats]]:
        """Widths that enter, widths that leave and median times of every shape; one row for units of one width."""
        points: dict[Unit, list[tuple[int, int, float]]] = {}
        for unit, timing in self.entries.items():
            points.setdefault(unit.shape, []).append((unit.c_in, unit.c_out, timing.median_us))
        return {shape: _grid(shape, values) for shape, values in points.items()}

    def _check_inside(self, shape: Unit, *axes: tuple[str, Ints, NDArray[np.bool_], Ints]) -> None:
        """Raise LatencyTableError naming the widths that lie outside what was measured."""
        missing = [
            f"{_listed(widths[~inside])} {name} (measured: {int(knots[0])} to {int(knots[-1])})"
            for name, widths, inside, knots in axes
            if not inside.all()
        ]
        if missing:
            raise LatencyTableError(
                f"the table of {self.conditions.device} has no times of {_described(shape)} with "
                f"{' and '.join(missing)}: measure these widths and merge the tables"
            )

    def _content(self) -> dict[str, Any]:
        """Return all that the file's hash is of."""
        return _table_file.content(
            self.conditions.to_dict(),
            {unit: (t.median_us, t.p10_us, t.p90_us, t.repeats) for unit, t in self.entries.items()},
            {
                key: {entry.name: getattr(value, entry.name) for entry in fields(value)}
                for key, value in self.calibrations.items()
            },
            self.provenance,
        )


def _agree(old: LatencyTable, new: LatencyTable) -> bool:
    """Tell whether the times of the units that both measured moved little, as a share of all times of the older."""
    slowest: dict[Unit, float] = {}
    ratios: dict[Unit, list[float]] = {}
    for unit, timing in old.entries.items():
        slowest[unit.shape] = max(slowest.get(unit.shape, 0.0), timing.median_us)
        if unit in new.entries:
            ratios.setdefault(unit.shape, []).append(new.entries[unit].median_us / timing.median_us)
    moved = sum(slowest[shape] * abs(float(np.median(each)) - 1) for shape, each in ratios.items())
    return moved <= AGREEMENT * sum(slowest.values())


def _grid(shape: Unit, points: Iterable[tuple[int, int, float]]) -> tuple[Ints, Ints, Floats]:
    """Arrange measured points; holes between them are filled."""
    c_in, c_out, times = (np.array(column) for column in zip(*points, strict=True))
    columns = np.unique(c_out).astype(np.int64)
    rows = np.ones(1, dtype=np.int64) if shape.op in ONE_WIDTH else np.unique(c_in).astype(np.int64)
    grid = np.full((len(rows), len(columns)), np.nan)
    places_in = np.zeros(len(c_in), dtype=np.int64) if shape.op in ONE_WIDTH else np.searchsorted(rows, c_in)
    grid[places_in, np.searchsorted(columns, c_out)] = times
    return rows, columns, filled(grid, rows, columns, ALIGNMENT)


def _described(shape: Unit) -> str:
    """Return a unit in words, without its channel counts."""
    return str(shape.shape).replace(" 0->0", "")


def _listed(widths: Ints) -> str:
    """Return a few of these widths."""
    values = [str(width) for width in np.unique(widths)]
    return ", ".join(values[:6]) + (f" and {len(values) - 6} more" if len(values) > 6 else "")
