"""The pages of jobs, comparisons and studies."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse, RedirectResponse, Response

from autoprune.errors import AutopruneError
from autoprune.service.pages.live import live
from autoprune.service.pages.outcome import outcome
from autoprune.service.pages.rendering import PageRoute, rendered
from autoprune.service.pages.summary import summary
from autoprune.service.pipeline.what_if import MEANING
from autoprune.service.rest.dependencies import TheService
from autoprune.service.rest.job_answers import ADDRESSES, artifacts_of, budget_answers, cancelled
from autoprune.service.results.wording import AGREEMENT, TOP1
from autoprune.service.storage.states import JobKind, JobState

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_METRICS = {metric.field: metric.label for metric in (TOP1, AGREEMENT)}


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


def _add_pages(kind: JobKind) -> None:
    """Add the pages of all jobs of a kind."""
    address = f"/{ADDRESSES[kind]}/{{job_id}}"

    @router.get(address)
    def get_page(service: TheService, job_id: str) -> Response:
        """Show what it found, or how far it is."""
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

    @router.get(f"{address}/live")
    def get_live(service: TheService, job_id: str) -> Response:
        """Show how far it is; where it has ended, let the browser load the whole page again."""
        found = summary(service, service.records.job(job_id, kind))
        if found.is_final:
            return HTMLResponse("", headers={"HX-Refresh": "true"})
        return rendered("_live.html", job=found, live=live(service, job_id), runs_jobs=service.runners is not None)

    @router.post(f"{address}/cancel")
    def post_cancel(service: TheService, job_id: str) -> Response:
        """Ask for its end, and go back to its page."""
        return RedirectResponse(summary(service, cancelled(service, job_id, kind)).address, 303)


for _kind in JobKind:
    _add_pages(_kind)
