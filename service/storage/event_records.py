"""What happened to jobs: one event for every change of state, written in the transaction of the change."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, sessionmaker

from autoprune.service.storage.losses import Loss
from autoprune.service.storage.states import JobChange
from autoprune.service.storage.tables import JobEventRow, JobRow, Json

_log = logging.getLogger(__name__)


class EventRecords:
    """The events of jobs, for those who follow them. Safe to use from several threads and processes."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        """Read from the database of `sessions`."""
        self._session = sessions

    def latest(self, job_ids: Collection[str]) -> Mapping[str, int]:
        """Return the id of the latest event of each of these jobs."""
        query = select(JobEventRow.job_id, func.max(JobEventRow.id)).where(JobEventRow.job_id.in_(job_ids))
        with self._session() as session:
            return dict(session.execute(query.group_by(JobEventRow.job_id)).all())

    def of(self, job_ids: Collection[str]) -> Mapping[str, Sequence[JobEventRow]]:
        """Return all events of each of these jobs, oldest first."""
        query = select(JobEventRow).where(JobEventRow.job_id.in_(job_ids)).order_by(JobEventRow.id)
        found = defaultdict[str, list[JobEventRow]](list)
        with self._session() as session:
            for row in session.scalars(query):
                found[row.job_id].append(row)
        return found

    def progress(self, job_ids: Collection[str]) -> Mapping[str, Json | None]:
        """Return the latest progress of each of these jobs; None before the first report."""
        query = select(JobRow.id, JobRow.progress).where(JobRow.id.in_(job_ids))
        with self._session() as session:
            return dict(session.execute(query).all())


def add_event(
    session: Session,
    job_id: str,
    change: JobChange,
    attempt: int,
    *,
    error: Mapping[str, Any] | None = None,
    loss: Loss | None = None,
) -> None:
    """Add the event of a change that `session` makes, and log it; `error` is that of the job, with its ``type``."""
    detail: Json = {}
    if error is not None:
        detail["error_type"] = error["type"]
    if loss is not None:
        detail["died" if loss.died else "crashed"] = True
    session.add(JobEventRow(job_id=job_id, state=change.value, attempt=attempt, detail=detail))
    fields = {"job_id": job_id, "state": change.value, "attempt": attempt, **detail}
    event.listen(session, "after_commit", lambda _: _log.info("job change", extra=fields), once=True)
