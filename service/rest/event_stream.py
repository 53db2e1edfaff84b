"""What happens to a job, as Server-Sent Events."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from fastapi.sse import ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from autoprune.service.rest.job_watch import JobWatch
from autoprune.service.rest.views import EXAMPLE_JOB_ID
from autoprune.service.storage.states import JobChange
from autoprune.service.storage.tables import JobEventRow


class JobEventView(BaseModel):
    """One change of a job's state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(description="Larger than that of every earlier event.", examples=[42])
    job_id: str = Field(examples=[EXAMPLE_JOB_ID])
    state: JobChange = Field(examples=["running"])
    attempt: int = Field(description="The job's latest attempt then; 0 before the first.", examples=[1])
    detail: dict[str, Any] = Field(description="`error_type` of a failure.", examples=[{}])
    created_at: datetime

    @classmethod
    def of(cls, row: JobEventRow) -> "JobEventView":
        """Show a record."""
        return cls(
            id=row.id,
            job_id=row.job_id,
            state=JobChange(row.state),
            attempt=row.attempt,
            detail=row.detail,
            created_at=row.created_at,
        )


def _watch(request: Request) -> JobWatch:
    """Return the watch of the application that got the request."""
    watch = request.app.state.watch
    assert isinstance(watch, JobWatch)
    return watch


def _position(
    last_event_id: Annotated[
        int | None, Header(ge=0, description="Id of the last event that a stream which broke had told.")
    ] = None,
    after: Annotated[int, Query(ge=0, description="The same for a first request; `Last-Event-ID` goes before it.")] = 0,
) -> int:
    """Return the id of the event after which a stream begins."""
    return after if last_event_id is None else last_event_id


TheWatch = Annotated[JobWatch, Depends(_watch)]
Position = Annotated[int, Depends(_position)]


async def events_of(watch: JobWatch, job_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Yield what happens to a job as ``state`` events, which have ids, and ``progress`` events, which have none."""
    async for news in watch.follow(job_id, after):
        if isinstance(news, JobEventRow):
            yield ServerSentEvent(event="state", id=str(news.id), data=JobEventView.of(news))
        else:
            yield ServerSentEvent(event="progress", data=news)
