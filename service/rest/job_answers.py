"""What the routes of jobs and of comparisons answer alike: ends of jobs, and the files that they left."""

from typing import Any

from starlette.responses import FileResponse

from autoprune.service.engine.service import Service
from autoprune.service.rest.dependencies import documented
from autoprune.service.rest.views import ArtifactView
from autoprune.service.storage.records import JobStateError, NotFoundError
from autoprune.service.storage.tables import JobKind, JobRow, JobState

#: How a route that answers with a file is described.
FILE_RESPONSE: dict[str, Any] = {
    "response_class": FileResponse,
    "responses": {
        200: {"description": "The file", "content": {"application/octet-stream": {}}},
        **documented(404, 409),
    },
}


def cancelled(service: Service, job_id: str, kind: JobKind) -> JobRow:
    """Ask for the end of a job of this kind.

    Raises:
        NotFoundError: No such id.
        JobStateError: It has succeeded or failed already.

    """
    service.records.job(job_id, kind)
    row = service.records.request_cancel(job_id)
    service.wake()
    return row


def artifacts_of(service: Service, job_id: str, kind: JobKind) -> list[ArtifactView]:
    """Return the files that a job of this kind left; none until it has succeeded.

    Raises:
        NotFoundError: No such id.

    """
    service.records.job(job_id, kind)
    return [ArtifactView.of(row) for row in service.records.artifacts(job_id)]


def artifact_file(service: Service, job_id: str, name: str, kind: JobKind) -> FileResponse:
    """Return one file that a job of this kind left.

    Raises:
        NotFoundError: No such id, or no such file.
        JobStateError: It has not succeeded.

    """
    row = service.records.job(job_id, kind)
    if row.state != JobState.SUCCEEDED:
        raise JobStateError(f"job {job_id} is {row.state}; it has artifacts once it has succeeded")
    artifact = next((known for known in service.records.artifacts(job_id) if known.name == name), None)
    path = None if artifact is None else service.settings.artifact_folder(job_id) / artifact.name
    if artifact is None or path is None or not path.is_file():
        where = "comparisons" if kind is JobKind.COMPARISON else "jobs"
        raise NotFoundError(
            f"job {job_id} has no artifact {name[:200]!r}; GET /v1/{where}/{job_id}/artifacts lists them"
        )
    headers = {"ETag": f'"{artifact.sha256}"', "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=artifact.media_type, headers=headers)
