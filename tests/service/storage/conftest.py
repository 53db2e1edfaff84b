"""Records for the tests of the storage."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from autoprune.service.storage.records import Records


@pytest.fixture
def records(database_url: str) -> Iterator[Records]:
    """Return empty records, in a database of either kind."""
    with closing(Records(database_url, create=True)) as records:
        yield records
