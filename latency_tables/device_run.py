"""Work measured on the device this runs on: units profiled, networks timed whole, and a table made of both."""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from autoprune.errors import Cancelled, LatencyTableError
from autoprune.latency_tables.calibration import LEAST_NETWORKS, fit_calibration
from autoprune.latency_tables.measure import Latency, measure_side_by_side
from autoprune.latency_tables.profiler import Profile, profile
from autoprune.latency_tables.session import RUNTIME, processor_name
from autoprune.latency_tables.table import Calibration, Conditions, LatencyTable
from autoprune.latency_tables.work import WholeNetwork, Work

#: Called with what is being done, and which share of everything is done, from 0 to 1.
Report = Callable[[str, float], None]

#: Most of the time budget that networks measured whole may take, and most seconds for one of them.
NETWORK_SHARE, NETWORK_S = 0.25, 10.0

#: Most inferences of one network.
NETWORK_RUNS = 300

#: Bytes of networks that are loaded at the same time, to be timed in turn.
SIDE_BY_SIDE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out of work.

    Attributes:
        conditions: What everything was measured under.
        table: Times of the units, calibrated where networks were measured; None where the work has no units.
        latencies: Latency of every network, by the hash of its file.
        complete: Whether all units that were wanted were measured; False where the time ended first.

    """

    conditions: Conditions
    table: LatencyTable | None
    latencies: Mapping[str, Latency]
    complete: bool


def measure_work(
    work: Work,
    folder: Path,
    *,
    device: str,
    state: Path | None = None,
    report: Report = lambda _what, _share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Measured:
    """Measure `work` here and now.

    Args:
        work: What is to be measured.
        folder: Where the files of its networks lie.
        device: Name of this device.
        state: File that units measured so far are kept in; the same call again goes on from there.
        report: Told how far it is.
        should_stop: Asked now and then whether to stop.

    Raises:
        LatencyTableError: A unit cannot be run, a file is missing or another one, or the state is of other conditions.
        ModelError: onnxruntime cannot run a network.
        Cancelled: `should_stop` said so.

    """
    conditions = Conditions(
        device, platform.machine() or "unknown", RUNTIME, work.precision, work.threads, work.batch, work.graph_options
    )
    paths = [checked_file(folder, network) for network in work.networks]
    networks_s = min(NETWORK_SHARE * work.time_budget_s, NETWORK_S * len(paths)) if work.grids else work.time_budget_s
    units_s = max(work.time_budget_s - (networks_s if paths else 0.0), 1.0)
    split = units_s / (units_s + networks_s) if work.grids and paths else float(bool(work.grids))
    found = None
    if work.grids:
        found = _profiled(work, units_s, state, lambda share: report("units", split * share), should_stop)
    latencies = _latencies(
        work, paths, networks_s, lambda share: report("whole networks", split + (1 - split) * share), should_stop
    )
    table = None if found is None else _table(work, conditions, found, latencies)
    report("done", 1.0)
    return Measured(conditions, table, latencies, found is None or found.complete)


def with_choices(work: Work, *, threads: int | None = None, time_budget_s: float | None = None) -> Work:
    """Return the same work with what a person at the device chose."""
    return replace(work, threads=threads or work.threads, time_budget_s=time_budget_s or work.time_budget_s)


def checked_file(folder: Path, network: WholeNetwork) -> Path:
    """Return the path of a network's file.

    Raises:
        LatencyTableError: It is missing, or another file.

    """
    path = folder / network.file
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LatencyTableError(f"{path}: cannot be read ({error.strerror}); copy the whole kit again") from error
    if found != network.sha256:
        raise LatencyTableError(f"{path}: expected the sha256 {network.sha256}, found {found}; copy the kit again")
    return path


def predicted_us(table: LatencyTable, network: WholeNetwork) -> float:
    """Return the sum of the times of a network's units in microseconds.

    Raises:
        LatencyTableError: The table lacks one.

    """
    one = np.ones(1, dtype=np.int64)
    return sum(float(table.times_us(unit, unit.c_in * one, unit.c_out * one)[0, 0]) for unit in network.units)


def _profiled(
    work: Work, time_s: float, state: Path | None, report: Callable[[float], None], should_stop: Callable[[], bool]
) -> Profile:
    """Profile the units; the share that is done follows from the time that the profiler says is left."""
    started = time.monotonic()

    def progress(_done: int, _planned: int, left_s: float) -> None:
        elapsed_s = time.monotonic() - started
        report(elapsed_s / max(elapsed_s + left_s, 1e-9))

    report(0.0)
    found = profile(
        work.grids,
        threads=work.threads,
        batch=work.batch,
        precision=work.precision,
        time_budget_s=time_s,
        state=state,
        progress=progress,
        should_stop=should_stop,
    )
    if should_stop():
        raise Cancelled("the units measured so far are kept; the same command again goes on from there")
    return found


def _latencies(
    work: Work, paths: Sequence[Path], time_s: float, report: Callable[[float], None], should_stop: Callable[[], bool]
) -> dict[str, Latency]:
    """Time networks whole, as many side by side as fit into memory."""
    found: dict[str, Latency] = {}
    for chosen in _side_by_side(work.networks, [path.stat().st_size for path in paths]):
        if should_stop():
            raise Cancelled("stopped while networks were measured; start again to go on")
        report(len(found) / len(paths))
        measured = measure_side_by_side(
            [paths[index] for index in chosen],
            input_shape=work.networks[chosen[0]].input_shape,
            batch=work.batch,
            threads=work.threads,
            repeats=NETWORK_RUNS,
            time_budget_s=time_s * len(chosen) / len(paths),
        )
        found.update({work.networks[index].sha256: latency for index, latency in zip(chosen, measured, strict=True)})
    return found


def _side_by_side(networks: Sequence[WholeNetwork], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Yield which networks to load at the same time: of one input shape, and not too large together."""
    chosen: list[int] = []
    for index, network in enumerate(networks):
        together = sum(sizes[each] for each in [*chosen, index])
        if chosen and (network.input_shape != networks[chosen[0]].input_shape or together > SIDE_BY_SIDE_BYTES):
            yield chosen
            chosen = []
        chosen.append(index)
    if chosen:
        yield chosen


def _table(work: Work, conditions: Conditions, found: Profile, latencies: Mapping[str, Latency]) -> LatencyTable:
    """Make the table, with the calibration that the networks give."""
    provenance: dict[str, str | float] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "autoprune": work.made_by,
        "seconds": round(found.seconds, 1),
        "drift": round(found.drift, 4),
        "complete": "yes" if found.complete else "no: the time budget ended first; more time makes a finer grid",
    }
    if found.interpolation_error:
        provenance["interpolation_error"] = round(max(found.interpolation_error.values()), 4)
    table = LatencyTable(conditions, found.timings, {}, provenance)
    calibration = _calibration(work, table, latencies)
    return table if calibration is None else table.with_calibrations({work.structure: calibration})


def _calibration(work: Work, table: LatencyTable, latencies: Mapping[str, Latency]) -> Calibration | None:
    """Fit the calibration; None where too few networks were measured."""
    networks = [network for network in work.networks if network.units]
    if not work.structure or len(networks) < LEAST_NETWORKS:
        return None
    measured_us = [1e3 * latencies[network.sha256].p10_ms for network in networks]  # medians of a busy machine mislead
    return fit_calibration([predicted_us(table, network) for network in networks], measured_us)
