"""The records of models, datasets, jobs and artifacts, kept by SQLAlchemy in one SQLite file or in PostgreSQL."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Engine, case, func, select, update
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session, sessionmaker

from autoprune.service.settings import SettingsError
from autoprune.service.storage.cursor import behind
from autoprune.service.storage.database import UPLOADS, check_readable, check_undamaged, engine_of, hold, shown
from autoprune.service.storage.errors import JobStateError, not_found
from autoprune.service.storage.event_records import add_event
from autoprune.service.storage.job_queue import queue_job
from autoprune.service.storage.losses import Loss
from autoprune.service.storage.quota import NO_QUOTA, Quota
from autoprune.service.storage.states import JobChange, JobKind, JobState
from autoprune.service.storage.tables import ArtifactRow, DatasetRow, JobRow, Json, ModelRow, now

Row = TypeVar("Row", ModelRow, DatasetRow)


class Records:
    """All records of one service.

    Safe to use from several threads and processes. Every method is one transaction; rows it returns are copies, so
    changing one changes nothing.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        """Open the records at a SQLAlchemy `url`; with `create`, bring its tables up to date.

        Raises:
            SettingsError: Neither a SQLite file nor a PostgreSQL database, or one that cannot be used as it is.

        """
        self._engine = engine_of(url)
        self._session = sessionmaker(self._engine, expire_on_commit=False)
        try:
            if create:
                from autoprune.service.storage.migrate import bring_up_to_date  # imports Alembic, which takes its time

                check_undamaged(self._engine)
                bring_up_to_date(self._engine)
            self.check()
        except DatabaseError as error:
            self._engine.dispose()
            cause = " ".join(str(error.orig).split())  # one line
            raise SettingsError(
                f"the records at {shown(self._engine.url)} cannot be used ({cause}); set AUTOPRUNE_DB"
            ) from error
        except SettingsError:
            self._engine.dispose()
            raise

    @property
    def engine(self) -> Engine:
        """What connects to the database of these records."""
        return self._engine

    @property
    def sessions(self) -> sessionmaker[Session]:
        """What opens transactions on these records, for the records of devices beside them."""
        return self._session

    def check(self) -> None:
        """Make sure that the records can be read.

        Raises:
            SQLAlchemyError: They cannot.

        """
        check_readable(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, row: Row, *, keep: Callable[[], object] = lambda: None) -> tuple[Row, bool]:
        """Add a model or dataset, after `keep` has put its file into the store, which nobody deletes from meanwhile.

        Returns its row, and whether it is new: where its id exists, that row is returned.
        """
        kind = type(row)
        with self._session.begin() as session:
            hold(session, UPLOADS)
            keep()
            known = session.scalar(select(kind).where(kind.id == row.id))
            if known is not None:
                return known, False
            session.add(row)
        return row, True

    def find(self, kind: type[Row], row_id: str) -> Row:
        """Return one model or dataset.

        Raises:
            NotFoundError: No such id.

        """
        with self._session() as session:
            row = session.scalar(select(kind).where(kind.id == row_id))
        if row is None:
            raise not_found("model" if kind is ModelRow else "dataset", row_id)
        return row

    def all(self, kind: type[Row], *, limit: int = 1000, after: str | None = None) -> Sequence[Row]:
        """Return the newest `limit` models or datasets, newest first; with `after`, an id, those added before that one.

        Raises:
            CursorError: Nothing of this kind has the id `after`.

        """
        query = select(kind).order_by(kind.number.desc()).limit(limit)
        with self._session() as session:
            return session.scalars(behind(session, query, kind, after)).all()

    def add_job(self, job_id: str, spec: Json, *, kind: JobKind = JobKind.SEARCH, quota: Quota = NO_QUOTA) -> JobRow:
        """Queue a job for the caller of a `quota`.

        Raises:
            QuotaError: That caller has as many queued as it may.
            NotFoundError: An upload that `spec` names was deleted.

        """
        with self._session.begin() as session:
            return queue_job(session, job_id, spec, kind, quota)

    def job(self, job_id: str, kind: JobKind | None = None) -> JobRow:
        """Return one job, of this kind if one is given.

        Raises:
            NotFoundError: No such id, or that of another kind.

        """
        with self._session() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job_id))
        if row is None or kind not in (None, row.kind):
            raise not_found("job" if kind in (None, JobKind.SEARCH) else kind.value, job_id)
        return row

    def jobs(
        self,
        *,
        kind: JobKind | None = None,
        state: JobState | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Sequence[JobRow]:
        """Return the newest `limit` jobs, newest first, of one kind or state or of all.

        With `after`, an id, only those added before that job.

        Raises:
            CursorError: No job has the id `after`.

        """
        query = select(JobRow).order_by(JobRow.number.desc()).limit(limit)
        if kind is not None:
            query = query.where(JobRow.kind == kind.value)
        if state is not None:
            query = query.where(JobRow.state == state.value)
        with self._session() as session:
            return session.scalars(behind(session, query, JobRow, after)).all()

    def running(self, runner: str | None = None) -> Sequence[JobRow]:
        """Return the jobs that run, oldest first: all of them, or those that `runner` has."""
        query = select(JobRow).where(JobRow.state == JobState.RUNNING.value).order_by(JobRow.number)
        if runner is not None:
            query = query.where(JobRow.runner == runner)
        with self._session() as session:
            return session.scalars(query).all()

    def counts(self) -> Mapping[JobState, int]:
        """Return how many jobs are in each state, of all kinds."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        with self._session() as session:
            found = dict(session.execute(query).all())
        return {state: found.get(state.value, 0) for state in JobState}

    def claim(self, runner: str | None = None) -> JobRow | None:
        """Move the oldest queued job to running, by `runner`, and return it; None where nothing is queued.

        A job that somebody else is claiming or cancelling at this moment is passed over.
        """
        moment = now()  # the statement may have to wait, meanwhile a job may be added
        begun = case((JobRow.created_at > moment, JobRow.created_at), else_=moment)
        queued = select(JobRow.number).where(JobRow.state == JobState.QUEUED.value)
        oldest = queued.order_by(JobRow.number).limit(1).with_for_update(skip_locked=True)  # SQLite has one writer
        claim = (
            update(JobRow)
            .where(JobRow.number == oldest.scalar_subquery(), JobRow.state == JobState.QUEUED.value)
            .values(
                state=JobState.RUNNING.value,
                attempts=JobRow.attempts + 1,
                started_at=func.coalesce(JobRow.started_at, begun),
                runner=runner,
                worker_pid=None,
            )
            .returning(JobRow.id, JobRow.attempts)
        )
        with self._session.begin() as session:
            claimed = session.execute(claim.execution_options(synchronize_session=False)).first()
            if claimed is not None:
                add_event(session, claimed.id, JobChange.RUNNING, claimed.attempts)
        return None if claimed is None else self.job(claimed.id)

    def move(
        self,
        job_id: str,
        state: JobState,
        *,
        attempt: int | None = None,
        error: Json | None = None,
        artifacts: Sequence[ArtifactRow] = (),
        loss: Loss | None = None,
    ) -> bool:
        """Move a job to `state` with its error or artifacts, if it may go there; return whether it did.

        With `attempt`, only while that attempt is the job's latest. Of several who try to finish a job, one wins.
        A `loss` counts the attempt as one that was lost, in the same statement: never twice.
        """
        values: Json = {"state": state.value, "worker_pid": None, "error": error}
        if state.is_final:
            values["finished_at"] = now()
        if loss is not None:
            values |= {"crashes": loss.crashes, "deaths": loss.deaths, "journaled": loss.journaled}
        query = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_([source.value for source in state.sources]))
        if attempt is not None:
            query = query.where(JobRow.attempts == attempt)
        with self._session.begin() as session:
            moved = session.execute(query.values(**values).returning(JobRow.attempts)).first()
            if moved is not None:
                session.add_all(artifacts)
                change = JobChange.REQUEUED if state is JobState.QUEUED else JobChange(state)
                add_event(session, job_id, change, moved.attempts, error=error, loss=loss)
        return moved is not None

    def request_cancel(self, job_id: str) -> JobRow:
        """Cancel a queued job at once, or ask for the end of a running one; a job that ended stays as it is.

        Raises:
            NotFoundError: No such id.
            JobStateError: The job has succeeded or failed already.

        """
        queued = JobRow.state == JobState.QUEUED.value  # one statement: a job may be claimed or queued again meanwhile
        values = {
            "cancel_requested": True,
            "state": case((queued, JobState.CANCELLED.value), else_=JobRow.state),
            "finished_at": case((queued, now()), else_=JobRow.finished_at),
        }
        running = (JobRow.state == JobState.RUNNING.value) & ~JobRow.cancel_requested
        query = update(JobRow).where(JobRow.id == job_id, queued | running).values(**values)
        with self._session.begin() as session:
            asked = session.execute(query.returning(JobRow.state, JobRow.attempts)).first()
            if asked is not None:
                cancelled = asked.state == JobState.CANCELLED
                change = JobChange.CANCELLED if cancelled else JobChange.CANCEL_REQUESTED
                add_event(session, job_id, change, asked.attempts)
        row = self.job(job_id)
        if row.state in (JobState.SUCCEEDED, JobState.FAILED):
            raise JobStateError(f"job {job_id} has {row.state} already; only queued and running jobs can be cancelled")
        return row

    def report(self, job_id: str, attempt: int, *, progress: Json | None = None, worker_pid: int | None = None) -> None:
        """Write the progress or the process of a running attempt; does nothing once another is the latest."""
        given = {"progress": progress, "worker_pid": worker_pid}
        values = {name: value for name, value in given.items() if value is not None}
        query = update(JobRow).where(
            JobRow.id == job_id, JobRow.attempts == attempt, JobRow.state == JobState.RUNNING.value
        )
        with self._session.begin() as session:
            session.execute(query.values(**values))

    def artifacts(self, job_id: str) -> Sequence[ArtifactRow]:
        """Return the artifacts of a job by name; none before it has succeeded."""
        with self._session() as session:
            query = select(ArtifactRow).where(ArtifactRow.job_id == job_id).order_by(ArtifactRow.name)
            return session.scalars(query).all()
