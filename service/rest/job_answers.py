"""What routes of jobs, comparisons and studies, over REST and of the page, answer alike: from start to files."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import Header
from starlette.responses import FileResponse, Response

from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.engine.service import Service
from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.pipeline.what_if import WhatIfView, what_if
from autoprune.service.rest.admission import check_job, check_study_job
from autoprune.service.rest.dependencies import documented
from autoprune.service.rest.upload_readers import UploadReaders
from autoprune.service.rest.views import ArtifactView, JobView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.errors import JobStateError, NotFoundError
from autoprune.service.storage.quota import Quota
from autoprune.service.storage.states import JobKind, JobState
from autoprune.service.storage.submissions import KEPT_FOR, MAX_KEY_LENGTH, Submissions
from autoprune.service.storage.tables import JobRow

#: A header that makes a request safe to send again.
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=MAX_KEY_LENGTH,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your own, such as a UUID: sent again with the same settings within "
        f"{KEPT_FOR // timedelta(hours=1)} hours, the answer is the same job, with status 200.",
    ),
]

#: ETags of what the client has already.
IfNoneMatch = Annotated[str | None, Header(description="ETags that you have; a file with one of them is not sent.")]

#: How ids begin.
_PREFIXES = {JobKind.SEARCH: "job", JobKind.COMPARISON: "cmp", JobKind.STUDY: "std"}

#: Where jobs of a kind are.
ADDRESSES = {JobKind.SEARCH: "jobs", JobKind.COMPARISON: "comparisons", JobKind.STUDY: "studies"}

#: How a route that answers with a file is described.
FILE_RESPONSE: dict[str, Any] = {
    "response_class": FileResponse,
    "responses": {
        200: {"description": "The file", "content": {"application/octet-stream": {}}},
        304: {"description": "The file is the one that `If-None-Match` names"},
        **documented(404, 409),
    },
}


def submitted(service: Service, quota: Quota, spec: JobSpec | StudySpec, key: str | None = None) -> tuple[JobRow, bool]:
    """Queue a job, a comparison or a study, as `spec` says, for a `quota`'s caller; return it, and whether it is new.

    A `key` that has queued the same job before gives that one, which is not checked again. The check reads the whole
    model: call it through :class:`UploadReaders`.

    Raises:
        IdempotencyError: The key has queued another job.
        QuotaError: The caller has as many queued as it may.
        AutopruneError: It could not succeed: see :func:`autoprune.service.rest.admission.check_job`.

    """
    kind = _kind_of(spec)
    submissions, document = Submissions(service.records, quota), spec.model_dump(mode="json")
    row, is_new = submissions.known(document, kind, key), False
    if row is None:
        if isinstance(spec, StudySpec):
            check_study_job(spec, service.records, service.store)
        else:
            check_job(spec, service.records, service.store, service.settings.home)
        row, is_new = submissions.add(f"{_PREFIXES[kind]}_{uuid.uuid4().hex[:24]}", document, kind, key)
        service.wake()
    return row, is_new


async def accepted(
    service: Service,
    quota: Quota,
    readers: UploadReaders,
    spec: JobSpec | StudySpec,
    key: str | None,
    response: Response,
) -> JobRow:
    """Do as :func:`submitted` says when it is its turn among those who read models; say in `response` where the job is.

    Errors as of :func:`submitted`.
    """
    row, is_new = await readers.run(partial(submitted, service, quota, spec, key))
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/{ADDRESSES[JobKind(row.kind)]}/{row.id}"
    return row


def submission_responses(view: type[JobView]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of what else a submission is answered with."""
    return {200: {"model": view, "description": "Queued before, by the same key"}, **documented(413, 422)}


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


def budget_answers(service: Service, job_id: str, budgets: Sequence[str]) -> WhatIfView:
    """Say what other budgets would cost, from what a job has evaluated.

    Raises:
        NotFoundError: No such id.
        JobStateError: It has not searched with all its policies.
        AutopruneError: A budget that cannot be answered: see :func:`autoprune.service.pipeline.what_if.what_if`.

    """
    row = service.records.job(job_id, JobKind.SEARCH)
    path = service.settings.artifact_folder(job_id) / EVIDENCE
    if not path.is_file():
        raise JobStateError(f"job {job_id} is {row.state}; it can answer once all its policies have searched")
    return what_if(path, budgets)


def artifacts_of(service: Service, job_id: str, kind: JobKind) -> list[ArtifactView]:
    """Return the files that a job of this kind left; none until it has succeeded.

    Raises:
        NotFoundError: No such id.

    """
    service.records.job(job_id, kind)
    return [ArtifactView.of(row) for row in service.records.artifacts(job_id)]


def artifact_file(service: Service, job_id: str, name: str, kind: JobKind, if_none_match: str | None) -> Response:
    """Return one file that a job of this kind left, or 304 where `if_none_match` names the ETag that it has.

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
        raise NotFoundError(
            f"job {job_id} has no artifact {name[:200]!r}; GET /v1/{ADDRESSES[kind]}/{job_id}/artifacts lists them"
        )
    etag = f'"{artifact.sha256}"'
    if if_none_match is not None and _names(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    headers = {"ETag": etag, "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=artifact.media_type, headers=headers)


def _names(if_none_match: str, etag: str) -> bool:
    """Tell whether the header ``If-None-Match`` names `etag`, weakly as it may, among others or as any."""
    names = [name.strip().removeprefix("W/") for name in if_none_match.split(",")]
    return etag in names or names == ["*"]


def _kind_of(spec: JobSpec | StudySpec) -> JobKind:
    """Return the kind of job that a spec is of."""
    if isinstance(spec, StudySpec):
        return JobKind.STUDY
    return JobKind.COMPARISON if isinstance(spec, ComparisonSpec) else JobKind.SEARCH
