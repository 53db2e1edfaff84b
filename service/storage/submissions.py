"""Jobs that are submitted under a key of the client's, so that a request sent twice makes one job."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from autoprune.errors import AutopruneError
from autoprune.service.storage.job_queue import queue_job
from autoprune.service.storage.quota import Quota
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobKind
from autoprune.service.storage.tables import JobRow, Json, SubmissionKeyRow, now

#: How long a key stands for the job that it was first sent with.
KEPT_FOR = timedelta(hours=24)

MAX_KEY_LENGTH = 255


class IdempotencyError(AutopruneError):
    """A key was sent again, but with another job."""


class Submissions:
    """Queues jobs, each key's once. Safe to use from several threads and processes."""

    def __init__(self, records: Records, quota: Quota) -> None:
        """Queue into `records` for the caller of a `quota`; another caller's keys are others."""
        self._records, self._quota = records, quota

    def known(self, spec: Json, kind: JobKind, key: str | None) -> JobRow | None:
        """Return the job that was queued under `key`; None where there is none or no key.

        Raises:
            IdempotencyError: That job has another `spec`.

        """
        if key is None:
            return None
        query = (
            select(JobRow)
            .join(SubmissionKeyRow, SubmissionKeyRow.job_id == JobRow.id)
            .where(
                SubmissionKeyRow.caller == _caller(self._quota),
                SubmissionKeyRow.kind == kind.value,
                SubmissionKeyRow.key == key,
                SubmissionKeyRow.created_at > now() - KEPT_FOR,
            )
        )
        with self._records.sessions() as session:
            row = session.scalar(query)
        if row is not None and row.spec != spec:
            raise IdempotencyError(
                f"expected the settings that the Idempotency-Key {key!r} was first sent with (job {row.id}), "
                "found others; send another key with another job"
            )
        return row

    def add(self, job_id: str, spec: Json, kind: JobKind, key: str | None) -> tuple[JobRow, bool]:
        """Queue a job under `key`; return it, and whether it is new: a request at the same time may have been faster.

        Raises:
            IdempotencyError: That request has queued another job.
            QuotaError: The caller has as many queued as it may.
            NotFoundError: An upload that the job names was deleted.

        """
        try:
            with self._records.sessions.begin() as session:
                row = queue_job(session, job_id, spec, kind, self._quota)
                if key is not None:
                    _keep(session, _caller(self._quota), key, row)
        except IntegrityError:
            known = self.known(spec, kind, key)
            if known is None:
                raise
            return known, False
        return row, True


def _caller(quota: Quota) -> str:
    """Return whose keys these are: those of an API key, or of all who come without one."""
    return quota.key_id or ""


def _keep(session: Session, caller: str, key: str, row: JobRow) -> None:
    """Let a caller's `key` stand for a job, and forget those that are too old."""
    session.execute(delete(SubmissionKeyRow).where(SubmissionKeyRow.created_at <= now() - KEPT_FOR))
    session.add(SubmissionKeyRow(caller=caller, kind=row.kind, key=key, job_id=row.id))
