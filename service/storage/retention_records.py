"""Which jobs, uploads and work of devices are old enough to be deleted, and their deletion from records and store."""

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from autoprune.service.storage.database import UPLOADS, hold
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState, WorkState
from autoprune.service.storage.tables import DatasetRow, DeviceWorkRow, JobRow, Json, ModelRow

Upload = ModelRow | DatasetRow

_FINAL = [state.value for state in JobState if state.is_final]
_OPEN_WORK = [WorkState.QUEUED.value, WorkState.TAKEN.value]

#: How the files end that devices measure.
_DEVICE_SUFFIX = ".onnx"

_log = logging.getLogger(__name__)


class RetentionRecords:
    """Deletes from the records, and files from the store. Safe to use from several threads and processes.

    A file goes while nobody else can send, name or delete one (:data:`UPLOADS` is held), and before its record: what a
    kill leaves is found again.
    """

    def __init__(self, records: Records, store: FileStore) -> None:
        """Delete from `records` and `store`."""
        self._session, self._store = records.sessions, store

    def old_jobs(self, before: datetime, *, after: int, limit: int) -> Sequence[JobRow]:
        """Return jobs that ended `before` a moment and that no job which has yet to run goes on from.

        These are the first `limit` behind the number `after`.
        """
        query = select(JobRow).where(JobRow.state.in_(_FINAL), JobRow.finished_at < before, JobRow.number > after)
        with self._session() as session:
            specs = session.scalars(select(JobRow.spec).where(JobRow.state.not_in(_FINAL)))
            needed = {source for spec in specs for source in _sources(spec)}
            return session.scalars(query.where(JobRow.id.not_in(needed)).order_by(JobRow.number).limit(limit)).all()

    def delete_job(self, job_id: str) -> None:
        """Delete a job that has ended, with its events, artifacts and idempotency keys."""
        with self._session.begin() as session:
            session.execute(delete(JobRow).where(JobRow.id == job_id, JobRow.state.in_(_FINAL)))

    def old_uploads(self, before: datetime) -> Sequence[Upload]:
        """Return models and datasets that were sent for the last time `before` a moment and that no job names."""
        with self._session() as session:
            models = session.scalars(select(ModelRow).where(ModelRow.created_at < before)).all()
            datasets = session.scalars(select(DatasetRow).where(DatasetRow.created_at < before)).all()
            return list(self._unneeded(session, [*models, *datasets], before))

    def delete_uploads(self, rows: Sequence[Upload], before: datetime) -> Sequence[str]:
        """Delete those of some models and datasets that are old and unnamed still; return their ids."""
        gone = []
        with self._session.begin() as session:
            hold(session, UPLOADS)
            measured = _measured(session)
            for row in self._unneeded(session, rows, before):
                kind = type(row)
                if self._is_let_go(session, row.sha256, row.suffix, measured, but=row.id):
                    session.execute(delete(kind).where(kind.id == row.id))
                    gone.append(row.id)
        return gone

    def delete_work(self, before: datetime, *, after: int, limit: int) -> Sequence[int]:
        """Delete work of devices that ended `before` a moment, and its files; return the numbers of what was looked at.

        These are the first `limit` behind the number `after`.
        """
        ended = select(DeviceWorkRow).where(
            DeviceWorkRow.state.not_in(_OPEN_WORK), DeviceWorkRow.finished_at < before, DeviceWorkRow.number > after
        )
        with self._session.begin() as session:
            hold(session, UPLOADS)
            rows = session.scalars(ended.order_by(DeviceWorkRow.number).limit(limit)).all()
            measured = _measured(session) if rows else set()
            for row in rows:
                files = [sha256 for sha256 in _files(row.work) if self._store.is_older(sha256, _DEVICE_SUFFIX, before)]
                if all(self._is_let_go(session, sha256, _DEVICE_SUFFIX, measured) for sha256 in files):
                    session.execute(delete(DeviceWorkRow).where(DeviceWorkRow.number == row.number))
            return [row.number for row in rows]

    def _unneeded(self, session: Session, rows: Sequence[Upload], before: datetime) -> Iterator[Upload]:
        """Yield those of some uploads that no job names and whose content was not sent again since `before`."""
        used = _used(session) if rows else set()
        for row in rows:
            if row.id not in used and self._store.is_older(row.sha256, row.suffix, before):
                yield row

    def _is_let_go(self, session: Session, sha256: str, suffix: str, measured: set[str], *, but: str = "") -> bool:
        """Delete a file that nobody needs, `but` for that upload; return False where it cannot be deleted."""
        uploads = [
            session.scalar(select(kind.id).where(kind.sha256 == sha256, kind.suffix == suffix, kind.id != but).limit(1))
            for kind in (ModelRow, DatasetRow)
        ]
        if uploads != [None, None] or (suffix == _DEVICE_SUFFIX and sha256 in measured):
            return True
        try:
            self._store.delete(sha256, suffix)
        except OSError as error:
            _log.error("an old file of the store cannot be deleted, so it is kept: %s", error)
            return False
        return True


def _sources(spec: Json) -> set[Any]:
    """Return the ids of the jobs that a job goes on from."""
    return {spec.get("continue_from"), (spec.get("amc") or {}).get("agent")} - {None}


def _used(session: Session) -> set[Any]:
    """Return the ids of all uploads that jobs name."""
    names = ("model", "dataset", "report_dataset")
    return {spec.get(name) for spec in session.scalars(select(JobRow.spec)) for name in names}


def _measured(session: Session) -> set[str]:
    """Return the hashes of all files that devices have yet to measure."""
    works = session.scalars(select(DeviceWorkRow.work).where(DeviceWorkRow.state.in_(_OPEN_WORK)))
    return {sha256 for work in works for sha256 in _files(work)}


def _files(work: Json) -> list[str]:
    """Return the hashes of the files that some work of a device is about."""
    return [network["sha256"] for network in work.get("networks", ())]
