"""The REST application: routes, errors, limits and the OpenAPI document."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool

from autoprune import __version__
from autoprune.service.devices.work import MOST_RESULT_BYTES
from autoprune.service.engine.service import Service, opened
from autoprune.service.pages import router as pages
from autoprune.service.pages.rendering import too_large_page
from autoprune.service.rest import (
    routes_comparisons,
    routes_criteria,
    routes_datasets,
    routes_devices,
    routes_jobs,
    routes_models,
    routes_service,
    routes_studies,
)
from autoprune.service.rest.body_limit import BodyLimit
from autoprune.service.rest.caller_check import CallerCheck
from autoprune.service.rest.dependencies import documented
from autoprune.service.rest.job_watch import JobWatch
from autoprune.service.rest.key_check import KeyCheck
from autoprune.service.rest.metrics import RequestMetrics
from autoprune.service.rest.problems import add_problem_handlers
from autoprune.service.rest.rate_limit import RateLimit
from autoprune.service.rest.request_log import RequestLog
from autoprune.service.rest.upload_readers import UploadReaders
from autoprune.service.settings import Settings
from autoprune.service.storage.event_records import EventRecords

_DESCRIPTION = """
Upload a trained network and images, name a budget, and get back a smaller network that holds it, with a certificate.

Every error is a problem document (RFC 9457, `application/problem+json`) that says what was expected and what was found.
"""


def create_app(settings: Settings | None = None, *, service: Service | None = None) -> FastAPI:
    """Return the application.

    Without an open `service` it opens one of its own when the server starts it, and closes it at the end; then
    SettingsError shows at that start.
    """
    chosen = settings or Settings.from_environment()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with contextlib.ExitStack() as stack:
            running = service
            if running is None:
                running = await run_in_threadpool(stack.enter_context, opened(chosen))
            app.state.service = running
            app.state.upload_readers = UploadReaders()
            app.state.watch = JobWatch(EventRecords(running.records.sessions))
            async with app.state.watch.polling():
                yield
            await run_in_threadpool(stack.close)

    app = FastAPIOffline(  # /docs without the network: its scripts come from here, not from a CDN
        title="autoprune", version=__version__, description=_DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, uploads=_uploads(chosen), page=too_large_page)
    app.add_middleware(RateLimit, requests_per_s=chosen.requests_per_s)
    if chosen.require_keys:
        app.add_middleware(KeyCheck)
    app.add_middleware(CallerCheck, any_host=chosen.require_keys)
    app.state.request_metrics = CollectorRegistry()
    app.add_middleware(RequestMetrics, registry=app.state.request_metrics)
    app.add_middleware(RequestLog)
    shown = [Depends(HTTPBearer(auto_error=False, description="An API key's token."))] if chosen.require_keys else []
    errors = documented(400, 403, 429, *([401] if chosen.require_keys else []))
    for routes in (
        routes_models,
        routes_datasets,
        routes_jobs,
        routes_comparisons,
        routes_studies,
        routes_criteria,
        routes_devices,
    ):
        app.include_router(routes.router, dependencies=shown, responses=errors)
    app.include_router(routes_service.router)
    app.include_router(pages.router)
    return app


def _uploads(settings: Settings) -> dict[str, int]:
    """Return the paths that take files, as regular expressions, and how large these may be."""
    return {
        "/jobs": settings.max_model_bytes + settings.max_dataset_bytes,  # the page's form has one of each
        "/v1/models": settings.max_model_bytes,
        "/v1/datasets": settings.max_dataset_bytes,
        "/v1/latency-tables": MOST_RESULT_BYTES,
        "/v1/devices/[^/]+/work/[^/]+/result": MOST_RESULT_BYTES,
    }
