"""What Prometheus reads: requests by route, jobs by state, and what the service has run."""

import time

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoprune.service.engine.service import Service

#: Methods that are counted by name; a caller may send any word.
METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))


class RequestMetrics:
    """ASGI middleware that counts requests, and the time until their answer begins, in `registry`.

    Routes are named by their templates, so that ids and addresses that nobody serves make no series of their own.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        """Count the requests to `app`."""
        self._app = app
        self._durations = Histogram(
            "autoprune_http_request_duration_seconds",
            "Time from a request's arrival to the beginning of its answer.",
            ["method", "route", "status"],
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status: int | None = None

        def count(status: int) -> None:
            method = scope["method"] if scope["method"] in METHODS else "other"
            labels = {"method": method, "route": route_of(scope), "status": str(status)}
            self._durations.labels(**labels).observe(time.perf_counter() - began)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                count(status)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:  # a defect, answered outside all middleware
            if status is None:
                count(500)
            raise


def route_of(scope: Scope) -> str:
    """Return the template of the route that took a request; ``none`` where none did."""
    return getattr(scope.get("route"), "path", "none")


def exposition(service: Service, requests: CollectorRegistry, streams: int) -> bytes:
    """Return all metrics in Prometheus's text format; `streams` of events are open.

    Raises:
        SQLAlchemyError: The records cannot be read.

    """
    now = CollectorRegistry()
    jobs = Gauge("autoprune_jobs", "Jobs in the records, of all kinds.", ["state"], registry=now)
    for state, count in service.records.counts().items():
        jobs.labels(state=state.value).set(count)
    Gauge("autoprune_event_streams", "Streams of events that are open.", registry=now).set(streams)
    return b"".join(map(generate_latest, (now, service.metrics.registry, requests)))
