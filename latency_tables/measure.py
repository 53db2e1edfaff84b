"""How long whole networks take in onnxruntime; the seed of per-layer tables."""

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one inference of one ONNX file, batch 1 unless said otherwise.

    Attributes:
        median_ms: Median over all repeats.
        p10_ms: 10th percentile: what a quiet machine does.
        p90_ms: 90th percentile: how noisy this one was.
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


def measure_side_by_side(
    files: Sequence[Path],
    *,
    input_shape: Sequence[int],
    batch: int = 1,
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
    time_budget_s: float = 20.0,
) -> list[Latency]:
    """Time several ONNX files in turn (A B A B ...), so that drift of the machine hits all alike; compare by ratio.

    Args:
        files: ONNX files with one input.
        input_shape: Shape of one image, ``(C, H, W)``.
        batch: Images per inference.
        threads: Threads of onnxruntime.
        repeats: Timed inferences of each file at most.
        warmup: Untimed inferences of each file first.
        time_budget_s: No further round is started after this long; at least five rounds are.

    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    sessions = [onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]) for file in files]
    image = np.random.default_rng(0).standard_normal((batch, *input_shape)).astype(np.float32)
    feeds = [{session.get_inputs()[0].name: image} for session in sessions]
    for session, feed in zip(sessions, feeds, strict=True):
        for _ in range(warmup):
            session.run(None, feed)
    times_ms: list[list[float]] = []
    deadline = time.perf_counter() + time_budget_s
    while len(times_ms) < repeats and (len(times_ms) < 5 or time.perf_counter() < deadline):
        row = []
        for session, feed in zip(sessions, feeds, strict=True):
            started = time.perf_counter()
            session.run(None, feed)
            row.append((time.perf_counter() - started) * 1e3)
        times_ms.append(row)
    p10, median, p90 = np.percentile(np.array(times_ms), [10, 50, 90], axis=0)
    runtime, device = f"onnxruntime {onnxruntime.__version__}", processor_name()
    return [
        Latency(float(median[i]), float(p10[i]), float(p90[i]), len(times_ms), batch, threads, runtime, device)
        for i in range(len(files))
    ]


def processor_name() -> str:
    """Return the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
