"""The REST application: routes, errors, limits and the OpenAPI document."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from autoprune import __version__
from autoprune.service.devices.work import MOST_RESULT_BYTES
from autoprune.service.engine.service import Service, opened
from autoprune.service.rest import routes_comparisons, routes_datasets, routes_devices, routes_jobs, routes_models
from autoprune.service.rest.body_limit import BodyLimit
from autoprune.service.rest.caller_check import CallerCheck
from autoprune.service.rest.dependencies import TheService
from autoprune.service.rest.problems import add_problem_handlers
from autoprune.service.rest.views import HealthView
from autoprune.service.settings import Settings

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
            app.state.service = service or await run_in_threadpool(stack.enter_context, opened(chosen))
            yield
            await run_in_threadpool(stack.close)

    app = FastAPI(title="autoprune", version=__version__, description=_DESCRIPTION, lifespan=lifespan)
    add_problem_handlers(app)
    app.add_middleware(BodyLimit, uploads=_uploads(chosen))
    app.add_middleware(CallerCheck)
    for routes in (routes_models, routes_datasets, routes_jobs, routes_comparisons, routes_devices):
        app.include_router(routes.router)
    app.add_api_route("/healthz", _health, summary="Whether the service works", tags=["service"])
    return app


def _uploads(settings: Settings) -> dict[str, int]:
    """Return the paths that take files, as regular expressions, and how large these may be."""
    return {
        "/v1/models": settings.max_model_bytes,
        "/v1/datasets": settings.max_dataset_bytes,
        "/v1/latency-tables": MOST_RESULT_BYTES,
        "/v1/devices/[^/]+/work/[^/]+/result": MOST_RESULT_BYTES,
    }


def _health(service: TheService) -> HealthView:
    """Answer ok where the records can be read."""
    service.records.jobs(limit=1)
    return HealthView(version=__version__, runs_jobs=service.runner is not None)
