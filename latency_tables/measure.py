"""How long whole networks take in onnxruntime: the judge of tables, because times of layers do not add up exactly.

Nothing here imports torch: a device needs onnxruntime only.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import ModelError
from autoprune.latency_tables.session import (
    RUNTIME,
    RUNTIME_ERRORS,
    first_line,
    inference_clock,
    open_session,
    processor_name,
)

#: Rounds that are timed even when the time budget is used up: the least a median means something for.
LEAST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one inference of one ONNX file, as :func:`measure_side_by_side` takes it.

    Attributes:
        median_ms: Median over all repeats; means something only where `p90_ms` is close to `p10_ms`.
        p10_ms: 10th percentile: close to what a quiet machine does, and the figure to compare on a busy one.
        p90_ms: 90th percentile; well above `p10_ms` where other work got in the way.
        repeats: Number of timed inferences.
        batch: Images per inference.
        threads: Threads of onnxruntime.
        runtime: Name and version of the runtime.
        device: Processor it ran on.

    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    batch: int
    threads: int
    runtime: str
    device: str

    def to_dict(self) -> dict[str, object]:
        """Return the measurement as JSON-ready data."""
        return asdict(self)


def measure_onnx(
    path: Path,
    *,
    input_shape: Sequence[int],
    batch: int = 1,
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
    time_budget_s: float = 20.0,
) -> Latency:
    """Time one ONNX file; arguments and errors as of :func:`measure_side_by_side`."""
    (latency,) = measure_side_by_side(
        [path],
        input_shape=input_shape,
        batch=batch,
        threads=threads,
        repeats=repeats,
        warmup=warmup,
        time_budget_s=time_budget_s,
    )
    return latency


def measure_side_by_side(
    paths: Sequence[Path],
    *,
    input_shape: Sequence[int],
    batch: int = 1,
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
    time_budget_s: float = 20.0,
) -> list[Latency]:
    """Time several ONNX files in turn (A B A B ...), so that slow drift of the machine hits all alike.

    Before every timed inference the same file is run once untimed: where the weights of all files together do not fit
    the processor's cache, each would find it cold (ResNet-56 among 22 files: 12% slower than its table predicts).

    With one thread the clock is the processor time of the calling thread, where the system counts it finely: on a quiet
    machine the same as the time on the wall, on a busy one without the time that other work had the processor for (with
    nearly three tasks per core: a median of 15 ms instead of 31, of 13.5 on a quiet machine). What other work does to
    caches and clock rates remains. With several threads it is the time on the wall; then take ratios of `p10_ms` unless
    the machine is known to be quiet: medians of one file measured twice side by side differed up to 7 times.

    Args:
        paths: ONNX files with one float32 input.
        input_shape: Shape of one image, ``(C, H, W)``.
        batch: Images per inference.
        threads: Threads within an operator; operators run one after the other. Above 1, threads of one file that
            still wait for work may disturb the next file: check against :func:`measure_onnx` on a quiet machine.
        repeats: Timed inferences of each file, at most.
        warmup: Further untimed inferences of each file at the start, at most.
        time_budget_s: For timed inferences of all files together; warming up may take a quarter of it more. No round
            begins after it, except that one is always run untimed and five are always timed.

    Returns:
        One measurement per file, in the order of `paths`.

    Raises:
        ModelError: onnxruntime cannot load a file, or not run it on images of this shape.

    """
    assert batch >= 1
    assert threads >= 1
    assert repeats >= 1
    images = np.random.default_rng(0).standard_normal((batch, *input_shape)).astype(np.float32)
    sessions = [_Session(path, threads, images) for path in paths]
    _time_rounds(sessions, most=max(1, warmup), least=1, time_budget_s=time_budget_s / 4)
    times_ms = _time_rounds(sessions, most=repeats, least=min(repeats, LEAST_ROUNDS), time_budget_s=time_budget_s)
    device = processor_name()
    latencies = []
    for column in times_ms.T:
        p10, median, p90 = (float(value) for value in np.percentile(column, [10, 50, 90]))
        latencies.append(Latency(median, p10, p90, len(column), batch, threads, RUNTIME, device))
    return latencies


class _Session:
    """One ONNX file, loaded, with images to run it on."""

    def __init__(self, path: Path, threads: int, images: NDArray[np.float32]) -> None:
        self._path = path
        try:
            self._session = open_session(path, threads=threads)
        except RUNTIME_ERRORS as error:
            raise ModelError(f"{path}: onnxruntime cannot load this file: {first_line(error)}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(entry.name for entry in inputs)
            raise ModelError(f"{path}: expected a network with one input, found {len(inputs)}: {names}")
        self._feed = {inputs[0].name: images}
        self._clock = inference_clock(threads)

    def time_ms(self) -> float:
        """Run twice, the first time to have weights and code in the cache; return the time of the second in ms."""
        try:
            self._session.run(None, self._feed)
            started = self._clock()
            self._session.run(None, self._feed)
            return (self._clock() - started) * 1e3
        except RUNTIME_ERRORS as error:
            shapes = ", ".join(f"float32 {array.shape}" for array in self._feed.values())
            raise ModelError(f"{self._path}: does not run on images {shapes}: {first_line(error)}") from error


def _time_rounds(sessions: Sequence[_Session], *, most: int, least: int, time_budget_s: float) -> NDArray[np.float64]:
    """Run all sessions in turn, round by round; return ms, ``(rounds, sessions)``."""
    deadline = time.perf_counter() + time_budget_s
    rounds: list[list[float]] = []
    while len(rounds) < most and (len(rounds) < least or time.perf_counter() < deadline):
        rounds.append([session.time_ms() for session in sessions])
    return np.array(rounds, dtype=np.float64)
