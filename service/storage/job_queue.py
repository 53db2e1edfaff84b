"""The queue of jobs: who gets in."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from autoprune.service.storage.database import UPLOADS, hold
from autoprune.service.storage.errors import not_found
from autoprune.service.storage.event_records import add_event
from autoprune.service.storage.quota import Quota
from autoprune.service.storage.states import JobChange, JobKind, JobState
from autoprune.service.storage.tables import DatasetRow, JobRow, Json, ModelRow


def queue_job(session: Session, job_id: str, spec: Json, kind: JobKind, quota: Quota) -> JobRow:
    """Queue a job for the caller of a `quota`, as the first thing in the transaction of `session`.

    Raises:
        QuotaError: That caller has as many queued as it may.
        NotFoundError: An upload that `spec` names was deleted.

    """
    queue = f"autoprune queue of {quota.key_id}"  # of those who send at once, no more get in than may
    hold(session, *([] if quota.queued_jobs is None else [queue]), UPLOADS)
    _check_uploads(session, spec)
    if quota.queued_jobs is not None:
        queued = select(func.count()).where(JobRow.state == JobState.QUEUED.value, JobRow.key_id == quota.key_id)
        quota.check(session.scalar(queued) or 0)
    row = JobRow(id=job_id, spec=spec, kind=kind.value, key_id=quota.key_id)
    session.add(row)
    session.flush()  # what refers to the job comes after it
    add_event(session, job_id, JobChange.QUEUED, 0)
    return row


def _check_uploads(session: Session, spec: Json) -> None:
    """Make sure that the uploads which a job names were not deleted since it was looked at."""
    for kind, prefix, field in (
        (ModelRow, "mdl_", "model"), (DatasetRow, "dat_", "dataset"), (DatasetRow, "dat_", "report_dataset")
    ):  # fmt: skip
        name = str(spec.get(field))
        if name.startswith(prefix) and session.scalar(select(kind.id).where(kind.id == name)) is None:
            raise not_found("model" if kind is ModelRow else "dataset", name)
