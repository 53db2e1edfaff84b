"""The certificate of a job's finalist."""

import json

from autoprune.certificate import Certificate, versions
from autoprune.costs.budget import Budget
from autoprune.files import file_sha256, write_whole
from autoprune.service.pipeline.finalist import FILES, Finalist, Timed
from autoprune.service.pipeline.inputs import Inputs
from autoprune.service.pipeline.latency_check import latency_limit, share_of_limit
from autoprune.service.specs.job_spec import JobSpec


def certified(finalist: Finalist, spec: JobSpec, inputs: Inputs, timed: Timed) -> dict[str, object]:
    """Write a finalist's certificate, and return it."""
    certificate = _certificate(finalist, spec, inputs, timed)
    write_whole(finalist.folder / FILES["certificate"], json.dumps(certificate, indent=1).encode())
    return certificate


def _certificate(finalist: Finalist, spec: JobSpec, inputs: Inputs, timed: Timed) -> dict[str, object]:
    """Put together what was measured on the exported file."""
    problem, splits = inputs.problem, inputs.splits
    return Certificate(
        budget=spec.budget,
        limits=dict(problem.limits),
        cost=finalist.cost,
        cost_unpruned=problem.cost(problem.costs.full()),
        file_bytes=finalist.onnx.stat().st_size,
        onnx_sha256=file_sha256(finalist.onnx),
        plan_sha256=file_sha256(finalist.folder / FILES["plan"]),
        model_sha256=problem.model_sha256,
        parity_error=finalist.parity_error,
        parity_images=finalist.parity_images,
        masked_error=finalist.recovered.masked_error,
        latency={**_latency_budget(spec, inputs, timed), **timed.to_dict()},
        splits={"fit": splits.fit.sha256, "search": splits.search.sha256, "report": splits.report.sha256},
        seed=spec.seed,
        versions=versions(),
        int8=None if finalist.int8 is None else finalist.int8.to_dict(),
    ).to_dict()


def _latency_budget(spec: JobSpec, inputs: Inputs, timed: Timed) -> dict[str, object]:
    """Say which table latency was predicted from, and how the measured latency stands to its budget."""
    table, limit = inputs.latencies, latency_limit(Budget.parse(spec.budget))
    if table is None:
        return {}
    facts = {"device": table.conditions.device, "table": table.sha256, "measured_on_device": timed.on_device}
    if limit is None or not timed.on_device:
        return facts
    return {**facts, "share_of_limit": share_of_limit(limit, timed.unpruned, timed.pruned)}
