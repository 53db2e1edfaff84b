"""Kernel times of units, from onnxruntime's own profile of a model that holds many of them."""

import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import LatencyTableError
from autoprune.latency_tables.session import RUNTIME_ERRORS, first_line, open_session
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.unit_onnx import UnitModel, place_of, unit_model

#: Runs before the first that counts: they fill caches and the runtime's memory arena.
WARMUP = 2

_KERNEL = "_kernel_time"


def kernel_times_us(
    units: Sequence[Unit], *, threads: int, batch: int, seconds: float, least: int, most: int
) -> NDArray[np.float64]:
    """Time units in one session, all of them once per run, so that slow drift hits all alike.

    Args:
        units: With their channel counts; the same one may be there several times.
        threads: Threads within an operator.
        batch: Images per inference.
        seconds: No run begins later than this after the first, but `least` runs are always made.
        least: Runs at least.
        most: Runs at most.

    Returns:
        Microseconds of every unit in every run, ``(runs, units)``.

    Raises:
        LatencyTableError: A unit cannot be run, or onnxruntime ran nothing for it.

    """
    model = unit_model(units, batch=batch)
    with tempfile.TemporaryDirectory(prefix="autoprune-profile-", ignore_cleanup_errors=True) as folder:
        path = _run(model, Path(folder), threads, seconds, least, most)
        events = json.loads(path.read_bytes())
    runs = list(times_of_runs(events, len(units)))[WARMUP:]
    times = np.array(runs, dtype=np.float64)
    for unit, shortest_us in zip(units, times.min(axis=0).tolist(), strict=True):
        if shortest_us <= 0:
            raise LatencyTableError(f"{unit}: onnxruntime ran no kernel for this unit")
    return times


def times_of_runs(events: Iterable[Mapping[str, Any]], n_units: int) -> Iterable[NDArray[np.float64]]:
    """Add up the kernels of each unit, run by run, ``(n_units,)`` microseconds each.

    A kernel without a name of ours (parts of an operator that was expanded) belongs to the unit that runs at the time.
    What copies between layouts in the middle of a unit belongs to it; what does so before or behind it does not.
    Durations are whole microseconds, rounded down: every kernel gets half a microsecond more.
    """
    times = np.zeros(n_units)
    running: int | None = None
    begun, copying = False, 0.0
    for event in events:
        name = str(event.get("name", ""))
        if name == "model_run":
            yield times
            times, running = np.zeros(n_units), None
        if not name.endswith(_KERNEL):
            continue
        duration = float(event["dur"]) + 0.5
        place = place_of(name)
        if place is None and ("Reorder" in name or "Transpose" in name):
            copying += duration
            continue
        if place is not None and place[0] != running:
            running, begun = place[0], False
        if place is not None and place[1] != "core":
            begun, running = False, None if place[1] == "drain" else running
        elif running is not None:
            times[running] += duration + (copying if begun else 0.0)
            begun = True
        copying = 0.0


def quantiles_us(times: NDArray[np.float64], shares: Sequence[float]) -> list[float]:
    """Return quantiles of times that were rounded to whole microseconds.

    Equal values are taken as spread evenly over their microsecond, as statistics of grouped data do; so kernels of a
    few microseconds are resolved to fractions of one.
    """
    values, counts = np.unique(times, return_counts=True)
    spread = [value - 0.5 + (np.arange(count) + 0.5) / count for value, count in zip(values, counts, strict=True)]
    return [float(each) for each in np.quantile(np.sort(np.concatenate(spread)), shares)]


def _run(model: UnitModel, folder: Path, threads: int, seconds: float, least: int, most: int) -> Path:
    """Run the model often enough; return the file of its profile."""
    try:
        session = open_session(model.data, threads=threads, profile_prefix=folder / "profile")
        feeds = dict(model.feeds)
        for _ in range(WARMUP):
            session.run(None, feeds)
        deadline = time.perf_counter() + seconds
        runs = 0
        while runs < most and (runs < least or time.perf_counter() < deadline):
            session.run(None, feeds)
            runs += 1
        return Path(session.end_profiling())
    except RUNTIME_ERRORS as error:
        listed = ", ".join(str(unit) for unit in model.units[:3])
        raise LatencyTableError(f"onnxruntime cannot run the units {listed}, ...: {first_line(error)}") from error
