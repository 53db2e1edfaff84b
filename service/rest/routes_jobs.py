"""Jobs and their artifacts over REST."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.responses import FileResponse

from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.pipeline.what_if import WhatIfView, what_if
from autoprune.service.rest.admission import check_job
from autoprune.service.rest.dependencies import TheService, documented
from autoprune.service.rest.job_answers import FILE_RESPONSE, artifact_file, artifacts_of, cancelled
from autoprune.service.rest.views import ArtifactView, JobView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.storage.records import JobStateError
from autoprune.service.storage.tables import JobKind, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KIND = JobKind.SEARCH


@router.post("", status_code=201, summary="Submit a job", responses=documented(413, 422))
def post_job(service: TheService, response: Response, spec: JobSpec) -> JobView:
    """Queue a job. What cannot succeed, such as a budget below the smallest reachable cost, is refused here."""
    check_job(spec, service.records, service.store, service.settings.home)
    row = service.records.add_job(f"job_{uuid.uuid4().hex[:24]}", spec.model_dump(mode="json"))
    service.wake()
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    return JobView.of(row)


@router.get("", summary="List jobs", responses=documented(422))
def get_jobs(
    service: TheService, state: JobState | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[JobView]:
    """Return the newest jobs, newest first, of one `state` or of all."""
    return [JobView.of(row) for row in service.records.jobs(kind=_KIND, state=state, limit=limit)]


@router.get("/{job_id}", summary="Show a job", responses=documented(404))
def get_job(service: TheService, job_id: str) -> JobView:
    """Return one job: its state, its progress, and its error if it failed."""
    return JobView.of(service.records.job(job_id, _KIND))


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=documented(404, 409))
def post_cancel(service: TheService, job_id: str) -> JobView:
    """Cancel a queued job at once, and end a running one within seconds. Cancelling twice is the same as once."""
    return JobView.of(cancelled(service, job_id, _KIND))


@router.get("/{job_id}/artifacts", summary="List a job's artifacts", responses=documented(404))
def get_artifacts(service: TheService, job_id: str) -> list[ArtifactView]:
    """Return the files that a job left; none until it has succeeded."""
    return artifacts_of(service, job_id, _KIND)


@router.get("/{job_id}/what-if", summary="Ask what other budgets would cost", responses=documented(404, 409, 422))
def get_what_if(
    service: TheService,
    job_id: str,
    budget: Annotated[
        list[str],
        Query(
            min_length=1,
            max_length=64,
            description="As in a job; repeat it for a curve. A percent sign is written %25 in an address.",
            examples=["macs=40%"],
        ),
    ],
) -> WhatIfView:
    """Predict the score within each budget from what the job has evaluated: no network is run. Needs reconstruction."""
    row = service.records.job(job_id, _KIND)
    path = service.settings.artifact_folder(job_id) / EVIDENCE
    if not path.is_file():
        raise JobStateError(f"job {job_id} is {row.state}; it can answer once all its policies have searched")
    return what_if(path, budget)


@router.get("/{job_id}/artifacts/{name:path}", summary="Download an artifact", **FILE_RESPONSE)
def get_artifact(service: TheService, job_id: str, name: str) -> FileResponse:
    """Return one file of a job that succeeded, by its name in the list."""
    return artifact_file(service, job_id, name, _KIND)
