"""Jobs and their artifacts over REST."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.responses import FileResponse

from autoprune.service.admission import check_job
from autoprune.service.dependencies import TheService, documented
from autoprune.service.records import JobStateError, NotFoundError
from autoprune.service.spec import JobSpec
from autoprune.service.tables import JobState
from autoprune.service.views import ArtifactView, JobView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


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
    return [JobView.of(row) for row in service.records.jobs(state=state, limit=limit)]


@router.get("/{job_id}", summary="Show a job", responses=documented(404))
def get_job(service: TheService, job_id: str) -> JobView:
    """Return one job: its state, its progress, and its error if it failed."""
    return JobView.of(service.records.job(job_id))


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=documented(404, 409))
def post_cancel(service: TheService, job_id: str) -> JobView:
    """Cancel a queued job at once, and end a running one within seconds. Cancelling twice is the same as once."""
    row = service.records.request_cancel(job_id)
    service.wake()
    return JobView.of(row)


@router.get("/{job_id}/artifacts", summary="List a job's artifacts", responses=documented(404))
def get_artifacts(service: TheService, job_id: str) -> list[ArtifactView]:
    """Return the files that a job left; none until it has succeeded."""
    service.records.job(job_id)
    return [ArtifactView.of(row) for row in service.records.artifacts(job_id)]


@router.get(
    "/{job_id}/artifacts/{name:path}",
    summary="Download an artifact",
    response_class=FileResponse,
    responses={200: {"description": "The file", "content": {"application/octet-stream": {}}}, **documented(404, 409)},
)
def get_artifact(service: TheService, job_id: str, name: str) -> FileResponse:
    """Return one file of a job that succeeded, by its name in the list."""
    row = service.records.job(job_id)
    if row.state != JobState.SUCCEEDED:
        raise JobStateError(f"job {job_id} is {row.state}; it has artifacts once it has succeeded")
    artifact = next((known for known in service.records.artifacts(job_id) if known.name == name), None)
    path = None if artifact is None else service.settings.artifact_folder(job_id) / artifact.name
    if artifact is None or path is None or not path.is_file():
        raise NotFoundError(f"job {job_id} has no artifact {name[:200]!r}; GET /v1/jobs/{job_id}/artifacts lists them")
    headers = {"ETag": f'"{artifact.sha256}"', "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=artifact.media_type, headers=headers)
