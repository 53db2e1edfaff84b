"""Latency tables of this user: one file per device and set of conditions, found by the device's name.

They lie in ``latency-tables`` of the service's home, so that the command line and the REST service share them.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import autoprune.latency_tables
from autoprune.errors import LatencyTableError, UnknownNameError
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.session import RUNTIME
from autoprune.latency_tables.table import Conditions, LatencyTable
from autoprune.service.locks import held
from autoprune.service.settings import Settings, SettingsError

SUFFIX = ".json"

#: Tables that come with autoprune; a user's own ones of the same device go first.
SHIPPED = Path(autoprune.latency_tables.__file__).resolve().parent / "shipped"

_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class StoredTable:
    """One table of the store.

    Attributes:
        id: Device and conditions: the same for every version of the table that was measured under them.
        path: Its file.
        table: What is in it.
        dropped: Networks whose comparison with whole networks went when this table was merged.

    """

    id: str
    path: Path
    table: LatencyTable
    dropped: int = 0


def table_id(conditions: Conditions) -> str:
    """Return the id of the table of a device under these conditions."""
    digest = hashlib.sha256(json.dumps(conditions.to_dict(), sort_keys=True).encode()).hexdigest()
    return f"{conditions.device}.{digest[:12]}"


def device_of(stored_id: str) -> str:
    """Return the device of the table with this id."""
    return stored_id.rpartition(".")[0]


def check_is_of(table: LatencyTable, device: str) -> None:
    """Make sure that a table is of a device.

    Raises:
        LatencyTableError: It is of another one.

    """
    found = table.conditions.device
    if found != device:
        raise LatencyTableError(
            f"expected a table of the device {device!r}, found one of {found!r}: import it without naming a device to "
            f"keep it as {found!r}, or measure again under the name {device!r}"
        )


def count_dropped(parts: Sequence[LatencyTable], merged: LatencyTable) -> int:
    """Return the number of networks that one of the parts was compared with and their merged table no longer is."""
    return len(set().union(*(part.calibrations for part in parts)) - set(merged.calibrations))


def dropped_warning(count: int) -> str:
    """Return what to tell someone whose merged table is no longer compared with `count` networks."""
    what = "a network" if count == 1 else f"{count} networks"
    return (
        f"what was known about {what} measured earlier no longer holds, for shared units take another time now; "
        "measure that again before you give it a budget of latency, or keep the networks under different names"
    )


class TableStore:
    """The stored tables. Several threads and processes may use one folder at the same time."""

    def __init__(self, home: Path | None = None) -> None:
        """Use the folder of a service's `home`; by default of ``AUTOPRUNE_HOME``."""
        self._folder = (home or Settings.from_environment().home) / "latency-tables"

    def add(self, table: LatencyTable, *, replace: bool = False) -> tuple[StoredTable, bool]:
        """Keep a table; return what is stored now, and whether nothing was stored under its conditions before.

        What was stored is merged with it (the newer times win), or thrown away with `replace`.

        Raises:
            LatencyTableError: The stored table is damaged; `replace` does away with it.
            SettingsError: The folder cannot be written.

        """
        path = self._folder / f"{table_id(table.conditions)}{SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with held(self._folder / ".lock", wait_s=_WAIT_S) as got_it:
                if not got_it:
                    raise SettingsError(f"another program keeps {self._folder} busy; try again later")
                is_new = not path.exists()
                before = None if is_new or replace else LatencyTable.load(path)
                kept = table if before is None else before.merged(table)
                kept.save(path)
        except OSError as error:
            raise SettingsError(f"cannot write to {self._folder} ({error}); set AUTOPRUNE_HOME") from error
        dropped = 0 if before is None else count_dropped([before, table], kept)
        return StoredTable(path.stem, path, kept, dropped), is_new

    def get(self, stored_id: str) -> StoredTable:
        """Return the table with this id.

        Raises:
            UnknownNameError: There is none.
            LatencyTableError: Its file is damaged.

        """
        paths = {path.stem: path for path in self._paths()}
        if stored_id not in paths:
            raise UnknownNameError("latency table", stored_id[:100], paths)
        return StoredTable(stored_id, paths[stored_id], LatencyTable.load(paths[stored_id]))

    def all(self) -> list[StoredTable]:
        """Return all tables by id; errors as of :meth:`get`."""
        return [StoredTable(path.stem, path, LatencyTable.load(path)) for path in self._paths()]

    def ids(self) -> tuple[str, ...]:
        """Return the ids of all tables, without reading them."""
        return tuple(sorted(path.stem for path in self._paths()))

    def of_device(self, device: str) -> list[StoredTable]:
        """Return the tables of one device; errors as of :meth:`get`."""
        return [
            StoredTable(path.stem, path, LatencyTable.load(path))
            for path in self._paths()
            if device_of(path.stem) == device
        ]

    def devices(self) -> tuple[str, ...]:
        """Return the names of all devices with tables."""
        return tuple(sorted({device_of(stored_id) for stored_id in self.ids()}))

    def _paths(self) -> Iterator[Path]:
        """Yield the files, the user's own before shipped ones of the same id."""
        seen = set()
        for folder in (self._folder, SHIPPED):
            for path in sorted(folder.glob(f"*{SUFFIX}")):
                if path.stem not in seen and not path.name.startswith("."):
                    seen.add(path.stem)
                    yield path


def find_table(
    name: str, *, home: Path | None = None, precision: str | None = None, threads: int | None = None
) -> LatencyTable:
    """Return the table that `name` means: a file's path, the id of a stored table, or a device.

    Of several tables of one device the one of the installed onnxruntime is taken, then the one measured last.

    Args:
        name: What a user wrote; a path if it has a slash or ends in ``.json``.
        home: Of the service; by default ``AUTOPRUNE_HOME``.
        precision: Only tables of this precision; any by default.
        threads: Only tables of so many threads; any by default.

    Raises:
        UnknownNameError: No table has this name.
        LatencyTableError: The file is no table that can be used, or what the name means is of other settings.

    """
    found = _named(name, TableStore(home))
    fitting = [
        table
        for table in found
        if precision in (None, table.conditions.precision) and threads in (None, table.conditions.threads)
    ]
    if not fitting:
        known = {(table.conditions.precision, table.conditions.threads) for table in found}
        have = "; ".join(f"{kind}, {count} threads" for kind, count in sorted(known))
        raise LatencyTableError(
            f"device {name}: expected a table of {precision or 'any precision'} and {threads or 'any number of'} "
            f"threads, found {have}: measure one with these settings (a job takes tables of int8 if it exports int8, "
            "with --int8, and of fp32 if not)"
        )
    return max(
        fitting,
        key=lambda table: (table.conditions.runtime == RUNTIME, str(table.provenance.get("measured_at", ""))),
    )


def _named(name: str, store: TableStore) -> list[LatencyTable]:
    """Return the tables that a name may mean: that of a file or an id, or all of a device; errors as of find_table."""
    if "/" in name or "\\" in name or name.endswith(SUFFIX):
        return [LatencyTable.load(Path(name))]
    check_device(name)
    found = [each.table for each in store.of_device(name)]
    if not found and name in store.ids():
        return [store.get(name).table]
    if not found:
        raise UnknownNameError("device", name, store.devices())
    return found
