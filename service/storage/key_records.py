"""The records of API keys: who may use a service that others reach too.

A token is 256 random bits, so its sha256 gives nothing away and cannot be found by trying: the slow, salted hashes that
guessable passwords need would only slow every request.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select, update

from autoprune.errors import AutopruneError
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import KeyRow, KeyScope, now

_TOKEN = re.compile(r"autoprune_(?P<id>key_[0-9a-f]{12})_[A-Za-z0-9_-]{43}")

#: A use within this time of the one on record is not written: reading must not cost a write every time.
_USE_RESOLUTION = timedelta(minutes=1)

MOST_NAME_CHARACTERS = 100


class KeyNameError(AutopruneError):
    """An API key was to get a name that does not do, or no scope."""


class KeyRecords:
    """API keys. Safe to use from several threads and processes; every method is one transaction."""

    def __init__(self, records: Records) -> None:
        """Work in the database of `records`, which stay open."""
        self._session = records.sessions

    def create(self, name: str, scopes: Sequence[KeyScope]) -> tuple[KeyRow, str]:
        """Make a key; return its record and its token, which is shown this once and cannot be found out again.

        Raises:
            KeyNameError: The name is empty, too long or not printable, or there is no scope.

        """
        if not (name.strip() and name.isprintable() and len(name) <= MOST_NAME_CHARACTERS):
            raise KeyNameError(f"expected a name of 1 to {MOST_NAME_CHARACTERS} printable characters, found {name!r}")
        if not scopes:
            raise KeyNameError(f"expected at least one scope of {', '.join(KeyScope)}, found none")
        key_id = f"key_{secrets.token_hex(6)}"
        token = f"autoprune_{key_id}_{secrets.token_urlsafe(32)}"
        chosen = [scope.value for scope in KeyScope if scope in scopes]
        row = KeyRow(id=key_id, name=name, token_sha256=_hash(token), scopes=chosen)
        with self._session.begin() as session:
            session.add(row)
        return row, token

    def active(self, token: str) -> KeyRow | None:
        """Return the key of a token, counted as used now; None where there is none or it was revoked."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        with self._session.begin() as session:
            row = session.scalar(select(KeyRow).where(KeyRow.id == match["id"], KeyRow.revoked_at.is_(None)))
            if row is None or not hmac.compare_digest(row.token_sha256, _hash(token)):
                return None
            moment = now()
            if row.last_used_at is None or moment - row.last_used_at > _USE_RESOLUTION:
                row.last_used_at = moment
        return row

    def revoke(self, key_id: str) -> KeyRow:
        """End a key at once; one that was revoked before keeps the time of that.

        Raises:
            NotFoundError: No such id.

        """
        ending = update(KeyRow).where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None)).values(revoked_at=now())
        with self._session.begin() as session:
            session.execute(ending.execution_options(synchronize_session=False))
            row = session.scalar(select(KeyRow).where(KeyRow.id == key_id))
        if row is None:
            raise NotFoundError(f"no API key has the id {key_id[:100]!r}; autoprune keys list shows them")
        return row

    def all(self) -> Sequence[KeyRow]:
        """Return all keys, revoked ones too, oldest first."""
        with self._session() as session:
            return session.scalars(select(KeyRow).order_by(KeyRow.number)).all()

    def any_active(self) -> bool:
        """Tell whether anybody could use a service that asks for keys."""
        with self._session() as session:
            return session.scalar(select(KeyRow.number).where(KeyRow.revoked_at.is_(None)).limit(1)) is not None


def _hash(token: str) -> str:
    """Return the sha256 of a token in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()
