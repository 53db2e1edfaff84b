"""Fills a latency table on the device: times fused units in onnxruntime, within a time budget.

All units of a session stand side by side in one model and are timed by onnxruntime's own profile of its nodes
(:mod:`autoprune.latency_tables.unit_onnx`), so what is timed is the kernel as it runs in a network, and all are timed
in turn. The widths that are measured (:func:`profile`):

1. a coarse grid of every shape, whatever the time budget;
2. all widths of each side, with two widths of the other side: the staircases;
3. those lines of the grid at which the staircases bend, most bent first, so that what is returned is a full grid;
4. pairs of widths at random, which show what the grid misses between its lines, and more lines where that is too much.
"""

import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.latency_tables._bench import Bench
from autoprune.latency_tables._profile_state import ProfileState
from autoprune.latency_tables.session import RUNTIME, processor_name
from autoprune.latency_tables.table import Timing
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.width_grid import (
    WidthGrid,
    bends,
    coarse,
    interpolation_errors,
    merged_grids,
    staircase_times,
    staircase_units,
    sticking_out,
)

__all__ = ["Profile", "Progress", "WidthGrid", "profile", "profile_units"]

#: Called after every session with the units that are done, the units that are planned so far, and the seconds left.
Progress = Callable[[int, int, float], None]

#: Relative error of a line between two measured widths that is good enough.
TOLERANCE = 0.03

#: Most points of one shape's grid that bends of its staircases may ask for, and the share of the time for them.
MOST_POINTS, REFINING = 800, 0.85

#: Random pairs of widths per shape that show the error between the lines, and rounds of closing gaps they reveal.
CHECKS, CHECK_ROUNDS = 10, 4

#: How often units are measured again that took longer than wider ones.
DOUBT_ROUNDS = 2

