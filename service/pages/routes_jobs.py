"""The pages of jobs, comparisons and studies."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, RedirectResponse, Response

from autoprune.errors import AutopruneError
from autoprune.service.engine.service import Service
from autoprune.service.pages.live import live
from autoprune.service.pages.outcome import outcome
from autoprune.service.pages.rendering import PageRoute, rendered
from autoprune.service.pages.summary import summary
from autoprune.service.pipeline.what_if import MEANING
from autoprune.service.rest.dependencies import TheService
from autoprune.service.rest.job_answers import artifacts_of, budget_answers, cancelled
from autoprune.service.results.wording import AGREEMENT, TOP1
from autoprune.service.storage.tables import JobKind, JobState

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_METRICS = {metric.field: metric.label for metric in (TOP1, AGREEMENT)}


@router.get("/jobs/{job_id}")
def get_job(service: TheService, job_id: str) -> Response:
    """Show a job."""
    return _page(service, job_id, JobKind.SEARCH)


@router.get("/comparisons/{job_id}")
def get_comparison(service: TheService, job_id: str) -> Response:
    """Show a comparison."""
    return _page(service, job_id, JobKind.COMPARISON)


@router.get("/studies/{job_id}")
def get_study(service: TheService, job_id: str) -> Response:
    """Show a study."""
    return _page(service, job_id, JobKind.STUDY)


@router.get("/jobs/{job_id}/live")
def get_job_live(service: TheService, job_id: str) -> Response:
    """Show how far a job is."""
    return _live(service, job_id, JobKind.SEARCH)


@router.get("/comparisons/{job_id}/live")
def get_comparison_live(service: TheService, job_id: str) -> Response:
    """Show how far a comparison is."""
    return _live(service, job_id, JobKind.COMPARISON)


@router.get("/studies/{job_id}/live")
def get_study_live(service: TheService, job_id: str) -> Response:
    """Show how far a study is."""
    return _live(service, job_id, JobKind.STUDY)


@router.post("/jobs/{job_id}/cancel")
def post_job_cancel(service: TheService, job_id: str) -> Response:
    """Cancel a job."""
    return _cancel(service, job_id, JobKind.SEARCH)


@router.post("/comparisons/{job_id}/cancel")
def post_comparison_cancel(service: TheService, job_id: str) -> Response:
    """Cancel a comparison."""
    return _cancel(service, job_id, JobKind.COMPARISON)


@router.post("/studies/{job_id}/cancel")
def post_study_cancel(service: TheService, job_id: str) -> Response:
    """Cancel a study."""
    return _cancel(service, job_id, JobKind.STUDY)


@router.get("/jobs/{job_id}/what-if")
def get_what_if(
    service: TheService,
    job_id: str,
    quantity: Annotated[str, Query(max_length=20)],
    percent: Annotated[str, Query(max_length=20)],
) -> Response:
    """Show what another budget would cost."""
    budget = f"{quantity}={percent}%"
    try:
        view = budget_answers(service, job_id, [budget])
    except AutopruneError as error:  # shown in place of an answer: htmx leaves other statuses out
        return rendered("_what_if.html", budget=budget, refusal=str(error))
    answer, metric = view.budgets[0], _METRICS[view.metric]
    return rendered("_what_if.html", budget=budget, view=view, answer=answer, metric=metric, meaning=MEANING)


def _page(service: Service, job_id: str, kind: JobKind) -> Response:
    """Show a job or comparison: what it found, or how far it is."""
    found = summary(service, service.records.job(job_id, kind))
    succeeded = found.job.state is JobState.SUCCEEDED
    return rendered(
        "job.html",
        job=found,
        live=None if succeeded else live(service, job_id),
        outcome=outcome(service, found) if succeeded else None,
        artifacts=artifacts_of(service, job_id, kind),
        runs_jobs=service.runners is not None,
    )


def _live(service: Service, job_id: str, kind: JobKind) -> Response:
    """Show how far a job or comparison is; where it has ended, let the browser load the whole page again."""
    found = summary(service, service.records.job(job_id, kind))
    if found.is_final:
        return HTMLResponse("", headers={"HX-Refresh": "true"})
    return rendered("_live.html", job=found, live=live(service, job_id), runs_jobs=service.runners is not None)


def _cancel(service: Service, job_id: str, kind: JobKind) -> Response:
    """Ask for the end of a job or comparison, and go back to its page."""
    return RedirectResponse(summary(service, cancelled(service, job_id, kind)).address, 303)
