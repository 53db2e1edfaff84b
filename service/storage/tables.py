"""The tables of the records, and what a key may do."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from autoprune.service.storage.states import JobKind, JobState, WorkState

Json = dict[str, Any]


class KeyScope(StrEnum):
    """What the owner of an API key may do.

    ``read``: see everything; ``write``: upload, submit and cancel; ``admin``: both, without rate limit and quota.
    """

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


def now() -> datetime:
    """Return the time that records are stamped with, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A time with its zone on both sides, although SQLite keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC, saying so."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Text(TypeDecorator[str]):
    """Text without NUL, which PostgreSQL cannot keep: the sign for what is unknown stands in its place."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL."""
        return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Table(DeclarativeBase):
    """Base of all tables; whole numbers have 64 bits, of which SQLite calls any ``INTEGER``."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own hook
        Json: JSON,
        list[int]: JSON,
        list[str]: JSON,
        datetime: UtcDateTime,
        str: Text,
        int: BigInteger().with_variant(Integer, "sqlite"),
    }


class FactRow(Table):
    """One thing that holds for all the records, by its name."""

    __tablename__ = "facts"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ModelRow(Table):
    """One uploaded model: a file of the store, and what it was read as."""

    __tablename__ = "models"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    sha256: Mapped[str]
    suffix: Mapped[str]
    size_bytes: Mapped[int]
    architecture: Mapped[str | None]
    num_classes: Mapped[int | None]
    zoo_input_shape: Mapped[list[int] | None]
    facts: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=now)


class DatasetRow(Table):
    """One uploaded dataset: a file of the store, and what is in it."""

    __tablename__ = "datasets"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    sha256: Mapped[str]
    suffix: Mapped[str]
    size_bytes: Mapped[int]
    facts: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=now)


class JobRow(Table):
    """One job.

    Attributes:
        kind: What it runs, and so what its spec is of.
        attempts: How often a worker was started; a worker of an earlier attempt may no longer write.
        crashes: How many of these attempts ended with the service that ran them, since the job last got further.
        deaths: How many ended because the job's own process died, since the job last got further.
        journaled: Evaluations in the job's journal when an attempt was last lost; with more of them it got further.
        runner: Who has claimed the latest attempt, as ``host/0``.
        worker_pid: Process of the attempt that runs now.
        key_id: API key that submitted it; null where the service asks for none.

    """

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_by_state", "state", "number"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(default=JobKind.SEARCH.value, server_default=JobKind.SEARCH.value)
    state: Mapped[str] = mapped_column(default=JobState.QUEUED.value)
    spec: Mapped[Json]
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0, server_default="0")
    deaths: Mapped[int] = mapped_column(default=0, server_default="0")
    journaled: Mapped[int] = mapped_column(default=0, server_default="0")
    runner: Mapped[str | None]
    worker_pid: Mapped[int | None]
    key_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ArtifactRow(Table):
    """One file that a finished job left."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int]
    media_type: Mapped[str]


class JobEventRow(Table):
    """One change of a job's state, written with the change.

    Attributes:
        id: Grows, and is never given twice. A change holds its job's row, so that the events of one job can be read in
            the order of their ids while others are written.
        state: A :class:`JobChange`: the state that the job came to, and how.
        attempt: The job's latest attempt at that time; 0 before the first.
        detail: ``error_type`` of a failure; ``crashed`` where the service that ran the attempt had ended, ``died``
            where the job's own process had.

    """

    __tablename__ = "job_events"
    __table_args__ = (Index("job_events_by_job", "job_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    state: Mapped[str]
    attempt: Mapped[int]
    detail: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(default=now)


class SubmissionKeyRow(Table):
    """One ``Idempotency-Key``, and the job that it was first sent with; of two who send it at once, one gets in.

    Attributes:
        caller: Id of the API key that it came with, or empty: keys of two callers have nothing to do with each other.

    """

    __tablename__ = "submission_keys"

    caller: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)


class DeviceRow(Table):
    """One device that asked for work or got some."""

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime | None]


class DeviceWorkRow(Table):
    """One piece of work for a device.

    Attributes:
        work: What is to be measured, as in :mod:`autoprune.latency_tables.work`.
        attempts: How often it was given out.
        taken_until: When it is given out again if no result has come; null while it is queued.
        result: What the device measured; null until it is done.
        error: Why the device could not measure it.

    """

    __tablename__ = "device_work"
    __table_args__ = (Index("device_work_by_state", "device", "state", "number"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.name"))
    state: Mapped[str] = mapped_column(default=WorkState.QUEUED.value)
    work: Mapped[Json]
    result: Mapped[Json | None]
    error: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    taken_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class KeyRow(Table):
    """One API key.

    Attributes:
        id: The public part of its token, by which it is found.
        token_sha256: Of the whole token, in hexadecimal; the token itself is nowhere.
        scopes: Values of :class:`KeyScope`.
        last_used_at: To the minute.
        revoked_at: Null while the key is active.

    """

    __tablename__ = "api_keys"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    token_sha256: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    def allows(self, scope: KeyScope) -> bool:
        """Tell whether the key has `scope`, or all of them."""
        return scope in self.scopes or KeyScope.ADMIN in self.scopes
