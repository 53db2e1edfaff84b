"""Jobs over REST, and what they can tell about other budgets."""

from typing import Annotated

from fastapi import Query, Response

from autoprune.service.pipeline.what_if import WhatIfView
from autoprune.service.rest.dependencies import TheQuota, TheService, documented
from autoprune.service.rest.job_answers import IdempotencyKey, accepted, budget_answers, submission_responses
from autoprune.service.rest.job_routes import job_routes
from autoprune.service.rest.upload_readers import TheReaders
from autoprune.service.rest.views import JobView
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.storage.states import JobKind

router = job_routes(JobKind.SEARCH, "job", JobView)


@router.post("", status_code=201, summary="Submit a job", responses=submission_responses(JobView))
async def post_job(
    service: TheService,
    quota: TheQuota,
    readers: TheReaders,
    response: Response,
    spec: JobSpec,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Queue a job. What cannot succeed, such as a budget below the smallest reachable cost, is refused here."""
    return JobView.of(await accepted(service, quota, readers, spec, idempotency_key, response))


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
