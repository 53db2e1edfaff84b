"""Small jobs for a service that is open, and the ends of their processes."""

import io
import os
import time
import uuid

from autoprune.service.engine.service import Service
from autoprune.service.rest.uploads import add_model
from autoprune.service.specs.job_spec import JobSpec
from tests.service.live_service import tiny_onnx

QUICK = {"dataset": "digits", "budget": "macs=50%", "policies": ["uniform"], "evaluations": 3, "fit_images": 200,
         "search_images": 100, "report_images": 100}  # fmt: skip

ENDLESS = {**QUICK, "evaluations": 1, "finetune_epochs": 10_000, "fit_images": 1500}


def add_job(service: Service, **spec: object) -> str:
    """Queue a job with a small model; return its id."""
    row, _ = add_model(service.settings, service.records, service.store, io.BytesIO(tiny_onnx()), "tiny.onnx")
    full = JobSpec.model_validate({"model": row.id, **spec}).model_dump(mode="json")
    job = service.records.add_job(f"job_{uuid.uuid4().hex[:24]}", full)
    service.wake()
    return job.id


def group_is_gone(pid: int, within_s: float) -> bool:
    """Tell whether no process of a group is left, waiting at most so long."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False
