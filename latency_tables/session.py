"""onnxruntime sessions as all measurements use them, and what they ran on."""

import platform
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort

#: What onnxruntime raises for a file or an input it cannot use; they share no base class.
RUNTIME_ERRORS = (
    ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.InvalidProtobuf, ort.NoModel, ort.NoSuchFile,
    ort.NotImplemented, ort.RuntimeException,
)  # fmt: skip

#: A clock that counts in steps of at most this many seconds can time a network.
_FINE_S = 1e-6

#: Name and version of the runtime.
RUNTIME = f"onnxruntime {onnxruntime.__version__}"


def open_session(
    model: Path | bytes, *, threads: int, profile_prefix: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a model with all graph optimisations, on the processor.

    Args:
        model: Path or content of an ONNX file.
        threads: Threads within an operator; operators run one after the other.
        profile_prefix: Beginning of the path of a profile of all nodes, which ``end_profiling`` completes and names;
            None for none.

    Raises:
        Exception: One of :data:`RUNTIME_ERRORS` for a file that cannot be used.

    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def inference_clock(threads: int) -> Callable[[], float]:
    """Return the clock, in seconds, that inferences on so many threads are timed with.

    For one thread the processor time of the calling thread, where the system counts it finely: what other work has the
    processor for is not in it. Otherwise the time on the wall.
    """
    if threads == 1 and hasattr(time, "thread_time") and time.get_clock_info("thread_time").resolution <= _FINE_S:
        return time.thread_time
    return time.perf_counter


def processor_name() -> str:
    """Return the processor's model name as the operating system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def first_line(error: Exception) -> str:
    """Return the first line of a message."""
    return (str(error).splitlines() or ["no reason given"])[0]
