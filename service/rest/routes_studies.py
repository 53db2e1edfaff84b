"""Studies over REST: jobs of their own kind, in the same queue."""

from fastapi import Response

from autoprune.service.rest.dependencies import TheQuota, TheService
from autoprune.service.rest.job_answers import IdempotencyKey, accepted, submission_responses
from autoprune.service.rest.job_routes import job_routes
from autoprune.service.rest.upload_readers import TheReaders
from autoprune.service.rest.views import StudyView
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.storage.states import JobKind

router = job_routes(JobKind.STUDY, "study", StudyView)


@router.post("", status_code=201, summary="Submit a study", responses=submission_responses(StudyView))
async def post_study(
    service: TheService,
    quota: TheQuota,
    readers: TheReaders,
    response: Response,
    spec: StudySpec,
    idempotency_key: IdempotencyKey = None,
) -> StudyView:
    """Queue a study. What cannot succeed, such as an oracle without labels, is refused here."""
    return StudyView.of(await accepted(service, quota, readers, spec, idempotency_key, response))
