"""Which runners are alive, for services on several machines that share a PostgreSQL database."""

import hashlib
import logging
import time
from collections.abc import Collection

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from autoprune.service.engine.presence import FileLocks, host_of

#: First half of the keys of our advisory locks: "auto", in ASCII.
_CLASS = 0x6175746F

#: How long after a connection was made, in seconds, others are given to make theirs before they are judged.
SETTLE_S = 5.0

#: Let either side notice within some ten seconds that the other machine is gone.
_CLIENT = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SERVER = ("SET tcp_keepalives_idle = 5", "SET tcp_keepalives_interval = 2", "SET tcp_keepalives_count = 3",
           "SET tcp_user_timeout = 10000")  # fmt: skip

_TAKE = text("SELECT pg_try_advisory_lock(:class, :key)")
_HELD = text(
    "SELECT objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
    " WHERE datname = current_database() AND locktype = 'advisory' AND classid = :class AND objsubid = 2 AND granted"
)

_log = logging.getLogger(__name__)


class AdvisoryLocks:
    """Advisory locks of PostgreSQL on a connection of their own, beside lock files for the runners of one machine.

    The database frees a lock when its connection ends, which it also does when the database itself starts again. So
    `keep` connects again and takes the locks anew, and who has just connected judges nobody on another machine yet.
    A machine's own lock files do not have that gap; among its runners they alone count.
    """

    def __init__(self, engine: Engine, files: FileLocks, *, settle_s: float = SETTLE_S) -> None:
        """Lock in the database of `engine`, which must be PostgreSQL, and in `files`."""
        self._settle_s = settle_s
        self._engine = create_engine(engine.url, connect_args=_CLIENT, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._files = files
        self._runners: tuple[str, ...] = ()
        self._connection: Connection | None = None
        self._settled_s = 0.0
        self._held = False

    @property
    def is_held(self) -> bool:
        """Whether all locks were held when that was last looked at."""
        return self._held

    def take(self, runners: int) -> tuple[str, ...]:
        """See :meth:`autoprune.service.engine.presence.Presence.take`.

        Raises:
            SQLAlchemyError: The database cannot be reached.

        """
        self._connection = self._connected()
        start = 0
        while len(self._runners) < runners:
            runner = self._files.take_one(start=start)
            start = int(runner.rpartition("/")[2]) + 1
            if self._lock(self._connection, runner):
                self._runners += (runner,)
            else:  # of a machine with the same name that does not see our lock files
                self._files.free(runner)
        self._held = True
        return self._runners

    def keep(self) -> None:
        """See :meth:`autoprune.service.engine.presence.Presence.keep`."""
        try:
            if self._connection is not None:
                self._connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            self._drop()
            _log.warning("the database is away; no jobs are claimed until it is back")
        try:
            if self._connection is None:
                self._connection = self._connected()
            if not self._held:
                locked = [self._lock(self._connection, runner) for runner in self._runners]
                self._held = all(locked)
        except SQLAlchemyError:
            self._drop()

    def dead(self, runners: Collection[str]) -> frozenset[str]:
        """See :meth:`autoprune.service.engine.presence.Presence.dead`.

        Raises:
            SQLAlchemyError: The database cannot be reached.

        """
        here = {runner for runner in runners if host_of(runner) == self._files.host}
        found = self._files.dead(here)
        others = set(runners) - here
        if not others or self._connection is None or not self._held or time.monotonic() < self._settled_s:
            return found
        held = set(self._connection.scalars(_HELD, {"class": _CLASS}))
        return found | {runner for runner in others if _key(runner) not in held}

    def close(self) -> None:
        """Free all locks."""
        self._drop()
        self._engine.dispose()
        self._files.close()

    def _connected(self) -> Connection:
        """Connect, and begin to wait for others to do so."""
        connection = self._engine.connect()
        try:
            for setting in _SERVER:
                connection.execute(text(setting))
        except SQLAlchemyError:
            connection.close()
            raise
        self._settled_s = time.monotonic() + self._settle_s
        return connection

    def _lock(self, connection: Connection, runner: str) -> bool:
        """Take the lock of a runner, once, if it is free or ours."""
        return bool(connection.scalar(_TAKE, {"class": _CLASS, "key": _key(runner)}))

    def _drop(self) -> None:
        """Let go of the connection, and with it of the locks."""
        self._held = False
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _key(runner: str) -> int:
    """Return the second half of the key of a runner's lock: 31 bits of its id's hash."""
    return int.from_bytes(hashlib.sha256(runner.encode()).digest()[:4]) >> 1
