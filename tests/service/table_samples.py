"""A small latency table, as a device would send it."""

import json
from collections.abc import Callable
from typing import Any

from autoprune.latency_tables._table_file import sha256_of
from autoprune.latency_tables.table import Calibration, Conditions, LatencyTable, Timing
from autoprune.latency_tables.unit import Unit

CONV = Unit("conv", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, (14, 14), 0, 0, "relu")


def sample_table(
    device: str = "phone-1",
    *,
    factor: float = 1.0,
    widths: tuple[int, ...] = (8, 16),
    measured_at: str = "2026-01-01T00:00:00+00:00",
    **conditions: Any,  # noqa: ANN401 - those of Conditions
) -> LatencyTable:
    """Return a table of one convolution."""
    return LatencyTable(
        Conditions(device, "aarch64", "onnxruntime 1.27.0", **conditions),
        {
            CONV.with_channels(i, o): Timing(factor * i * o, factor * i * o * 0.9, factor * i * o * 1.1, 30)
            for i in widths
            for o in widths
        },
        {"net": Calibration(1.0, 5.0, 0.03, 0.06, ((100.0, 103.0),))},
        {"measured_at": measured_at, "processor": "Cortex-X4"},
    )


def altered(table: LatencyTable, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> bytes:
    """Return the file of a table that somebody changed; with `seal`, its hash fits again."""
    data = json.loads(table.to_json())
    change(data)
    if seal:
        content = {name: data[name] for name in ("conditions", "units", "calibrations", "provenance")}
        data["sha256"] = sha256_of(content)
    return json.dumps(data).encode()
