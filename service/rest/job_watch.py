"""What happens to jobs, told to many who follow them: one look at the records serves all of them."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from autoprune.service.storage.event_records import EventRecords
from autoprune.service.storage.states import JobChange
from autoprune.service.storage.tables import JobEventRow, Json

#: Time between two looks at the records, and after one that failed.
POLL_S = 0.25
RETRY_S = 5.0

#: Time between what two followers of the same change are told, where that does not make the last of them late.
APART_S = 0.001

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last look at a job found: all its events, oldest first, and its progress."""

    events: Sequence[JobEventRow] = ()
    progress: Json | None = None

    @property
    def latest(self) -> int:
        return self.events[-1].id if self.events else 0

    @property
    def has_ended(self) -> bool:
        return bool(self.events) and JobChange(self.events[-1].state).is_final


class JobWatch:
    """Lets any number of streams follow jobs. All methods are for one event loop."""

    def __init__(self, events: EventRecords) -> None:
        """Read from `events`, while :meth:`polling` lasts."""
        self._events = events
        self._followers = Counter[str]()
        self._known: Mapping[str, _Known] = {}
        self._news = asyncio.Event()  # set, and replaced by another, at every change
        self._closed = False
        self._turns = 0

    @property
    def followers(self) -> int:
        """How many follow a job now."""
        return self._followers.total()

    @contextlib.asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """Look at the followed jobs, again and again, while the context lasts; its end ends what follows them."""
        task = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self.close()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """End whatever follows a job, now and later."""
        self._closed = True
        self._tell()

    async def follow(self, job_id: str, after: int) -> AsyncIterator[JobEventRow | Json]:
        """Yield a job's events with ids above `after`, and its progress when it is another, until the job has ended.

        The progress that a job ended with comes before the event of its end. A watch that is closed yields no more.
        """
        told: Json | None = None
        with self._followed(job_id):
            while not self._closed:
                news = self._news  # first: what changes from here on is seen below, or sets it
                known = self._known.get(job_id, _Known())
                for event in known.events:
                    if event.id > after and not JobChange(event.state).is_final:
                        yield event
                if known.progress not in (None, told):
                    told = known.progress
                    yield told
                if known.has_ended:
                    if known.latest > after:
                        yield known.events[-1]
                    return
                after = max(after, known.latest)
                await news.wait()
                await asyncio.sleep(self._turn())

    @contextlib.contextmanager
    def _followed(self, job_id: str) -> Iterator[None]:
        """Count a follower of a job."""
        self._followers[job_id] += 1
        try:
            yield
        finally:
            self._followers[job_id] -= 1
            if not self._followers[job_id]:
                del self._followers[job_id]

    async def _poll(self) -> None:
        """Look at the followed jobs for ever."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                known = await run_in_threadpool(self._look, list(self._followers))
            except SQLAlchemyError as error:
                _log.error("events cannot be read; trying again in %.0f s", RETRY_S, exc_info=error)
                await asyncio.sleep(RETRY_S)
                continue
            if known != self._known:
                self._known = known
                self._tell()

    def _look(self, job_ids: Sequence[str]) -> Mapping[str, _Known]:
        """Read what has changed; events before progress, so that no event of an end is seen without its progress."""
        if not job_ids:
            return {}
        before = {job_id: self._known.get(job_id, _Known()) for job_id in job_ids}
        latest = self._events.latest(job_ids)
        changed = [job_id for job_id in job_ids if latest.get(job_id, 0) != before[job_id].latest]
        events = self._events.of(changed) if changed else {}
        progress = self._events.progress(job_ids)
        return {job_id: _Known(events.get(job_id, before[job_id].events), progress.get(job_id)) for job_id in job_ids}

    def _turn(self) -> float:
        """Return how long one of many followers waits before it goes on, in seconds: requests get a turn in between."""
        self._turns = (self._turns + 1) % max(1, self.followers)
        return min(self._turns * APART_S, POLL_S / 2)

    def _tell(self) -> None:
        """Wake all followers."""
        self._news.set()
        self._news = asyncio.Event()
