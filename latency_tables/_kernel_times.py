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
from autoprune.latency_tables.session import RUNTIME_ERRORS, first_line, inference_clock, open_session
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.unit_onnx import UnitModel, chain_model, place_of, unit_model

#: Runs before the first that counts: they fill caches and the runtime's memory arena.
WARMUP = 2

#: Kernels and runs that show what profiling adds to each.
CHAIN, OVERHEAD_RUNS = 60, 40
_SMALL = Unit("conv", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, (8, 8), 16, 16, "relu")

_KERNEL = "_kernel_time"


def kernel_times_us(
    units: Sequence[Unit],
    *,
    threads: int,
    batch: int,
    seconds: float,
    least: int,
    most: int,
    overhead_us: float = 0.0,
    precision: str = "fp32",
) -> NDArray[np.float64]:
    """Time units in one session, all of them once per run, so that slow drift hits all alike.

    Args:
        units: With their channel counts; the same one may be there several times.
        threads: Threads within an operator.
        batch: Images per inference.
        seconds: No run begins later than this after the first, but `least` runs are always made.
        least: Runs at least.
        most: Runs at most.
        overhead_us: What the profile adds to each kernel, :func:`profiling_overhead_us`; it is taken off.
        precision: ``fp32`` or ``int8``.

    Returns:
        Microseconds of every unit in every run, ``(runs, units)``.

    Raises:
        LatencyTableError: A unit cannot be run, or onnxruntime ran nothing for it.

    """
    model = unit_model(units, batch=batch, precision=precision)
    with tempfile.TemporaryDirectory(prefix="autoprune-profile-", ignore_cleanup_errors=True) as folder:
        path = _run(model, Path(folder), threads, seconds, least, most)
        events = json.loads(path.read_bytes())
    runs = list(times_of_runs(events, len(units), overhead_us))[WARMUP:]
    times = np.array(runs, dtype=np.float64)
    for unit, shortest_us in zip(units, times.min(axis=0).tolist(), strict=True):
        if shortest_us <= 0:
            raise LatencyTableError(f"{unit}: onnxruntime ran no kernel for this unit")
    return times


def profiling_overhead_us(*, threads: int, precision: str = "fp32") -> float:
    """Return by how much a kernel takes longer for being profiled, in microseconds (3 to 4 were seen on a server).

    Writing the profile pushes code and data out of the nearest caches. Found with a network of many small kernels: its
    kernels in the profile, against the whole network without; so what the runtime itself spends between two kernels is
    counted as part of them. At least 0.
    """
    model = chain_model(_SMALL, CHAIN, precision=precision)
    clock = inference_clock(threads)
    with tempfile.TemporaryDirectory(prefix="autoprune-profile-", ignore_cleanup_errors=True) as folder:
        profiled = open_session(model.data, threads=threads, profile_prefix=Path(folder) / "profile")
        plain = open_session(model.data, threads=threads)
        wholes_us = []
        for _ in range(WARMUP + OVERHEAD_RUNS):
            profiled.run(None, dict(model.feeds))
            plain.run(None, dict(model.feeds))
            started = clock()
            plain.run(None, dict(model.feeds))
            wholes_us.append(1e6 * (clock() - started))
        events = json.loads(Path(profiled.end_profiling()).read_bytes())
    durations: dict[str, list[float]] = {}
    for event in events:
        if str(event.get("name", "")).endswith(_KERNEL):
            durations.setdefault(event["name"], []).append(float(event["dur"]) + 0.5)
    kernels_us = sum(quantiles_us(np.array(each[WARMUP:]), (0.5,))[0] for each in durations.values())
    return max(0.0, (kernels_us - float(np.median(wholes_us[WARMUP:]))) / len(durations))


def times_of_runs(
    events: Iterable[Mapping[str, Any]], n_units: int, overhead_us: float = 0.0
) -> Iterable[NDArray[np.float64]]:
    """Add up the kernels of each unit, run by run, ``(n_units,)`` microseconds each.

    A kernel without a name of ours (parts of an operator that was expanded) belongs to the unit that runs at the time.
    What copies between layouts in the middle of a unit belongs to it; what does so before or behind it does not.
    Durations are whole microseconds, rounded down: every kernel gets half a microsecond more, and
    `overhead_us` less, but keeps a fifth of its duration at least.
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
        counted = float(event["dur"]) + 0.5
        duration = max(counted - overhead_us, counted / 5)
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
