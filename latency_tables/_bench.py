"""Measures any list of units: in sessions of bounded size, each checked against a reference unit."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from autoprune.latency_tables._kernel_times import kernel_times_us, profiling_overhead_us, quantiles_us
from autoprune.latency_tables._profile_state import ProfileState
from autoprune.latency_tables.table import Timing
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.unit_onnx import working_bytes

#: Runs in every session; its time, not this, ends sessions of slow units.
LEAST_RUNS, MOST_RUNS, SESSION_S = 9, 30, 0.6

#: Weights and activations of one session, bytes in float32. Fewer would stay in caches that a network of some megabytes
#: does not fit into, more would push out what such a network keeps. In int8 a session holds as many units, a quarter of
#: the bytes, and so does a network.
LEAST_BYTES, MOST_BYTES = 6 << 20, 24 << 20
MOST_UNITS, MOST_COPIES = 60, 8

#: A session whose reference is further than this from the median of all is measured again, this often at most.
MAX_DRIFT, MAX_RETRIES = 0.10, 2

#: Share of the time for measuring sessions again, at most: on a machine that is never quiet it leads nowhere.
MAX_REPEATED = 0.3

#: Part of every session, in several places: a convolution of about a million multiply-accumulates per channel.
REFERENCE = Unit("conv", (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1, (28, 28), 32, 32, "relu")


class Bench:
    """Times units and remembers what it has timed.

    Attributes:
        state: All timings so far.
        retries: Sessions that were measured again.

    Raises:
        LatencyTableError: A unit cannot be run.

    """

    def __init__(
        self,
        state: ProfileState,
        *,
        threads: int,
        batch: int,
        precision: str,
        report: Callable[[int, float], None],
        should_stop: Callable[[], bool],
        deadline: float,
    ) -> None:
        self.state = state
        self.retries = 0
        self._threads, self._batch, self._precision = threads, batch, precision
        self._report, self._should_stop, self._deadline = report, should_stop, deadline
        self._sessions: list[tuple[float, list[Unit]]] = []
        self._spent_s = self._repeated_s = 0.0

    @property
    def out_of_time(self) -> bool:
        """Whether no further session may begin."""
        return self._should_stop() or time.perf_counter() > self._deadline

    @property
    def drift(self) -> float:
        """Largest relative difference of a kept session's reference from the median of all sessions."""
        middle = median(self.state.references_us) if self.state.references_us else 1.0
        return max((abs(reference / middle - 1) for reference, _ in self._sessions), default=0.0)

    def measure(self, units: Sequence[Unit], *, whatever_time: bool = False) -> bool:
        """Time those of `units` that have not been; tell whether all have been when it returns.

        Units are dealt out to sessions at random, so that what drifts between sessions is not taken for a staircase.
        Ends early when out of time; with `whatever_time`, only when asked to stop.
        """
        missing = [unit for unit in dict.fromkeys(units) if unit not in self.state.timings]
        random.Random(len(missing)).shuffle(missing)  # noqa: S311 - no secret
        for session in _sessions(missing):
            if self._should_stop() or (self.out_of_time and not whatever_time):
                return False
            started = time.perf_counter()
            self._sessions.append((self._checked(session), session))
            self._report(len(session), time.perf_counter() - started)
        return True

    def measure_again(self, units: Sequence[Unit]) -> bool:
        """Time units once more and keep the shorter median; tell whether there was time for all."""
        for session in _sessions(list(dict.fromkeys(units))):
            if self.out_of_time:
                return False
            reference, timings = self._time(session, repeated=True)
            known = self.state.timings
            self.state.add({u: t for u, t in timings.items() if t.median_us < known[u].median_us}, reference)
        return True

    def repeat_drifted(self) -> None:
        """Time sessions again that turned out to be far from the others, once each, while there is time."""
        middle = median(self.state.references_us) if self.state.references_us else 1.0
        for index, (reference, units) in enumerate(self._sessions):
            if abs(reference / middle - 1) > MAX_DRIFT and self._may_repeat():
                again, timings = self._time(units, repeated=True)
                if abs(again / middle - 1) < abs(reference / middle - 1):
                    self.state.add(timings, again)
                    self._sessions[index] = (again, units)

    def _may_repeat(self) -> bool:
        """Tell whether there is time for measuring again."""
        return not self.out_of_time and self._repeated_s <= MAX_REPEATED * self._spent_s

    def _checked(self, units: list[Unit]) -> float:
        """Time one session until its reference agrees with the others'; keep the one that agrees best."""
        best: tuple[float, float, dict[Unit, Timing]] | None = None
        for attempt in range(1 + MAX_RETRIES):
            if attempt and not self._may_repeat():
                break
            reference, timings = self._time(units, repeated=attempt > 0)
            drift = abs(reference / median([*self.state.references_us, reference]) - 1)
            if best is None or drift < best[0]:
                best = (drift, reference, timings)
            if drift <= MAX_DRIFT:
                break
        assert best is not None
        self.state.add(best[2], best[1])
        return best[1]

    def _time(self, units: list[Unit], *, repeated: bool) -> tuple[float, dict[Unit, Timing]]:
        """Time one session; return the reference's microseconds and all timings."""
        started = time.perf_counter()
        size = sum(map(working_bytes, units))
        copies = min(MOST_COPIES, max(1, -(-LEAST_BYTES // size), 1), max(1, MOST_UNITS // len(units)))
        if self.state.overhead_us is None:
            self.state.set_overhead(profiling_overhead_us(threads=self._threads, precision=self._precision))
        third = -(-len(units) // 3)
        row: list[Unit] = []
        for start in range(0, len(units), third):
            row += [REFERENCE, *units[start : start + third]]
        row = row * copies
        times = kernel_times_us(
            row,
            threads=self._threads,
            batch=self._batch,
            seconds=SESSION_S,
            least=LEAST_RUNS,
            most=MOST_RUNS,
            overhead_us=self.state.overhead_us or 0.0,
            precision=self._precision,
        )
        timings = {}
        for unit in dict.fromkeys([REFERENCE, *units]):
            found = times[:, [index for index, each in enumerate(row) if each == unit]].ravel()
            p10, middle, p90 = quantiles_us(found, (0.1, 0.5, 0.9))
            timings[unit] = Timing(middle, p10, p90, len(found))
        reference = timings[REFERENCE].median_us
        if REFERENCE not in units:
            del timings[REFERENCE]
        spent_s = time.perf_counter() - started
        self._spent_s += spent_s
        self._repeated_s += spent_s if repeated else 0.0
        self.retries += repeated
        return reference, timings


def _sessions(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Cut a list of units into sessions of bounded size."""
    session: list[Unit] = []
    size = 0
    for unit in units:
        needed = working_bytes(unit)
        if session and (size + needed > MOST_BYTES or len(session) == MOST_UNITS):
            yield session
            session, size = [], 0
        session.append(unit)
        size += needed
    if session:
        yield session
