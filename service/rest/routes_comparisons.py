"""Comparisons and their artifacts over REST: jobs of their own kind, in the same queue."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, Response
from starlette.responses import FileResponse

from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.rest.admission import check_job
from autoprune.service.rest.dependencies import TheService, documented
from autoprune.service.rest.job_answers import FILE_RESPONSE, artifact_file, artifacts_of, cancelled
from autoprune.service.rest.views import ArtifactView, ComparisonView
from autoprune.service.storage.tables import JobKind, JobState

router = APIRouter(prefix="/v1/comparisons", tags=["comparisons"])

_KIND = JobKind.COMPARISON


@router.post("", status_code=201, summary="Submit a comparison", responses=documented(413, 422))
def post_comparison(service: TheService, response: Response, spec: ComparisonSpec) -> ComparisonView:
    """Queue a comparison. What cannot succeed, such as a budget below the smallest reachable cost, is refused here."""
    check_job(spec, service.records, service.store, service.settings.home)
    row = service.records.add_job(f"cmp_{uuid.uuid4().hex[:24]}", spec.model_dump(mode="json"), kind=_KIND)
    service.wake()
    response.headers["Location"] = f"/v1/comparisons/{row.id}"
    return ComparisonView.of(row)


@router.get("", summary="List comparisons", responses=documented(422))
def get_comparisons(
    service: TheService, state: JobState | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[ComparisonView]:
    """Return the newest comparisons, newest first, of one `state` or of all."""
    return [ComparisonView.of(row) for row in service.records.jobs(kind=_KIND, state=state, limit=limit)]


@router.get("/{comparison_id}", summary="Show a comparison", responses=documented(404))
def get_comparison(service: TheService, comparison_id: str) -> ComparisonView:
    """Return one comparison: its state, its progress, and its error if it failed."""
    return ComparisonView.of(service.records.job(comparison_id, _KIND))


@router.post("/{comparison_id}/cancel", status_code=202, summary="Cancel a comparison", responses=documented(404, 409))
def post_cancel(service: TheService, comparison_id: str) -> ComparisonView:
    """Cancel a queued comparison at once, end a running one within seconds. Cancelling twice is the same as once."""
    return ComparisonView.of(cancelled(service, comparison_id, _KIND))


@router.get("/{comparison_id}/artifacts", summary="List a comparison's artifacts", responses=documented(404))
def get_artifacts(service: TheService, comparison_id: str) -> list[ArtifactView]:
    """Return the files that a comparison left; none until it has succeeded."""
    return artifacts_of(service, comparison_id, _KIND)


@router.get("/{comparison_id}/artifacts/{name:path}", summary="Download an artifact", **FILE_RESPONSE)
def get_artifact(service: TheService, comparison_id: str, name: str) -> FileResponse:
    """Return one file of a comparison that succeeded, by its name in the list."""
    return artifact_file(service, comparison_id, name, _KIND)
