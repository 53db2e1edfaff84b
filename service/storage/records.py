"""The records of models, datasets, jobs and artifacts, kept by SQLAlchemy in one SQLite file."""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import TypeVar

from sqlalchemy import Engine, case, create_engine, event, func, inspect, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateColumn

from autoprune.errors import AutopruneError
from autoprune.service.settings import SettingsError
from autoprune.service.storage.tables import (
    ArtifactRow,
    DatasetRow,
    JobKind,
    JobRow,
    JobState,
    Json,
    ModelRow,
    Table,
    now,
)

Row = TypeVar("Row", ModelRow, DatasetRow)

BUSY_TIMEOUT_MS = 10_000


class NotFoundError(AutopruneError):
    """No record has this id."""


class JobStateError(AutopruneError):
    """A job is not in a state in which it can do what was asked."""


class Records:
    """All records of one service.

    Safe to use from several threads and processes. Every method is one transaction; rows it returns are copies, so
    changing one changes nothing.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        """Open the records at a SQLAlchemy `url`; with `create`, make the tables that are missing.

        Raises:
            SettingsError: Not a SQLite file, or one that cannot be opened or is damaged.

        """
        self._engine = _engine(url)
        self._session = sessionmaker(self._engine, expire_on_commit=False)
        try:
            if create:
                Table.metadata.create_all(self._engine)
                _add_columns(self._engine)
            with self._session() as session:
                session.scalar(select(func.count()).select_from(JobRow))
        except DatabaseError as error:
            self._engine.dispose()
            raise SettingsError(f"the records at {url} cannot be used ({error.orig}); set AUTOPRUNE_DB") from error

    @property
    def sessions(self) -> sessionmaker[Session]:
        """What opens transactions on these records, for the records of devices beside them."""
        return self._session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def add(self, row: Row) -> tuple[Row, bool]:
        """Add a model or dataset; return its row, and whether it is new: where its id exists, that row is returned."""
        kind = type(row)
        try:
            with self._session.begin() as session:
                session.add(row)
        except IntegrityError:
            return self.find(kind, row.id), False
        return row, True

    def find(self, kind: type[Row], row_id: str) -> Row:
        """Return one model or dataset.

        Raises:
            NotFoundError: No such id.

        """
        with self._session() as session:
            row = session.scalar(select(kind).where(kind.id == row_id))
        if row is None:
            raise _not_found("model" if kind is ModelRow else "dataset", row_id)
        return row

    def all(self, kind: type[Row], *, limit: int = 1000) -> Sequence[Row]:
        """Return the newest `limit` models or datasets, newest first."""
        with self._session() as session:
            return session.scalars(select(kind).order_by(kind.number.desc()).limit(limit)).all()

    def add_job(self, job_id: str, spec: Json, *, kind: JobKind = JobKind.SEARCH) -> JobRow:
        """Queue a job."""
        row = JobRow(id=job_id, spec=spec, kind=kind.value)
        with self._session.begin() as session:
            session.add(row)
        return row

    def job(self, job_id: str, kind: JobKind | None = None) -> JobRow:
        """Return one job, of this kind if one is given.

        Raises:
            NotFoundError: No such id, or that of another kind.

        """
        with self._session() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job_id))
        if row is None or kind not in (None, row.kind):
            raise _not_found("comparison" if kind is JobKind.COMPARISON else "job", job_id)
        return row

    def jobs(self, *, kind: JobKind | None = None, state: JobState | None = None, limit: int = 100) -> Sequence[JobRow]:
        """Return the newest `limit` jobs, newest first, of one kind or state or of all."""
        query = select(JobRow).order_by(JobRow.number.desc()).limit(limit)
        if kind is not None:
            query = query.where(JobRow.kind == kind.value)
        if state is not None:
            query = query.where(JobRow.state == state.value)
        with self._session() as session:
            return session.scalars(query).all()

    def claim(self) -> JobRow | None:
        """Move the oldest queued job to running and return it; None where nothing is queued."""
        oldest = select(func.min(JobRow.number)).where(JobRow.state == JobState.QUEUED.value).scalar_subquery()
        claim = (
            update(JobRow)
            .where(JobRow.number == oldest, JobRow.state == JobState.QUEUED.value)
            .values(
                state=JobState.RUNNING.value,
                attempts=JobRow.attempts + 1,
                started_at=func.coalesce(JobRow.started_at, now()),
                worker_pid=None,
            )
            .returning(JobRow.id)
        )
        with self._session.begin() as session:
            job_id = session.scalar(claim.execution_options(synchronize_session=False))
        return None if job_id is None else self.job(job_id)

    def move(
        self,
        job_id: str,
        state: JobState,
        *,
        attempt: int | None = None,
        error: Json | None = None,
        artifacts: Sequence[ArtifactRow] = (),
        crashed: bool = False,
    ) -> bool:
        """Move a job to `state` with its error or artifacts, if it may go there; return whether it did.

        With `attempt`, only while that attempt is the job's latest. Of several who try to finish a job, one wins.
        `crashed` counts the attempt as one that ended with its service, in the same statement: never twice.
        """
        values: Json = {"state": state.value, "worker_pid": None, "error": error}
        if state.is_final:
            values["finished_at"] = now()
        if crashed:
            values["crashes"] = JobRow.crashes + 1
        query = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_([source.value for source in state.sources]))
        if attempt is not None:
            query = query.where(JobRow.attempts == attempt)
        with self._session.begin() as session:
            moved = session.execute(query.values(**values).returning(JobRow.id)).first() is not None
            if moved:
                session.add_all(artifacts)
        return moved

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
        open_states = [JobState.QUEUED.value, JobState.RUNNING.value]
        with self._session.begin() as session:
            session.execute(update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(open_states)).values(**values))
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


def _engine(url: str) -> Engine:
    """Make the engine of a SQLite file."""
    try:
        parsed = make_url(url)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise SettingsError(f"AUTOPRUNE_DB: expected sqlite:///path/to/file, found {url!r}") from error
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        found = parsed.render_as_string(hide_password=True)
        raise SettingsError(f"AUTOPRUNE_DB: expected a SQLite file, sqlite:///path/to/file, found {found!r}")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed)
    event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: SqliteConnection, _: ConnectionPoolEntry) -> None:
    """Let readers and one writer work at the same time, and check references."""
    for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "journal_mode = WAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _add_columns(engine: Engine) -> None:
    """Add the columns that these records, made by an older version, lack; each has a default in the database."""
    known = inspect(engine)
    for table in Table.metadata.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                added = CreateColumn(column).compile(engine)
                with engine.begin() as connection:
                    connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {added}"))


def _not_found(kind: str, row_id: str) -> NotFoundError:
    """Say what was not found."""
    return NotFoundError(f"no {kind} has the id {row_id[:100]!r}; GET /v1/{kind}s lists them")
