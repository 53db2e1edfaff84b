"""What it costs to take a job from the queue, and to list some, does not grow with the queue.

Counted is what the database does, which is the same however busy the machine is: the steps of SQLite's virtual machine,
the blocks of the table and its indexes that PostgreSQL looks at.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from uuid import uuid4

import pytest
from sqlalchemy import event, insert, text

from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow

SHORT, LONG = 10, 10_000

CALLS: dict[str, Callable[[Records], object]] = {
    "claim": Records.claim,
    "list": lambda records: records.jobs(limit=SHORT),
    "list queued": lambda records: records.jobs(state=JobState.QUEUED, limit=SHORT),
}


def add(records: Records, n: int, state: JobState = JobState.QUEUED) -> None:
    """Add `n` jobs at once."""
    with records.sessions.begin() as session:
        session.execute(insert(JobRow), [{"id": uuid4().hex, "spec": {}, "state": state.value} for _ in range(n)])


def work(records: Records, call: Callable[[Records], object]) -> int:
    """Return what a call costs the database."""
    engine = records.sessions.kw["bind"]
    if engine.dialect.name == "postgresql":
        before = blocks(records)
        call(records)
        return blocks(records) - before
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(step, 1)

    event.listen(engine, "checkout", watch)
    call(records)
    event.remove(engine, "checkout", watch)
    return steps


def blocks(records: Records) -> int:
    """Return how many blocks of the jobs and their indexes PostgreSQL has looked at."""
    looked_at = "heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read"
    with records.sessions.begin() as session:
        session.execute(text("SELECT pg_stat_force_next_flush()"))
    with records.sessions.begin() as session:
        query = f"SELECT {looked_at} FROM pg_statio_user_tables WHERE relid = CAST('jobs' AS regclass)"  # noqa: S608
        return int(session.scalar(text(query)) or 0)


@pytest.mark.parametrize("index", [True, False])
def test_claims_and_lists_cost_the_same_from_10_jobs_to_10_000(database_url: str, index: bool) -> None:
    with closing(Records(database_url, create=True)) as records:
        if not index:  # shows that the count would tell
            with records.sessions.begin() as session:
                session.execute(text("DROP INDEX jobs_by_state"))
        add(records, SHORT)
        before = {name: work(records, call) for name, call in CALLS.items()}
        while records.claim():
            pass
        add(records, LONG, JobState.SUCCEEDED)
        add(records, LONG)
        after = {name: work(records, call) for name, call in CALLS.items()}
        grown = [name for name in CALLS if after[name] > 3 * before[name] + 20]
        assert (grown == []) if index else ("claim" in grown), (before, after)
