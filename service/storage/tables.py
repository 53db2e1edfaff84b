"""The tables of the records, and which way a job or the work of a device may go."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a job stays in this state for ever."""
        return not _NEXT[self]

    @property
    def sources(self) -> tuple["JobState", ...]:
        """States that a job may come from."""
        return tuple(state for state, targets in _NEXT.items() if self in targets)


class JobKind(StrEnum):
    """What a job runs."""

    SEARCH = "search"
    COMPARISON = "comparison"


_NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class WorkState(StrEnum):
    """Where the work of a device is."""

    QUEUED = "queued"
    TAKEN = "taken"
    DONE = "done"
    FAILED = "failed"


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


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {Json: JSON, list[int]: JSON, datetime: UtcDateTime}  # noqa: RUF012 - SQLAlchemy's own hook


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
        crashes: How many of these attempts ended with the service that ran them, killed or out of memory.
        worker_pid: Process of the attempt that runs now.

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
    worker_pid: Mapped[int | None]
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
