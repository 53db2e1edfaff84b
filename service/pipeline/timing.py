"""The files that a job ends with, timed beside the unpruned network."""

from collections.abc import Sequence

from autoprune.latency_tables.measure import measure_side_by_side
from autoprune.service.pipeline.finalist import Finalist, Timed
from autoprune.service.pipeline.job import Job
from autoprune.service.pipeline.latency_check import LatencyCheck


def timed_finalists(job: Job, finalists: Sequence[Finalist], check: LatencyCheck | None) -> list[Timed]:
    """Time the files of all finalists in turn; return their latencies, in the same order.

    Args:
        job: Names the device, and has the file of the unpruned network.
        finalists: Their deployed files are timed; the float32 ones too where those are in int8.
        check: What the files are held to; None where latency is not limited, or the device is out of reach.

    Raises:
        ExportError: A file breaks the limit of `check`.

    """
    table = job.inputs.latencies
    floats = [finalist.onnx for finalist in finalists if finalist.int8 is not None]
    base, *latencies = (job.timer or measure_side_by_side)(
        [job.deployed_unpruned, *(finalist.deployed for finalist in finalists), *floats],
        input_shape=job.inputs.problem.network.input_shape,
        threads=1 if table is None else table.conditions.threads,
    )
    found = []
    for index, finalist in enumerate(finalists):
        pair = base, latencies[index]
        if check is not None:
            pair = check.confirmed(finalist.deployed, *pair)
        fp32 = latencies[len(finalists) + index] if floats else None
        found.append(Timed(*pair, on_device=job.is_timed_on_device, pruned_fp32=fp32))
    return found
