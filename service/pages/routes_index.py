"""The page at ``/``: what there is, and the form for something new."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from autoprune.service.engine.service import Service
from autoprune.service.pages.choices import Choices
from autoprune.service.pages.job_form import JobForm, submit
from autoprune.service.pages.rendering import PageRoute, rendered
from autoprune.service.pages.summary import summaries, summary
from autoprune.service.rest.dependencies import TheQuota, TheService
from autoprune.service.rest.upload_readers import TheReaders

router = APIRouter(include_in_schema=False, route_class=PageRoute)

#: Fields of the form, with one for every policy that is ticked.
_MOST_FIELDS = 100


@router.get("/")
def get_index(service: TheService) -> Response:
    """Show jobs, comparisons and an empty form."""
    choices = Choices.of(service)
    form = JobForm()
    return _index(service, choices, form.chosen("model", choices.models[0].id) if choices.models else form)


@router.get("/jobs")
def get_jobs(service: TheService) -> Response:
    """Show the list of jobs and comparisons alone, for the page that has it already."""
    return rendered("_jobs.html", jobs=summaries(service))


@router.post("/jobs")
async def post_job(service: TheService, quota: TheQuota, readers: TheReaders, request: Request) -> Response:
    """Queue what the form asks for and go to its page, or show the form again with what is wrong."""
    async with request.form(max_files=3, max_fields=_MOST_FIELDS) as form:
        done = await readers.run(partial(submit, service, quota, form))
    if isinstance(done, JobForm):
        return await run_in_threadpool(lambda: _index(service, Choices.of(service), done, status=422))
    return RedirectResponse(summary(service, done).address, 303)


def _index(service: Service, choices: Choices, form: JobForm, *, status: int = 200) -> Response:
    """Show the page with a form."""
    return rendered("index.html", status=status, jobs=summaries(service), choices=choices, form=form)
