"""Work for a device: units to profile and networks to time, as JSON that a kit or a service hands out."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.values import PRECISIONS
from autoprune.latency_tables.width_grid import WidthGrid

FORMAT = "autoprune-device-work"
VERSION = 1
MOST_WIDTHS = 4096
MOST_GRIDS = 10_000
MOST_NETWORKS = 1000

#: Paths within a kit, on any system: no drives, no backslashes, nothing that a file system does not take.
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class WholeNetwork:
    """A network that is timed whole.

    Attributes:
        file: Path of the ONNX file within the kit, with slashes.
        sha256: Of the file.
        input_shape: One image, ``(C, H, W)``.
        units: What it runs, in execution order; empty where its time is not compared with a table.

    """

    file: str
    sha256: str
    input_shape: tuple[int, ...]
    units: tuple[Unit, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "input_shape": list(self.input_shape),
            "units": [unit.to_dict() for unit in self.units],
        }

    @classmethod
    def from_dict(cls, data: object) -> "WholeNetwork":
        """Read what :meth:`to_dict` wrote; LatencyTableError for anything else."""
        values = _fields("a network", data, ("file", "sha256", "input_shape", "units"))
        path, shape = values["file"], values["input_shape"]
        if not isinstance(path, str) or len(path) > 200 or not _PATH.fullmatch(path):
            raise LatencyTableError(f"work: a network's file is a path within the kit, found {str(path)[:100]!r}")
        if not isinstance(values["sha256"], str) or not _SHA256.fullmatch(values["sha256"]):
            raise LatencyTableError(f"work: {path}: expected a sha256, found {str(values['sha256'])[:100]!r}")
        if not isinstance(shape, list) or len(shape) != 3 or not all(_is_count(size) for size in shape):
            raise LatencyTableError(f"work: {path}: expected an input shape [C, H, W], found {str(shape)[:100]}")
        if not isinstance(values["units"], list):
            raise LatencyTableError(f"work: {path}: expected a list of units")
        return cls(path, values["sha256"], tuple(shape), tuple(Unit.from_dict(unit) for unit in values["units"]))


@dataclass(frozen=True, slots=True)
class Work:
    """What a device is to measure.

    Attributes:
        device: Name of the device, if it was named already.
        grids: Units to profile, each at all pairs of its widths.
        networks: Networks to time whole: to calibrate a table, or for their own sake.
        structure: Fingerprint that a calibration by these networks is filed under; empty for none.
        threads: Threads within an operator.
        batch: Images per inference.
        precision: Of weights and activations, ``fp32`` or ``int8``; networks whose units are profiled are files of it.
        graph_options: How far the runtime optimizes.
        time_budget_s: For everything together.
        made_by: Version of autoprune that asks.

    """

    device: str | None = None
    grids: tuple[WidthGrid, ...] = ()
    networks: tuple[WholeNetwork, ...] = ()
    structure: str = ""
    threads: int = 1
    batch: int = 1
    precision: str = "fp32"
    graph_options: str = "all"
    time_budget_s: float = 600.0
    made_by: str = "unknown"

    def to_json(self) -> str:
        """Return the text of a file."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "device": self.device,
            "grids": [
                {"unit": grid.shape.to_dict(), "c_in": list(grid.c_in), "c_out": list(grid.c_out)}
                for grid in self.grids
            ],
            "networks": [network.to_dict() for network in self.networks],
            "structure": self.structure,
            "conditions": {
                "threads": self.threads,
                "batch": self.batch,
                "precision": self.precision,
                "graph_options": self.graph_options,
            },
            "time_budget_s": self.time_budget_s,
            "made_by": self.made_by,
        }

    @classmethod
    def from_json(cls, text: str | bytes) -> "Work":
        """Read what :meth:`to_json` wrote.

        Raises:
            LatencyTableError: It is not such a text.

        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LatencyTableError(f"work: expected JSON, found a damaged file ({str(error)[:200]})") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: object) -> "Work":
        """Read what :meth:`to_dict` wrote; errors as of :meth:`from_json`."""
        if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
            raise LatencyTableError(
                f"work: expected format {FORMAT!r} and version {VERSION}: get a kit and work of the same autoprune"
            )
        names = (
            "format",
            "version",
            "device",
            "grids",
            "networks",
            "structure",
            "conditions",
            "time_budget_s",
            "made_by",
        )
        values = _fields("work", data, names)
        conditions = _fields("conditions", values["conditions"], ("threads", "batch", "precision", "graph_options"))
        if not isinstance(values["grids"], list) or len(values["grids"]) > MOST_GRIDS:
            raise LatencyTableError(f"work: expected a list of at most {MOST_GRIDS} grids")
        if not isinstance(values["networks"], list) or len(values["networks"]) > MOST_NETWORKS:
            raise LatencyTableError(f"work: expected a list of at most {MOST_NETWORKS} networks")
        for name in ("threads", "batch"):
            if not _is_count(conditions[name]):
                raise LatencyTableError(f"work: {name}: expected a whole number above 0, found {conditions[name]!r}")
        if conditions["precision"] not in PRECISIONS or conditions["graph_options"] != "all":
            raise LatencyTableError(
                f"work: expected precision {' or '.join(PRECISIONS)} and graph options all, found {conditions}"
            )
        budget = values["time_budget_s"]
        if not isinstance(budget, int | float) or isinstance(budget, bool) or not 0 < budget <= 1e6:
            raise LatencyTableError(f"work: time_budget_s: expected seconds above 0, found {budget!r}")
        for name, kinds in (("device", (str, type(None))), ("structure", (str,)), ("made_by", (str,))):
            if not isinstance(values[name], kinds):
                raise LatencyTableError(f"work: {name}: expected a text, found {values[name]!r}")
        return cls(
            values["device"],
            tuple(_grid(each) for each in values["grids"]),
            tuple(WholeNetwork.from_dict(each) for each in values["networks"]),
            values["structure"],
            time_budget_s=float(budget),
            made_by=values["made_by"],
            **conditions,
        )


def _grid(data: object) -> WidthGrid:
    """Read a grid."""
    values = _fields("a grid", data, ("unit", "c_in", "c_out"))
    for name in ("c_in", "c_out"):
        widths = values[name]
        if not isinstance(widths, list) or not 1 <= len(widths) <= MOST_WIDTHS or not all(map(_is_count, widths)):
            raise LatencyTableError(f"work: {name}: expected 1 to {MOST_WIDTHS} widths, found {str(widths)[:100]}")
    return WidthGrid(Unit.from_dict(values["unit"]), tuple(values["c_in"]), tuple(values["c_out"]))


def _fields(what: str, data: object, names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return `data` if it is an object with exactly these fields."""
    if not isinstance(data, dict) or set(data) != set(names):
        found = ", ".join(sorted(map(str, data)))[:200] if isinstance(data, dict) else type(data).__name__
        raise LatencyTableError(f"work: {what}: expected the fields {', '.join(names)}; found {found}")
    return data


def _is_count(value: object) -> bool:
    """Tell whether `value` is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
