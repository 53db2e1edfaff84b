"""What Alembic runs: by :mod:`autoprune.service.storage.migrate`, which hands over its connection, or by developers.

They write the next revision after a change of the tables, against a database that is up to date
(``alembic revision --autogenerate --rev-id NUMBER -m "what changes"``, the next number of those in ``versions/``).
"""

from alembic import context
from sqlalchemy import Connection

from autoprune.service.settings import Settings
from autoprune.service.storage.database import engine_of
from autoprune.service.storage.tables import Table


def _run(connection: Connection) -> None:
    """Run what Alembic was started for; its transaction is that of the connection, where that has begun one."""
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


def _main() -> None:
    """Run with the connection that was handed over, or with one to the database of the environment."""
    given = context.config.attributes.get("connection")
    if given is not None:
        _run(given)
        return
    with engine_of(Settings.from_environment().url).connect() as opened:
        _run(opened)


if __name__ == "env_py":  # as Alembic calls it; an import does nothing
    _main()
