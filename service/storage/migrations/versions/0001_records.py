"""The tables of models, datasets, jobs, devices and API keys.

Databases from before there were revisions have some of these tables, and not all columns; what they lack is added.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)

_metadata = sa.MetaData()

_models = sa.Table(
    "models",
    _metadata,
    sa.Column("number", _INTEGER, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("suffix", sa.String, nullable=False),
    sa.Column("size_bytes", _INTEGER, nullable=False),
    sa.Column("architecture", sa.String),
    sa.Column("num_classes", _INTEGER),
    sa.Column("zoo_input_shape", sa.JSON),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
)

_datasets = sa.Table(
    "datasets",
    _metadata,
    sa.Column("number", _INTEGER, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("suffix", sa.String, nullable=False),
    sa.Column("size_bytes", _INTEGER, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
)

_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("number", _INTEGER, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("kind", sa.String, nullable=False, server_default="search"),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("progress", sa.JSON),
    sa.Column("error", sa.JSON),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("attempts", _INTEGER, nullable=False),
    sa.Column("crashes", _INTEGER, nullable=False, server_default="0"),
    sa.Column("worker_pid", _INTEGER),
    sa.Column("key_id", sa.String),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("started_at", _TIME),
    sa.Column("finished_at", _TIME),
    sa.Index("jobs_by_state", "state", "number"),
)

_artifacts = sa.Table(
    "artifacts",
    _metadata,
    sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("sha256", sa.String, nullable=False),
    sa.Column("size_bytes", _INTEGER, nullable=False),
    sa.Column("media_type", sa.String, nullable=False),
)

_events = sa.Table(
    "job_events",
    _metadata,
    sa.Column("id", _INTEGER, primary_key=True),
    sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("attempt", _INTEGER, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Index("job_events_by_job", "job_id", "id"),
    sqlite_autoincrement=True,
)

_submission_keys = sa.Table(
    "submission_keys",
    _metadata,
    sa.Column("caller", sa.String, primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
)

_devices = sa.Table(
    "devices",
    _metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("seen_at", _TIME),
)

_device_work = sa.Table(
    "device_work",
    _metadata,
    sa.Column("number", _INTEGER, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("device", sa.String, sa.ForeignKey("devices.name"), nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("work", sa.JSON, nullable=False),
    sa.Column("result", sa.JSON),
    sa.Column("error", sa.String),
    sa.Column("attempts", _INTEGER, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("taken_until", _TIME),
    sa.Column("finished_at", _TIME),
    sa.Index("device_work_by_state", "device", "state", "number"),
)

_api_keys = sa.Table(
    "api_keys",
    _metadata,
    sa.Column("number", _INTEGER, primary_key=True),
    sa.Column("id", sa.String, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("token_sha256", sa.String, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("last_used_at", _TIME),
    sa.Column("revoked_at", _TIME),
)


def upgrade() -> None:
    """Make what is missing."""
    connection = op.get_bind()
    _metadata.create_all(connection)
    known = sa.inspect(connection).get_multi_columns()
    for table in _metadata.sorted_tables:
        there = {column["name"] for column in known[None, table.name]}
        for column in table.columns:
            if column.name not in there:  # each has a default in the database, or may be null
                op.add_column(table.name, column)
    _tell_of_jobs_without_events(connection)


def _tell_of_jobs_without_events(connection: sa.Connection) -> None:
    """Give each job whose state was recorded by a version without events one that tells it."""
    columns = ["job_id", "state", "attempt", "detail", "created_at"]
    moment = sa.func.coalesce(_jobs.c.finished_at, _jobs.c.started_at, _jobs.c.created_at)
    told = sa.exists().where(_events.c.job_id == _jobs.c.id, _events.c.state == _jobs.c.state)
    jobs = sa.select(_jobs.c.id, _jobs.c.state, _jobs.c.attempts, sa.literal({}, sa.JSON()), moment).where(~told)
    connection.execute(_events.insert().from_select(columns, jobs.order_by(_jobs.c.number)))
