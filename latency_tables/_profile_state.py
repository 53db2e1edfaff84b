"""What a profile has measured so far, in a file of JSON lines: a profile that was stopped goes on from there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.table import Timing
from autoprune.latency_tables.unit import Unit

_FORMAT, _VERSION = "autoprune-profile-state", 1


class ProfileState:
    """Measured units and reference times; every addition is on disk before the next is measured.

    One process at a time may write a file. Without a path it lives in memory.

    Raises:
        LatencyTableError: The file is not such a file, or was written under other conditions.

    """

    def __init__(self, path: Path | None, conditions: Mapping[str, Any]) -> None:
        self._path = path
        self.timings: dict[Unit, Timing] = {}
        self.references_us: list[float] = []
        self.overhead_us: float | None = None
        if path is None:
            return
        head = {"format": _FORMAT, "version": _VERSION, "conditions": dict(conditions)}
        if path.is_file() and path.stat().st_size:
            self._read(path, head)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([head])

    def add(self, timings: Mapping[Unit, Timing], reference_us: float) -> None:
        """Record one session; the last timing of a unit counts."""
        self.timings.update(timings)
        self.references_us.append(reference_us)
        lines: list[dict[str, Any]] = [{"reference_us": reference_us}]
        for unit, t in timings.items():
            lines.append({"unit": unit.to_dict(), "timing": [t.median_us, t.p10_us, t.p90_us, t.repeats]})
        self._append(lines)

    def set_overhead(self, overhead_us: float) -> None:
        """Record what was taken off every kernel."""
        self.overhead_us = overhead_us
        self._append([{"overhead_us": overhead_us}])

    def _append(self, lines: list[dict[str, Any]]) -> None:
        """Write lines to the end of the file."""
        if self._path is None:
            return
        with self._path.open("ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def _read(self, path: Path, head: Mapping[str, Any]) -> None:
        """Read the file; a last line that was cut off is dropped, from the file too."""
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise LatencyTableError(
                f"{path}: not a state file of a profile: {error}; delete it to begin anew"
            ) from error
        found = lines[0] if lines else None
        if not isinstance(found, dict) or found.get("format") != _FORMAT or found.get("version") != _VERSION:
            raise LatencyTableError(f"{path}: not a state file of a profile (version {_VERSION}); name another file")
        if found.get("conditions") != head["conditions"]:
            raise LatencyTableError(
                f"{path} was measured under other conditions: {found.get('conditions')}, now {head['conditions']}; "
                "name another file"
            )
        for number, line in enumerate(lines[1:], start=2):
            self._take(line, f"{path}, line {number}")
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))

    def _take(self, line: object, where: str) -> None:
        """Take over one line."""
        try:
            assert isinstance(line, dict)
            if "reference_us" in line:
                self.references_us.append(float(line["reference_us"]))
            elif "overhead_us" in line:
                self.overhead_us = float(line["overhead_us"])
            else:
                median, p10, p90, repeats = line["timing"]
                self.timings[Unit.from_dict(line["unit"])] = Timing(float(median), float(p10), float(p90), int(repeats))
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise LatencyTableError(f"{where}: not a measured unit; delete the file to begin anew") from error
