"""Every change of a job's state leaves one event, and nothing else does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from autoprune.service.storage.event_records import EventRecords
from autoprune.service.storage.losses import Loss
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobChange, JobState
from autoprune.service.storage.tables import ArtifactRow


def told(records: Records, job_id: str) -> list[tuple[str, int, object]]:
    """Return what the events of a job say."""
    rows = EventRecords(records.sessions).of([job_id])[job_id]
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    return [(row.state, row.attempt, row.detail) for row in rows]


def test_every_change_of_state_is_an_event(records: Records) -> None:
    records.add_job("a", {})
    records.claim()
    records.report("a", 1, progress={"done": 1}, worker_pid=7)
    records.move("a", JobState.QUEUED, attempt=1, loss=Loss(died=False, crashes=1, deaths=0, journaled=0))
    records.claim()
    assert not records.move("a", JobState.SUCCEEDED, attempt=1)
    records.move("a", JobState.FAILED, attempt=2, error={"type": "worker-died", "detail": "..."})
    assert not records.move("a", JobState.SUCCEEDED)
    assert told(records, "a") == [
        ("queued", 0, {}),
        ("running", 1, {}),
        ("requeued", 1, {"crashed": True}),
        ("running", 2, {}),
        ("failed", 2, {"error_type": "worker-died"}),
    ]
    assert EventRecords(records.sessions).progress(["a", "none"]) == {"a": {"done": 1}}


def test_cancelling_is_told_once(records: Records) -> None:
    records.add_job("running", {})
    records.claim()
    records.add_job("queued", {})
    for _ in range(2):
        records.request_cancel("running")
        records.request_cancel("queued")
    records.move("running", JobState.CANCELLED, attempt=1)
    assert told(records, "queued") == [("queued", 0, {}), ("cancelled", 0, {})]
    assert told(records, "running") == [
        ("queued", 0, {}),
        ("running", 1, {}),
        ("cancel_requested", 1, {}),
        ("cancelled", 1, {}),
    ]


def test_a_job_that_is_queued_again_after_its_end_was_asked_for_is_cancelled(records: Records) -> None:
    records.add_job("a", {})
    records.claim()
    records.request_cancel("a")
    records.move("a", JobState.QUEUED, attempt=1)
    assert records.request_cancel("a").state == "cancelled"
    assert [change for change, _, _ in told(records, "a")][-2:] == ["requeued", "cancelled"]


def test_a_change_that_fails_leaves_no_event(records: Records) -> None:
    records.add_job("a", {})
    records.claim()
    twice = [ArtifactRow(job_id="a", name="x", sha256="", size_bytes=0, media_type="") for _ in range(2)]
    with pytest.raises(IntegrityError):
        records.move("a", JobState.SUCCEEDED, attempt=1, artifacts=twice)
    assert records.job("a").state == "running"
    assert [change for change, _, _ in told(records, "a")] == ["queued", "running"]


def test_events_of_many_writers_are_all_there(records: Records) -> None:
    def live(index: int) -> None:
        records.add_job(f"job{index}", {})
        records.move(f"job{index}", JobState.RUNNING)
        records.move(f"job{index}", JobState.SUCCEEDED)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live, range(20)))
    events, ids = EventRecords(records.sessions), [f"job{index}" for index in range(20)]
    rows = [row for of_job in events.of(ids).values() for row in of_job]
    assert sorted(row.id for row in rows) == list(range(1, 61))
    assert events.latest(ids) == {job_id: of_job[-1].id for job_id, of_job in events.of(ids).items()}
    assert all(JobChange(of_job[-1].state).is_final for of_job in events.of(ids).values())
