"""The journal: every evaluation ever made in a job, shared by all its policies and by the processes that resume it."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from types import TracebackType
from typing import Literal, Self

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.schema import CreateTable

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.pruning.plan import Plan
from autoprune.search.evaluated import Evaluated

#: Version of the tables below. Journals of version 1, which kept no times, are brought up to it; others are refused.
SCHEMA = 2

BUSY_TIMEOUT_MS = 30_000

#: Rows that one statement writes.
_ROWS = 1000

_metadata = sa.MetaData()
_schema = sa.Table(
    "journal_schema",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # one row, id 1
    sa.Column("version", sa.Integer, nullable=False),
)
_evaluations = sa.Table(
    "evaluations",
    _metadata,
    sa.Column("settings_key", sa.String(64), primary_key=True),
    sa.Column("plan_key", sa.String(64), primary_key=True),
    sa.Column("scores", sa.Text, nullable=False),  # JSON; Python writes floats so that they read back exactly
    sa.Column("seconds", sa.Float),  # wall time of the evaluation; null in rows of version 1
    sa.Column("created", sa.String(32), nullable=False),  # ISO 8601, UTC; for people
)

Synchronous = Literal["FULL", "NORMAL"]


def plan_key(plan: Plan) -> str:
    """Return the sha256 of what a plan keeps, whatever the order of its groups, and of its path where it has one."""
    kept = {name: list(indices) for name, indices in plan.kept.items()}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    if isinstance(plan, PathPlan):
        text = " then ".join([*map(plan_key, plan.path), text])
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """Answers by (evaluator's settings, plan). Append-only: a row is there completely or not at all, and never changes.

    Any number of threads and processes may share one. Every call is one statement that commits by itself, so there is
    nothing that a kill could cut in two. Where several record the same evaluation, the first answer stands.
    """

    def __init__(self, url: str | URL, *, synchronous: Synchronous = "FULL") -> None:
        """Open the journal at a SQLAlchemy `url`, making its tables where there are none.

        Args:
            url: For example ``sqlite:///journal.sqlite``.
            synchronous: SQLite only. ``"FULL"`` survives power loss; ``"NORMAL"`` may then lose the last rows, no more.

        Raises:
            SearchError: Not a journal, of another version, unreadable or not writable.

        """
        try:
            self._url = make_url(url)
            self._engine = sa.create_engine(self._url, isolation_level="AUTOCOMMIT")
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise SearchError(
                f"cannot use the journal {url!s}: {error}; give a database URL like sqlite:///journal.sqlite"
            ) from error
        if self._engine.dialect.name == "sqlite":
            _make_durable(self._engine, synchronous)
        try:
            self._set_up()
        except SearchError:
            self._engine.dispose()
            raise

    @classmethod
    def open(cls, path: Path, *, synchronous: Synchronous = "FULL") -> Self:
        """Open a journal file.

        Raises:
            SearchError: See the constructor.

        """
        return cls(URL.create("sqlite", database=str(path)), synchronous=synchronous)

    def get(self, settings_key: str, plan: Plan) -> Evaluated | None:
        """Return the recorded evaluation, its scores exactly as they were computed, or None.

        Raises:
            SearchError: The journal cannot be read.

        """
        query = sa.select(_evaluations.c.scores, _evaluations.c.seconds).where(
            _evaluations.c.settings_key == settings_key, _evaluations.c.plan_key == plan_key(plan)
        )
        with self._speaking() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        try:
            return Evaluated(Scores.from_dict(json.loads(row.scores)), row.seconds)
        except (ValueError, TypeError) as error:
            raise self._refusal(f"a row is damaged ({error})") from error

    def put(self, settings_key: str, plan: Plan, evaluated: Evaluated) -> Evaluated:
        """Record an evaluation, on disk when this returns, and return the one that stands: the one recorded first.

        Raises:
            SearchError: The journal cannot be written (full disk, read-only).

        """
        row = {
            "settings_key": settings_key,
            "plan_key": plan_key(plan),
            "scores": json.dumps(evaluated.scores.to_dict()),
            "seconds": evaluated.seconds,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._speaking() as connection, suppress(IntegrityError):  # another process was first
            connection.execute(_evaluations.insert().values(row))
            return evaluated
        standing = self.get(settings_key, plan)
        assert standing is not None, "rows are never removed"
        return standing

    def adopt(self, other: "Journal") -> None:
        """Copy all evaluations of another journal; where both have one, the answer here stands.

        Nobody else may write here meanwhile. A kill leaves some of them copied; adopting again copies the rest.

        Raises:
            SearchError: One of the two cannot be read, or this one not written.

        """
        keys = sa.select(_evaluations.c.settings_key, _evaluations.c.plan_key)
        with self._speaking() as connection:
            known = {tuple(row) for row in connection.execute(keys)}
        with other._speaking() as connection:
            rows = [dict(row._mapping) for row in connection.execute(sa.select(_evaluations))]
        missing = [row for row in rows if (row["settings_key"], row["plan_key"]) not in known]
        with self._speaking() as connection:
            for start in range(0, len(missing), _ROWS):
                connection.execute(_evaluations.insert().values(missing[start : start + _ROWS]))

    def __len__(self) -> int:
        """Return the number of evaluations recorded."""
        with self._speaking() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(_evaluations)) or 0

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set_up(self) -> None:
        """Make what is missing; every step may be repeated, so several processes may do it at the same time."""
        with self._speaking() as connection:
            tables = sa.inspect(connection).get_table_names()
            if tables and _schema.name not in tables and connection.dialect.name == "sqlite":
                raise self._refusal(f"it is another program's database, with a table {tables[0]!r}")
            for table in (_schema, _evaluations):
                connection.execute(CreateTable(table, if_not_exists=True))
            if connection.scalar(sa.select(_schema.c.version)) is None:
                with suppress(IntegrityError):  # another process was first
                    connection.execute(_schema.insert().values(id=1, version=SCHEMA))
            if connection.scalar(sa.select(_schema.c.version)) == 1:
                _add_seconds(connection)
            version = connection.scalar(sa.select(_schema.c.version))
        if version != SCHEMA:
            raise self._refusal(f"it has version {version}, this program writes {SCHEMA}")

    @contextmanager
    def _speaking(self) -> Iterator[sa.Connection]:
        """Lend a connection, and turn the database's errors into ours."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DatabaseError as error:
            raise self._refusal(str(error.orig).splitlines()[0]) from error

    def _refusal(self, reason: str) -> SearchError:
        """Return the error that this journal cannot be used."""
        where = self._url.render_as_string(hide_password=True)
        return SearchError(
            f"cannot use the journal {where}: {reason}; choose another file, or move this one away and run again "
            "(what it remembered is evaluated anew)"
        )


def _add_seconds(connection: sa.Connection) -> None:
    """Bring a journal of version 1 up to version 2; every step may be repeated, or taken by several at a time."""

    def has_seconds() -> bool:
        columns = sa.inspect(connection).get_columns(_evaluations.name)
        return any(column["name"] == _evaluations.c.seconds.name for column in columns)

    if not has_seconds():
        kind = _evaluations.c.seconds.type.compile(connection.dialect)
        try:
            connection.execute(
                sa.text(f"ALTER TABLE {_evaluations.name} ADD COLUMN {_evaluations.c.seconds.name} {kind}")
            )
        except DatabaseError:
            if not has_seconds():  # else another process was first
                raise
    connection.execute(_schema.update().where(_schema.c.version == 1).values(version=2))


def _make_durable(engine: sa.Engine, synchronous: Synchronous) -> None:
    """Let writers wait for each other, and readers for nobody; a row survives a crash of the machine."""

    def configure(connection: SqliteConnection, _record: ConnectionPoolEntry) -> None:
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", f"synchronous={synchronous}"):
            connection.execute(f"PRAGMA {pragma}").close()

    sa.event.listen(engine, "connect", configure)
