"""Which jobs and uploads are old enough to be deleted, and their deletion from the records."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import DatasetRow, JobRow, JobState, Json, ModelRow

Upload = ModelRow | DatasetRow

_FINAL = [state.value for state in JobState if state.is_final]


class RetentionRecords:
    """Deletes from the records. Safe to use from several threads and processes."""

    def __init__(self, records: Records) -> None:
        """Delete from `records`."""
        self._session = records.sessions

    def old_jobs(self, before: datetime, limit: int) -> Sequence[str]:
        """Return the ids of jobs that ended `before` a moment and that no job which has yet to run goes on from."""
        query = select(JobRow.id).where(JobRow.state.in_(_FINAL), JobRow.finished_at < before)
        with self._session() as session:
            specs = session.scalars(select(JobRow.spec).where(JobRow.state.not_in(_FINAL)))
            needed = {source for spec in specs for source in _sources(spec)}
            return session.scalars(query.where(JobRow.id.not_in(needed)).order_by(JobRow.number).limit(limit)).all()

    def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, with its events, artifacts and idempotency keys."""
        with self._session.begin() as session:
            session.execute(delete(JobRow).where(JobRow.id == job_id, JobRow.state.in_(_FINAL)))

    def old_uploads(self, before: datetime) -> Sequence[Upload]:
        """Return models and datasets that were added `before` a moment and that no job names."""
        with self._session() as session:
            used = _used(session)
            models = session.scalars(select(ModelRow).where(ModelRow.created_at < before)).all()
            datasets = session.scalars(select(DatasetRow).where(DatasetRow.created_at < before)).all()
        found: list[Upload] = [*models, *datasets]
        return [row for row in found if row.id not in used]

    def delete_upload(self, row: Upload) -> bool:
        """Delete a model or dataset that no job names; return whether its file belongs to nobody now."""
        kind = type(row)
        with self._session.begin() as session:
            if row.id in _used(session):
                return False
            session.execute(delete(kind).where(kind.id == row.id))
            others = [
                session.scalar(select(other.id).where(other.sha256 == row.sha256, other.suffix == row.suffix).limit(1))
                for other in (ModelRow, DatasetRow)
            ]
        return others == [None, None]


def _sources(spec: Json) -> set[Any]:
    """Return the ids of the jobs that a job goes on from."""
    return {spec.get("continue_from"), (spec.get("amc") or {}).get("agent")} - {None}


def _used(session: Session) -> set[Any]:
    """Return the ids of all uploads that jobs name."""
    names = ("model", "dataset", "report_dataset")
    return {spec.get(name) for spec in session.scalars(select(JobRow.spec)) for name in names}
