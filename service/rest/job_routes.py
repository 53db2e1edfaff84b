"""The routes that jobs, comparisons and studies have alike: to look at them, to follow, to cancel, to download."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import GenericAlias
from typing import Any

from fastapi import APIRouter, Depends, Path, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from autoprune.service.rest.dependencies import TheService, documented
from autoprune.service.rest.event_stream import Position, TheWatch, events_of
from autoprune.service.rest.job_answers import (
    ADDRESSES,
    FILE_RESPONSE,
    IfNoneMatch,
    artifact_file,
    artifacts_of,
    cancelled,
)
from autoprune.service.rest.pages import PAGED, ThePage
from autoprune.service.rest.views import ArtifactView, JobView
from autoprune.service.storage.states import JobKind, JobState


def job_routes(kind: JobKind, one: str, view: type[JobView]) -> APIRouter:
    """Return a router with the routes of jobs of a `kind`, each of which is called `one` and shown as a `view`.

    They are submitted by a route of their own, whose document is of their own, too.
    """
    many = ADDRESSES[kind]
    router = APIRouter(prefix=f"/v1/{many}", tags=[many])
    routes = _Routes(router, kind, one, many, view)
    routes.add_list()
    routes.add_one()
    routes.add_cancel()
    routes.add_events()
    routes.add_artifacts()
    return router


@dataclass(frozen=True, slots=True)
class _Routes:
    """Adds routes to a router; functions have general names, routes those of the kind."""

    router: APIRouter
    kind: JobKind
    one: str
    many: str
    view: type[JobView]

    @property
    def _path(self) -> str:
        """Path of one, below the router's."""
        return f"/{{{self.one}_id}}"

    @property
    def _id(self) -> Any:  # noqa: ANN401 - FastAPI's own, for defaults of any type
        """What takes an id out of that path."""
        return Path(alias=f"{self.one}_id")

    def add_list(self) -> None:
        """Add the list of all."""

        @self.router.get(
            "",
            name=f"get_{self.many}",
            summary=f"List {self.many}",
            description=f"Return the newest {self.many}, newest first, of one `state` or of all.",
            response_model=GenericAlias(list, (self.view,)),
            responses=PAGED,
        )
        def get_list(service: TheService, page: ThePage, state: JobState | None = None) -> list[JobView]:
            rows = service.records.jobs(kind=self.kind, state=state, limit=page.needed, after=page.after)
            return [self.view.of(row) for row in page.of(rows, lambda row: row.id)]

    def add_one(self) -> None:
        """Add one's state."""

        @self.router.get(
            self._path,
            name=f"get_{self.one}",
            summary=f"Show a {self.one}",
            description=f"Return one {self.one}: its state, its progress, and its error if it failed.",
            response_model=self.view,
            responses=documented(404),
        )
        def get_one(service: TheService, job_id: str = self._id) -> JobView:
            return self.view.of(service.records.job(job_id, self.kind))

    def add_cancel(self) -> None:
        """Add one's end."""

        @self.router.post(
            f"{self._path}/cancel",
            status_code=202,
            summary=f"Cancel a {self.one}",
            description=f"Cancel a queued {self.one} at once, end a running one within seconds. Cancelling twice is "
            "the same as once.",
            response_model=self.view,
            responses=documented(404, 409),
        )
        def post_cancel(service: TheService, job_id: str = self._id) -> JobView:
            return self.view.of(cancelled(service, job_id, self.kind))

    def add_events(self) -> None:
        """Add the stream of one's events."""

        def known(service: TheService, job_id: str = self._id) -> None:
            """Refuse unknown ids before a stream begins."""
            service.records.job(job_id, self.kind)

        @self.router.get(
            f"{self._path}/events",
            summary=f"Follow a {self.one}",
            description=f"Stream what happens to a {self.one} until it has ended: `state` events of every change, "
            "`progress` while it runs.\n\n"
            "`state` events have ids. A stream that broke goes on behind the one named by `Last-Event-ID`, nothing "
            "left out and\nnothing told twice; `progress` is then told as it is. A service that ends ends its "
            "streams, too.",
            response_class=EventSourceResponse,
            responses=documented(404, 422),
            dependencies=[Depends(known)],
        )
        async def get_events(
            watch: TheWatch, position: Position, job_id: str = self._id
        ) -> AsyncIterator[ServerSentEvent]:
            async for event in events_of(watch, job_id, position):
                yield event

    def add_artifacts(self) -> None:
        """Add the files that one left."""

        @self.router.get(
            f"{self._path}/artifacts",
            summary=f"List a {self.one}'s artifacts",
            description=f"Return the files that a {self.one} left; none until it has succeeded.",
            responses=documented(404),
        )
        def get_artifacts(service: TheService, job_id: str = self._id) -> list[ArtifactView]:
            return artifacts_of(service, job_id, self.kind)

        @self.router.get(
            f"{self._path}/artifacts/{{name:path}}",
            summary="Download an artifact",
            description=f"Return one file of a {self.one} that succeeded, by its name in the list.",
            **FILE_RESPONSE,
        )
        def get_artifact(
            service: TheService, name: str, job_id: str = self._id, if_none_match: IfNoneMatch = None
        ) -> Response:
            return artifact_file(service, job_id, name, self.kind, if_none_match)
