"""Comparisons and their artifacts over REST: jobs of their own kind, in the same queue."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from autoprune.service.rest.dependencies import TheQuota, TheService, documented
from autoprune.service.rest.event_stream import Position, TheWatch, events_of
from autoprune.service.rest.job_answers import (
    FILE_RESPONSE,
    IdempotencyKey,
    IfNoneMatch,
    artifact_file,
    artifacts_of,
    cancelled,
    describe_submission,
    submitted,
)
from autoprune.service.rest.pages import PAGED, ThePage
from autoprune.service.rest.views import ArtifactView, StudyView
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.tables import JobKind, JobState

router = APIRouter(prefix="/v1/studies", tags=["studies"])

_KIND = JobKind.STUDY


def _known(service: TheService, study_id: str) -> None:
    """Refuse unknown ids before a stream begins."""
    service.records.job(study_id, _KIND)


@router.post(
    "",
    status_code=201,
    summary="Submit a study",
    responses={200: {"model": StudyView, "description": "Queued before, by the same key"}, **documented(413, 422)},
)
def post_study(
    service: TheService,
    quota: TheQuota,
    response: Response,
    spec: StudySpec,
    idempotency_key: IdempotencyKey = None,
) -> StudyView:
    """Queue a study. What cannot succeed, such as an oracle without labels, is refused here."""
    row, is_new = submitted(service, quota, spec, idempotency_key)
    describe_submission(response, row, is_new=is_new)
    return StudyView.of(row)


@router.get("", summary="List studies", responses=PAGED)
def get_studies(service: TheService, page: ThePage, state: JobState | None = None) -> list[StudyView]:
    """Return the newest studies, newest first, of one `state` or of all."""
    rows = service.records.jobs(kind=_KIND, state=state, limit=page.needed, after=page.after)
    return [StudyView.of(row) for row in page.of(rows, lambda row: row.id)]


@router.get("/{study_id}", summary="Show a study", responses=documented(404))
def get_study(service: TheService, study_id: str) -> StudyView:
    """Return one study: its state, its progress, and its error if it failed."""
    return StudyView.of(service.records.job(study_id, _KIND))


@router.post("/{study_id}/cancel", status_code=202, summary="Cancel a study", responses=documented(404, 409))
def post_cancel(service: TheService, study_id: str) -> StudyView:
    """Cancel a queued study at once, end a running one within seconds. Cancelling twice is the same as once."""
    return StudyView.of(cancelled(service, study_id, _KIND))


@router.get(
    "/{study_id}/events",
    summary="Follow a study",
    response_class=EventSourceResponse,
    responses=documented(404, 422),
    dependencies=[Depends(_known)],
)
async def get_events(watch: TheWatch, study_id: str, position: Position) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens to a study until it has ended: `state` events of every change, `progress` while it runs.

    `state` events have ids. A stream that broke goes on behind the one named by `Last-Event-ID`, nothing left out and
    nothing told twice; `progress` is then told as it is. A service that ends ends its streams, too.
    """
    async for event in events_of(watch, study_id, position):
        yield event


@router.get("/{study_id}/artifacts", summary="List a study's artifacts", responses=documented(404))
def get_artifacts(service: TheService, study_id: str) -> list[ArtifactView]:
    """Return the files that a study left; none until it has succeeded."""
    return artifacts_of(service, study_id, _KIND)


@router.get("/{study_id}/artifacts/{name:path}", summary="Download an artifact", **FILE_RESPONSE)
def get_artifact(service: TheService, study_id: str, name: str, if_none_match: IfNoneMatch = None) -> Response:
    """Return one file of a study that succeeded, by its name in the list."""
    return artifact_file(service, study_id, name, _KIND, if_none_match)
