"""Comparisons over REST: jobs of their own kind, in the same queue."""

from fastapi import Response

from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.rest.dependencies import TheQuota, TheService
from autoprune.service.rest.job_answers import IdempotencyKey, accepted, submission_responses
from autoprune.service.rest.job_routes import job_routes
from autoprune.service.rest.upload_readers import TheReaders
from autoprune.service.rest.views import ComparisonView
from autoprune.service.storage.states import JobKind

router = job_routes(JobKind.COMPARISON, "comparison", ComparisonView)


@router.post("", status_code=201, summary="Submit a comparison", responses=submission_responses(ComparisonView))
async def post_comparison(
    service: TheService,
    quota: TheQuota,
    readers: TheReaders,
    response: Response,
    spec: ComparisonSpec,
    idempotency_key: IdempotencyKey = None,
) -> ComparisonView:
    """Queue a comparison. What cannot succeed, such as a budget below the smallest reachable cost, is refused here."""
    return ComparisonView.of(await accepted(service, quota, readers, spec, idempotency_key, response))