#: Microseconds that one more unit costs besides its own kernel, for weighing what to measure next.
_OVERHEAD_US = 100.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured.

    Attributes:
        timings: By unit with its channel counts; full grids, as a table wants them.
        checks: Units that were measured but are not part of a grid: staircases, and pairs that show the error.
        interpolation_error: By shape, the mean absolute relative error of interpolated times at random pairs of
            widths; only shapes with widths that were not measured.
        drift: Largest relative difference of a session's reference unit from the median of all sessions.
        seconds: Time it took, of this call alone.
        complete: Whether all that was planned was measured; False where time ran out or somebody stopped it.

    """

    timings: Mapping[Unit, Timing]
    checks: Mapping[Unit, Timing]
    interpolation_error: Mapping[Unit, float]
    drift: float
    seconds: float
    complete: bool


def profile(
    requests: Sequence[WidthGrid],
    *,
    threads: int = 1,
    batch: int = 1,
    precision: str = "fp32",
    time_budget_s: float = 600.0,
    tolerance: float = TOLERANCE,
    state: Path | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Profile:
    """Measure grids of widths, as finely as the time allows.

    Args:
        requests: What must be priced; several of one shape become one with the widths of all.
        threads: Threads within an operator.
        batch: Images per inference.
        precision: Of weights and activations, ``fp32`` or ``int8``.
        time_budget_s: No session begins later; sessions take about a second. The coarse grid is measured regardless.
        tolerance: Relative error of interpolated times that is good enough.
        state: File to which every session is added and from which a profile that was stopped goes on; None: memory.
        progress: Called after every session.
        should_stop: Asked before every session; what is complete until then is returned.

    Raises:
        LatencyTableError: A unit cannot be run; no widths; the state file is of other conditions or malformed.
        KeyboardInterrupt: As it comes; the state file holds all sessions that were finished.

    """
    started = time.perf_counter()
    run = _Run(merged_grids(requests), tolerance, started + time_budget_s, progress, should_stop)
    bench = run.bench(state, threads, batch, precision)
    complete = run.measure(bench)
    return run.result(bench, complete, time.perf_counter() - started)


def profile_units(
    units: Sequence[Unit],
    *,
    threads: int = 1,
    batch: int = 1,
    precision: str = "fp32",
    time_budget_s: float = 600.0,
    state: Path | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[Unit, Timing]:
    """Measure just these units; arguments and errors as of :func:`profile`. What time did not allow is missing."""
    run = _Run((), TOLERANCE, time.perf_counter() + time_budget_s, progress, should_stop)
    bench = run.bench(state, threads, batch, precision)
    run.plan(bench, units)
    bench.measure(units)
    bench.repeat_drifted()
    return {unit: bench.state.timings[unit] for unit in units if unit in bench.state.timings}


class _Run:
    """One profile while it is measured: the lines of every grid that are complete, and what it has cost."""

    def __init__(
        self,
        grids: Sequence[WidthGrid],
        tolerance: float,
        deadline: float,
        progress: Progress | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._grids, self._tolerance, self._deadline = grids, tolerance, deadline
        now = time.perf_counter()
        self._refine_until = now + REFINING * (deadline - now)
        self._progress, self._should_stop = progress, should_stop or (lambda: False)
        self._knots: dict[Unit, tuple[list[int], list[int]]] = {}
        self._errors: dict[Unit, float] = {}
        self._done = self._planned = 0
        self._spent_s = 0.0

    def bench(self, path: Path | None, threads: int, batch: int, precision: str) -> Bench:
        """Return what measures the units under these conditions, with what it measured before."""
        measuring: dict[str, Any] = {"threads": threads, "batch": batch, "precision": precision}
        here = {"machine": platform.machine(), "processor": processor_name(), "runtime": RUNTIME}
        state = ProfileState(path, {**here, **measuring})
        return Bench(state, **measuring, report=self._report, should_stop=self._should_stop, deadline=self._deadline)

    def plan(self, bench: Bench, units: Sequence[Unit]) -> None:
        """Count units that are going to be measured, for the progress."""
        self._planned += len({unit for unit in units if unit not in bench.state.timings})

    def measure(self, bench: Bench) -> bool:
        """Measure everything, coarse things first; tell whether nothing was left out."""
        first = {grid: (coarse(grid.c_in), coarse(grid.c_out)) for grid in self._grids}
        grids = [unit for grid, axes in first.items() for unit in grid.units(*axes)]
        stairs = [unit for grid in self._grids for unit in staircase_units(grid)]
        self.plan(bench, [*grids, *stairs])
        if not bench.measure(grids, whatever_time=True):
            return False
        self._knots = {grid.shape: axes for grid, axes in first.items()}
        if not bench.measure(stairs):
            return False
        self._measure_doubtful(bench)
        refined = self._refine(bench)
        checked = self._check(bench)
        bench.repeat_drifted()
        return self._measure_doubtful(bench) and refined and checked

    def result(self, bench: Bench, complete: bool, seconds: float) -> Profile:
        """Return what was measured; of an unfinished coarse grid nothing."""
        timings: dict[Unit, Timing] = {}
        for grid in self._grids:
            if grid.shape in self._knots:
                units = grid.units(*self._knots[grid.shape])
                timings.update({unit: bench.state.timings[unit] for unit in units})
        shapes = {grid.shape for grid in self._grids}
        checks = {u: t for u, t in bench.state.timings.items() if u not in timings and u.shape in shapes}
        return Profile(timings, checks, dict(self._errors), bench.drift, seconds, complete)

    def _measure_doubtful(self, bench: Bench) -> bool:
        """Measure units again that took longer than wider ones, and once more those that still do."""
        shapes = {grid.shape for grid in self._grids}
        for _ in range(DOUBT_ROUNDS):
            times = {unit: t.median_us for unit, t in bench.state.timings.items() if unit.shape in shapes}
            doubtful = sticking_out(times, self._tolerance)
            if not doubtful:
                break
            if not bench.measure_again(doubtful):
                return False
        return True

    def _refine(self, bench: Bench) -> bool:
        """Measure the lines at which staircases bend, those first that gain most for their time."""
        times = {unit: timing.median_us for unit, timing in bench.state.timings.items()}
        lines: list[tuple[float, WidthGrid, int, int]] = []
        for grid in self._grids:
            typical_us = float(np.median([times[unit] for unit in grid.units(*self._knots[grid.shape])]))
            for axis in (1,) if grid.one_width else (0, 1):
                other = 1 if grid.one_width else len(self._knots[grid.shape][1 - axis])
                widths, stairs = staircase_times(grid, axis, times)
                for width, error in bends(widths, stairs, self._knots[grid.shape][axis], self._tolerance):
                    gain = error * typical_us / (other * (typical_us + _OVERHEAD_US))
                    lines.append((gain, grid, axis, width))
        lines.sort(key=lambda line: -line[0])
        return self._add_lines(bench, [line[1:] for line in lines], self._refine_until)

    def _check(self, bench: Bench) -> bool:
        """Measure random pairs of widths, and more lines where interpolation misses them by too much."""
        draws = random.Random(0)  # noqa: S311 - no secret
        for _ in range(CHECK_ROUNDS):
            pairs = {grid: self._random_pairs(grid, draws) for grid in self._grids if not grid.one_width}
            units = [unit for chosen in pairs.values() for unit in chosen]
            self.plan(bench, units)
            if not bench.measure(units):
                return False
            times = {unit: timing.median_us for unit, timing in bench.state.timings.items()}
            lines: list[tuple[WidthGrid, int, int]] = []
            for grid, chosen in pairs.items():
                if chosen:
                    errors = np.abs(interpolation_errors(grid, self._knots[grid.shape], times, chosen))
                    self._errors[grid.shape] = float(errors.mean())
                    lines += self._missed(grid, chosen, errors)
            if not lines:
                return True
            if not self._add_lines(bench, lines, self._deadline):
                return False
        return True

    def _random_pairs(self, grid: WidthGrid, draws: random.Random) -> list[Unit]:
        """Return units of the grid that interpolation has to price."""
        measured = set(grid.units(*self._knots[grid.shape]))
        left = [unit for unit in grid.units(grid.c_in, grid.c_out) if unit not in measured]
        return draws.sample(left, min(CHECKS, len(left)))

    def _missed(
        self, grid: WidthGrid, units: Sequence[Unit], errors: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
    ) -> list[tuple[WidthGrid, int, int]]:
        """Return the lines through the pair that is missed by most, where the mean is too much."""
        if errors.mean() <= self._tolerance:
            return []
        worst = units[int(errors.argmax())]
        rows, columns = self._knots[grid.shape]
        lines = [(grid, 0, worst.c_in)] if worst.c_in not in rows else []
        return lines + ([(grid, 1, worst.c_out)] if worst.c_out not in columns else [])

    def _add_lines(self, bench: Bench, lines: Sequence[tuple[WidthGrid, int, int]], until: float) -> bool:
        """Measure lines (grid, axis, width) of grids, some sessions at a time; tell whether all were, `until` then."""
        ahead: dict[Unit, tuple[list[int], list[int]]] = {
            shape: (list(rows), list(columns)) for shape, (rows, columns) in self._knots.items()
        }
        waiting: list[Unit] = []
        steps = []
        for grid, axis, width in lines:
            axes = ahead[grid.shape]
            line = grid.units([width], axes[1]) if axis == 0 else grid.units(axes[0], [width])
            if width in axes[axis] or (not grid.one_width and len(axes[0]) * len(axes[1]) >= MOST_POINTS):
                continue
            axes[axis].append(width)
            steps.append((grid.shape, axis, width, line))
            waiting += line
        self.plan(bench, waiting)
        while steps:
            if time.perf_counter() > until:
                self._planned = self._done
                return False
            chunk: list[Unit] = []
            taken: list[tuple[Unit, int, int, list[Unit]]] = []
            while steps and (not taken or len(chunk) < 180):
                taken.append(steps.pop(0))
                chunk += taken[-1][3]
            if not bench.measure(chunk):
                return False
            for shape, axis, width, _ in taken:
                self._knots[shape][axis].append(width)
                self._knots[shape][axis].sort()
        return True

    def _report(self, units: int, seconds: float) -> None:
        """Take note of one session, and tell whoever wants to know."""
        self._done += units
        self._spent_s += seconds
        left = max(0, self._planned - self._done)
        eta_s = min(left * self._spent_s / self._done, max(0.0, self._deadline - time.perf_counter()))
        if self._progress is not None:
            self._progress(self._done, max(self._planned, self._done), eta_s)
