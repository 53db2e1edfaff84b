"""The service itself over REST: whether it works, and what it has done."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import PlainTextResponse

from autoprune import __version__
from autoprune.service.engine.readiness import obstacles
from autoprune.service.rest.dependencies import TheService, documented
from autoprune.service.rest.event_stream import TheWatch
from autoprune.service.rest.metrics import exposition
from autoprune.service.rest.problems import problem_response
from autoprune.service.rest.views import HealthView

router = APIRouter(tags=["service"])


@router.get("/healthz", summary="Whether the service works")
def get_health(service: TheService) -> HealthView:
    """Answer ok where the records can be read."""
    service.records.jobs(limit=1)
    return HealthView(version=__version__, runs_jobs=service.runners is not None)


@router.get("/readyz", summary="Whether jobs can be sent", response_model=HealthView, responses=documented(503))
def get_readiness(service: TheService, request: Request) -> HealthView | Response:
    """Answer ok where the records can be read, the folders can be written and the runners of jobs live."""
    found = obstacles(service)
    if found:
        detail = "; ".join(found)
        return problem_response(503, detail, kind="not-ready", instance=request.url.path, headers={"Retry-After": "5"})
    return HealthView(version=__version__, runs_jobs=service.runners is not None)


@router.get("/metrics", summary="Counts for Prometheus", response_class=PlainTextResponse)
def get_metrics(service: TheService, watch: TheWatch, request: Request) -> Response:
    """Return requests, jobs by state, and what this service has run since it started, in Prometheus's text format."""
    content = exposition(service, request.app.state.request_metrics, watch.followers)
    return Response(content, media_type=CONTENT_TYPE_PLAIN_0_0_4)
