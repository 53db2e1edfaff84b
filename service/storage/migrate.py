"""Brings the tables of the records up to date: once, whoever comes first, and all of it or nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine

from autoprune.service.settings import SettingsError
from autoprune.service.storage.database import shown

#: What those who change the tables of one PostgreSQL database wait for.
_LOCK = 0x6175746F7072756E

_log = logging.getLogger(__name__)


def bring_up_to_date(engine: Engine) -> None:
    """Make or change the tables as this version needs them; of several who try at once, one does and the others wait.

    Raises:
        SettingsError: A newer version has changed these tables.
        SQLAlchemyError: The database cannot be used.

    """
    config = Config()
    config.set_main_option("script_location", "autoprune.service.storage:migrations")
    with engine.connect() as connection:
        if _is_current(connection, config):
            return
    with alone(engine) as connection:
        if not _is_current(connection, config):
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _log.info("tables brought up to date", extra={"database": shown(connection.engine.url)})


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """Lend a connection whose transaction nobody else can be in at the same time; changes of tables are part of it."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.detach()  # closed at the end, since no other must do without the check of references
            connection.exec_driver_sql(
                "PRAGMA foreign_keys = OFF"
            )  # a table that is replaced must not take others along
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        yield connection
        connection.commit()


def _is_current(connection: Connection, config: Config) -> bool:
    """Tell whether the tables are those of the newest revision that this version knows.

    Raises:
        SettingsError: They are of one that it does not know.

    """
    known = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        return False
    try:
        known.get_revisions(found)
    except CommandError as error:
        raise SettingsError(
            f"the records at {shown(connection.engine.url)} are of a newer version of autoprune (their revision is "
            f"{found}, this version knows up to {known.get_current_head()}); install that version, or set AUTOPRUNE_DB"
        ) from error
    return found == known.get_current_head()
