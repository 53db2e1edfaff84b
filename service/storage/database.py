"""The SQLite file of the records: how it is opened, and brought up to date."""

from pathlib import Path
from sqlite3 import Connection as SqliteConnection

from sqlalchemy import Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool
from sqlalchemy.schema import CreateColumn

from autoprune.service.settings import SettingsError
from autoprune.service.storage.tables import JobRow, Table

BUSY_TIMEOUT_MS = 10_000


def engine_of(url: str) -> Engine:
    """Make the engine of a SQLite file.

    Raises:
        SettingsError: Not the URL of a SQLite file.

    """
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


def check_readable(engine: Engine) -> None:
    """Read a job's record over a connection of its own: those in use may go on with a file that is gone.

    Raises:
        SQLAlchemyError: The records cannot be read.

    """
    fresh = create_engine(engine.url, poolclass=NullPool)
    with fresh.connect() as connection:
        connection.execute(select(JobRow.id, JobRow.state).limit(1))


def _set_up(connection: SqliteConnection, _: ConnectionPoolEntry) -> None:
    """Let readers and one writer work at the same time, and check references."""
    for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "journal_mode = WAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def make_tables(engine: Engine) -> None:
    """Make the tables, indexes and columns that are missing; a database of an older version is brought up to date."""
    Table.metadata.create_all(engine)
    _add_columns(engine)


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
