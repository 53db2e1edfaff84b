"""The database of the records, a SQLite file or PostgreSQL: how it is opened."""

from collections.abc import Mapping
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from typing import Any

from sqlalchemy import Engine, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from autoprune.service.settings import SettingsError
from autoprune.service.storage.tables import JobRow, Table

BUSY_TIMEOUT_MS = 10_000

#: What is held (:func:`hold`) by those who keep files in the store, queue what names them, or delete them.
UPLOADS = "autoprune uploads"

#: Errors of a database that is away, which may pass.
AWAY = (OperationalError, InterfaceError)

#: What libpq is told of each connection, unless the URL says otherwise: how long PostgreSQL may take to accept it, in
#: seconds, and that a machine that no longer answers is noticed within half a minute.
_CONNECTION: Mapping[str, Any] = {
    "application_name": "autoprune",
    "connect_timeout": 5,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

#: What to do about records that are damaged.
RESTORE = "put a copy in their place, move the file away to begin with none, or set AUTOPRUNE_DB"

_EXPECTED = "AUTOPRUNE_DB: expected sqlite:///path/to/file or postgresql://user:password@host/database"

#: What PostgreSQL's URLs begin with; all of them mean psycopg 3.
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


def engine_of(url: str) -> Engine:
    """Make the engine of a SQLite file or of a PostgreSQL database; nothing is connected yet.

    Raises:
        SettingsError: Not the URL of one.

    """
    try:
        parsed = make_url(url)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise SettingsError(f"{_EXPECTED}, found something that is no URL") from error
    if parsed.drivername in _POSTGRES and parsed.database:
        return _postgres(parsed.set(drivername="postgresql+psycopg"))
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise SettingsError(f"{_EXPECTED}, found {shown(parsed)}")
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed)
    event.listen(engine, "connect", _set_up)
    return engine


def with_password(url: str, password: str | None) -> str:
    """Return the URL of the records with a `password`, where it is PostgreSQL's and names none itself."""
    parsed = make_url(url)
    if not password or parsed.drivername not in _POSTGRES or parsed.password or "password" in parsed.query:
        return url
    return parsed.update_query_dict({"password": password}).render_as_string(hide_password=False)


def shown(url: URL) -> str:
    """Return a URL as it may be printed: without its password, which may also stand among its options."""
    return url.set(query={}).render_as_string(hide_password=True)


def check_readable(engine: Engine) -> None:
    """Read a job's record; from SQLite over a connection of its own: those in use may go on with a file that is gone.

    Raises:
        SQLAlchemyError: The records cannot be read.

    """
    fresh = create_engine(engine.url, poolclass=NullPool) if engine.dialect.name == "sqlite" else engine
    with fresh.connect() as connection:
        connection.execute(select(JobRow.id, JobRow.state).limit(1))


def check_undamaged(engine: Engine) -> None:
    """Look through a SQLite file for damage; PostgreSQL sees to its files itself.

    Raises:
        SettingsError: It is damaged.
        SQLAlchemyError: It cannot be read.

    """
    if engine.dialect.name != "sqlite":
        return
    with engine.connect() as connection:
        found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if found != "ok":
        cause = " ".join(found.split())
        raise SettingsError(f"the records at {shown(engine.url)} are damaged ({cause}); {RESTORE}")


def insert_into(session: Session, row: type[Table]) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that can be told what to do where the row is there already."""
    return postgresql.insert(row) if session.get_bind().dialect.name == "postgresql" else sqlite.insert(row)


def hold(session: Session, *names: str) -> None:
    """Let no other transaction hold one of `names` until that of `session` ends; it must not have begun yet.

    Who holds several names them in the same order as everybody else.
    """
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # there is one writer
        return
    for name in names:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def reason(error: SQLAlchemyError) -> str:
    """Say why the records cannot be used, in words for anybody: nothing of PostgreSQL's address or users."""
    cause = getattr(error, "orig", None)
    if type(cause).__module__.startswith("psycopg"):
        code = getattr(cause, "sqlstate", None)
        return "PostgreSQL does not answer" if code is None else f"PostgreSQL answers with error {code}"
    return str(cause or type(error).__name__)


def _postgres(url: URL) -> Engine:
    """Make the engine of a PostgreSQL database; connections that have died meanwhile are replaced before use."""
    given = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    return create_engine(url, connect_args=given, pool_pre_ping=True, isolation_level="READ COMMITTED")


def _set_up(connection: SqliteConnection, _: ConnectionPoolEntry) -> None:
    """Let readers and one writer work at the same time, and check references."""
    for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "journal_mode = WAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
