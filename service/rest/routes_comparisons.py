"""Comparisons and their artifacts over REST: jobs of their own kind, in the same queue."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from autoprune.service.comparisons.comparison_spec import ComparisonSpec
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
from autoprune.service.rest.views import ArtifactView, ComparisonView
from autoprune.service.storage.tables import JobKind, JobState

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])

_KIND = JobKind.COMPARISON


def _known(service: TheService, comparison_id: str) -> None:
    """Refuse unknown ids before a stream begins."""
    service.records.job(comparison_id, _KIND)


@router.post(
    "",
    status_code=201,
    summary="Submit a comparison",
    responses={200: {"model": ComparisonView, "description": "Queued before, by the same key"}, **documented(413, 422)},
)
def post_comparison(
    service: TheService,
    quota: TheQuota,
    response: Response,
    spec: ComparisonSpec,
    idempotency_key: IdempotencyKey = None,
) -> ComparisonView:
    """Queue a comparison. What cannot succeed, such as a budget below the smallest reachable cost, is refused here."""
    row, is_new = submitted(service, quota, spec, idempotency_key)
    describe_submission(response, row, is_new=is_new)
    return ComparisonView.of(row)


@router.get("", summary="List comparisons", responses=PAGED)
def get_comparisons(service: TheService, page: ThePage, state: JobState | None = None) -> list[ComparisonView]:
    """Return the newest comparisons, newest first, of one `state` or of all."""
    rows = service.records.jobs(kind=_KIND, state=state, limit=page.needed, after=page.after)
    return [ComparisonView.of(row) for row in page.of(rows, lambda row: row.id)]


@router.get("/{comparison_id}", summary="Show a comparison", responses=documented(404))
def get_comparison(service: TheService, comparison_id: str) -> ComparisonView:
    """Return one comparison: its state, its progress, and its error if it failed."""
    return ComparisonView.of(service.records.job(comparison_id, _KIND))


@router.post("/{comparison_id}/cancel", status_code=202, summary="Cancel a comparison", responses=documented(404, 409))
def post_cancel(service: TheService, comparison_id: str) -> ComparisonView:
    """Cancel a queued comparison at once, end a running one within seconds. Cancelling twice is the same as once."""
    return ComparisonView.of(cancelled(service, comparison_id, _KIND))


@router.get(
    "/{comparison_id}/events",
    summary="Follow a comparison",
    response_class=EventSourceResponse,
    responses=documented(404, 422),
    dependencies=[Depends(_known)],
)
async def get_events(watch: TheWatch, comparison_id: str, position: Position) -> AsyncIterator[ServerSentEvent]:
    """Stream what happens to a comparison until it has ended: `state` events of every change, `progress` while it runs.

    `state` events have ids. A stream that broke goes on behind the one named by `Last-Event-ID`, nothing left out and
    nothing told twice; `progress` is then told as it is. A service that ends ends its streams, too.
    """
    async for event in events_of(watch, comparison_id, position):
        yield event


@router.get("/{comparison_id}/artifacts", summary="List a comparison's artifacts", responses=documented(404))
def get_artifacts(service: TheService, comparison_id: str) -> list[ArtifactView]:
    """Return the files that a comparison left; none until it has succeeded."""
    return artifacts_of(service, comparison_id, _KIND)


@router.get("/{comparison_id}/artifacts/{name:path}", summary="Download an artifact", **FILE_RESPONSE)
def get_artifact(service: TheService, comparison_id: str, name: str, if_none_match: IfNoneMatch = None) -> Response:
    """Return one file of a comparison that succeeded, by its name in the list."""
    return artifact_file(service, comparison_id, name, _KIND, if_none_match)
