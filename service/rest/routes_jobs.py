"""Jobs and their artifacts over REST."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from autoprune.service.pipeline.what_if import WhatIfView
from autoprune.service.rest.dependencies import TheQuota, TheService, documented
from autoprune.service.rest.event_stream import Position, TheWatch, events_of
from autoprune.service.rest.job_answers import (
    FILE_RESPONSE,
    IdempotencyKey,
    IfNoneMatch,
    artifact_file,
    artifacts_of,
    budget_answers,
    cancelled,
    describe_submission,
    submitted,
)
from autoprune.service.rest.pages import PAGED, ThePage
from autoprune.service.rest.views import ArtifactView, JobView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.storage.tables import JobKind, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_KIND = JobKind.SEARCH


def _known(service: TheService, job_id: str) -> None:
    """Refuse unknown ids before a stream begins."""
    service.records.job(job_id, _KIND)


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    responses={200: {"model": JobView, "description": "Queued before, by the same key"}, **documented(413, 422)},
)
def post_job(
    service: TheService, quota: TheQuota, response: Response, spec: JobSpec, idempotency_key: IdempotencyKey = None
) -> JobView:
    """Queue a job. What cannot succeed, such as a budget below the smallest reachable cost, is refused here."""
    row, is_new = submitted(service, quota, spec, idempotency_key)
    describe_submission(response, row, is_new=is_new)
    return JobView.of(row)


@router.get("", summary="List jobs", responses=PAGED)
def get_jobs(service: TheService, page: ThePage, state: JobState | None = None) -> list[JobView]:
    """Return the newest jobs, newest first, of one `state` or of all."""
    rows = service.records.jobs(kind=_KIND, state=state, limit=page.needed, after=page.after)
    return [JobView.of(row) for row in page.of(rows, lambda row: row.id)]


@router.get("/{job_id}", summary="Show a job", responses=documented(404))
def get_job(service: TheService, job_id: str) -> JobView:
    """Return one job: its state, its progress, and its error if it failed."""
    return JobView.of(service.records.job(job_id, _KIND))


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=documented(404, 409))
def post_cancel(service: TheService, job_id: str) -> JobView:
    """Cancel a queued job at once, and end a running one within seconds. Cancelling twice is the same as once."""
    return JobView.of(cancelled(service, job_id, _KIND))


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=documented(404, 422),
    dependencies=[Depends(_known)],
)
async def get_events(watch: TheWatch, job_id: str, position: Position) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens to a job until it has ended: `state` events of every change, `progress` while it runs.

    `state` events have ids. A stream that broke goes on behind the one named by `Last-Event-ID`, nothing left out and
    nothing told twice; `progress` is then told as it is. A service that ends ends its streams, too.
    """
    async for event in events_of(watch, job_id, position):
        yield event


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
    return budget_answers(service, job_id, budget)


@router.get("/{job_id}/artifacts/{name:path}", summary="Download an artifact", **FILE_RESPONSE)
def get_artifact(service: TheService, job_id: str, name: str, if_none_match: IfNoneMatch = None) -> Response:
    """Return one file of a job that succeeded, by its name in the list."""
    return artifact_file(service, job_id, name, _KIND, if_none_match)
