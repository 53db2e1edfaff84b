"""The journal: every evaluation ever made in a job, shared by all its policies and by the processes that resume it."""

import hashlib
import json
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.plan import Plan

#: Version of the tables below.
SCHEMA = 1

_metadata = sa.MetaData()
_schema = sa.Table("journal_schema", _metadata, sa.Column("version", sa.Integer, primary_key=True))
_evaluations = sa.Table(
    "evaluations",
    _metadata,
    sa.Column("settings_key", sa.String(64), primary_key=True),
    sa.Column("plan_key", sa.String(64), primary_key=True),
    sa.Column("scores", sa.Text, nullable=False),
)


def plan_key(plan: Plan) -> str:
    """Return the sha256 of what a plan keeps."""
    kept = {name: list(indices) for name, indices in sorted(plan.kept.items())}
    return hashlib.sha256(json.dumps(kept, separators=(",", ":")).encode()).hexdigest()


class Journal:
    """Answers by (evaluator's settings, plan). Append-only; a row is there completely or not at all.

    Several processes may use one file: writes are short transactions, and whoever writes an answer second changes
    nothing. One object belongs to one thread.
    """

    def __init__(self, url: str) -> None:
        """Open the journal at a SQLAlchemy `url`, making its tables where there are none.

        Raises:
            SearchError: Not a journal, of another version, unreadable or not writable.

        """
        self._url = url
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _durable)
        try:
            with self._engine.begin() as connection:
                _metadata.create_all(connection)
                found = connection.execute(sa.select(_schema.c.version)).scalars().all()
                if not found:
                    connection.execute(_schema.insert().values(version=SCHEMA))
        except sa.exc.SQLAlchemyError as error:
            self._engine.dispose()
            raise SearchError(
                f"cannot use the journal {url}: {_reason(error)}; if the file is damaged, move it away and run again "
                "(what it remembered is evaluated anew)"
            ) from error
        if found and found != [SCHEMA]:
            self._engine.dispose()
            raise SearchError(f"the journal {url} has version {found[0]}, this program writes {SCHEMA}; move it away")

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Open a journal file.

        Raises:
            SearchError: See the constructor.

        """
        return cls(f"sqlite:///{path}")

    def get(self, settings_key: str, plan: Plan) -> Scores | None:
        """Return the recorded scores, exactly as they were computed, or None."""
        query = sa.select(_evaluations.c.scores).where(
            _evaluations.c.settings_key == settings_key, _evaluations.c.plan_key == plan_key(plan)
        )
        with self._engine.connect() as connection:
            text = connection.execute(query).scalar_one_or_none()
        return None if text is None else Scores.from_dict(json.loads(text))

    def put(self, settings_key: str, plan: Plan, scores: Scores) -> None:
        """Record scores; on disk when this returns. A second answer to the same question is ignored.

        Raises:
            SearchError: The journal cannot be written (full disk, read-only).

        """
        row = {"settings_key": settings_key, "plan_key": plan_key(plan), "scores": json.dumps(scores.to_dict())}
        try:
            with self._engine.begin() as connection:
                connection.execute(_evaluations.insert().values(**row))
        except sa.exc.IntegrityError:
            return  # another process was first; evaluation is a pure function, so its answer is the same
        except sa.exc.SQLAlchemyError as error:
            raise SearchError(
                f"cannot write the journal {self._url}: {_reason(error)}; nothing recorded is lost"
            ) from error

    def __len__(self) -> int:
        """Return the number of evaluations recorded."""
        with self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(_evaluations)).scalar_one())

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _durable(connection: object, _record: object) -> None:
    """Readers never wait for writers, and a committed row survives a crash of the machine."""
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DB-API connection
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    """Return the database's own words."""
    return str(getattr(error, "orig", None) or error).splitlines()[0]
