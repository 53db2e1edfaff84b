"""API keys, on both databases: found by their tokens until they are revoked."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.key_records import KeyRecords
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import KeyScope


@pytest.fixture
def keys(database_url: str) -> Iterator[KeyRecords]:
    with closing(Records(database_url, create=True)) as records:
        yield KeyRecords(records)


def test_a_key_is_found_by_its_token_until_it_is_revoked(keys: KeyRecords) -> None:
    assert not keys.any_active()
    made, token = keys.create("ci", [KeyScope.WRITE, KeyScope.READ])
    other, _ = keys.create("other", [KeyScope.ADMIN])
    found = keys.active(token)
    assert found is not None
    assert (found.id, found.scopes) == (made.id, ["read", "write"])
    used = keys.all()[0].last_used_at
    keys.active(token)
    assert used is not None
    assert keys.all()[0].last_used_at == used  # within a minute
    assert keys.active(token[:-1] + ("a" if token[-1] != "a" else "b")) is None
    revoked = keys.revoke(made.id).revoked_at
    assert keys.revoke(made.id).revoked_at == revoked
    assert keys.active(token) is None
    assert [row.id for row in keys.all()] == [made.id, other.id]
    assert keys.any_active()
    with pytest.raises(NotFoundError):
        keys.revoke("none")
