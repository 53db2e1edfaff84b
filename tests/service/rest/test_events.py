"""Streams of events: everything once and in order, for many at once, across breaks, and to the end of the service."""

import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from autoprune.service.settings import Settings
from autoprune.service.storage.event_records import add_event
from autoprune.service.storage.losses import Loss
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobChange, JobKind, JobState
from autoprune.service.storage.tables import JobRow
from tests.service.live_service import Live, in_process


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a stream."""

    event: str
    id: int | None
    data: dict[str, Any]


def read(lines: Iterator[str]) -> Iterator[Told]:
    """Read events as a browser does."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Told(fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"]))
            fields = {}


def stream(live: Live, address: str, **headers: str) -> list[Told]:
    """Return a whole stream."""
    with live.client.stream("GET", address, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(read(answer.iter_lines()))


def states(events: list[Told]) -> list[str]:
    return [told.data["state"] for told in events if told.event == "state"]


def progress(done: int) -> dict[str, Any]:
    return {"stage": "search", "done": done, "total": 9}


def ended(records: Records, job_id: str, *, kind: JobKind = JobKind.SEARCH) -> str:
    """Record a job of four events."""
    records.add_job(job_id, {}, kind=kind)
    assert records.move(job_id, JobState.RUNNING)
    records.report(job_id, 0, progress=progress(3))
    records.move(job_id, JobState.QUEUED, loss=Loss(died=False, crashes=1, deaths=0, journaled=0))
    records.move(job_id, JobState.FAILED, error={"type": "poisoned", "detail": "..."})
    return job_id


def test_a_job_that_ended_is_told_whole(live: Live, records: Records) -> None:
    events = stream(live, f"/v1/jobs/{ended(records, 'whole')}/events")
    assert [told.event for told in events] == ["state", "state", "state", "progress", "state"]
    assert states(events) == ["queued", "running", "requeued", "failed"]
    assert events[2].data["detail"] == {"crashed": True}
    assert events[3].data == progress(3)
    assert (events[4].data["detail"], events[4].data["job_id"]) == ({"error_type": "poisoned"}, "whole")
    assert all(told.id == told.data["id"] for told in events if told.event == "state")


def test_a_broken_stream_goes_on_where_it_was(live: Live, records: Records) -> None:
    address = f"/v1/jobs/{ended(records, 'broken')}/events"
    whole = stream(live, address)
    ids = [told.id for told in whole if told.id is not None]
    for index, last in enumerate(ids):
        rest = [told.id for told in stream(live, address, **{"Last-Event-ID": str(last)}) if told.id is not None]
        assert rest == ids[index + 1 :]
        assert [told.id for told in stream(live, f"{address}?after={last}") if told.id] == rest
    assert states(stream(live, f"{address}?after=0", **{"Last-Event-ID": str(ids[-2])})) == ["failed"]


def test_changes_are_told_while_they_happen(live: Live, records: Records) -> None:
    records.add_job("live", {})
    with live.client.stream("GET", "/v1/jobs/live/events") as answer:
        events = read(answer.iter_lines())
        assert next(events).data["state"] == "queued"
        records.move("live", JobState.RUNNING)
        assert next(events).data["state"] == "running"
        for done in (1, 2):
            records.report("live", 0, progress=progress(done))
            assert next(events).data == progress(done)
        records.request_cancel("live")
        assert next(events).data["state"] == "cancel_requested"
        records.report("live", 0, progress=progress(9))
        records.move("live", JobState.CANCELLED)
        assert [(told.event, told.data.get("state")) for told in events] == [("progress", None), ("state", "cancelled")]


def test_comparisons_are_followed_alike(live: Live, records: Records) -> None:
    ended(records, "cmp", kind=JobKind.COMPARISON)
    assert states(stream(live, "/v1/comparisons/cmp/events"))[-1] == "failed"
    assert live.client.get("/v1/jobs/cmp/events").status_code == 404


def test_what_cannot_be_followed_is_a_problem(live: Live, records: Records) -> None:
    ended(records, "known")
    asked = [
        live.client.get("/v1/jobs/none/events"),
        live.client.get("/v1/comparisons/known/events"),
        live.client.get("/v1/jobs/known/events?after=-1"),
        live.client.get("/v1/jobs/known/events", headers={"Last-Event-ID": "x"}),
    ]
    assert [answer.status_code for answer in asked] == [404, 404, 422, 422]
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in asked)


def test_a_hundred_follow_at_once_without_a_thread_each(live: Live, records: Records) -> None:
    jobs = [f"crowd{index}" for index in range(10)]
    for job_id in jobs:
        records.add_job(job_id, {})
        records.move(job_id, JobState.RUNNING)

    async def follow(client: httpx.AsyncClient, job_id: str) -> list[str]:
        async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            return states(list(read(iter([line async for line in answer.aiter_lines()]))))

    async def crowd() -> list[list[str]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=live.client.base_url, timeout=60, limits=limits) as client:
            followers = [asyncio.create_task(follow(client, jobs[index % 10])) for index in range(100)]
            await asyncio.sleep(1)
            assert threading.active_count() < 60  # the server's threads are this process's
            assert (await client.get("/v1/jobs?limit=1")).status_code == 200
            for job_id in jobs:
                await asyncio.to_thread(records.move, job_id, JobState.SUCCEEDED)
            return await asyncio.gather(*followers)

    assert asyncio.run(crowd()) == [["queued", "running", "succeeded"]] * 100


def open_streams(live: Live) -> int:
    """Return how many streams the service holds open, as it says itself."""
    lines = live.client.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("autoprune_event_streams")).split()[1]))


def test_a_client_that_leaves_is_forgotten(live: Live, records: Records) -> None:
    records.add_job("left", {})
    for _ in range(3):
        with live.client.stream("GET", "/v1/jobs/left/events") as answer:
            events = read(answer.iter_lines())
            assert next(events).data["state"] == "queued"
            assert open_streams(live) == 1
        deadline = time.monotonic() + 10
        while open_streams(live):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_open_streams_end_with_the_service(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with in_process(Settings(home)) as (live, process):
        with contextlib.closing(Records(live.settings.url)) as records, records.sessions.begin() as session:
            session.add(JobRow(id="a", spec={}, state=JobState.RUNNING.value))  # which its runner leaves alone
            session.flush()
            add_event(session, "a", JobChange.RUNNING, 1)
        with live.client.stream("GET", "/v1/jobs/a/events") as answer:
            events = read(answer.iter_lines())
            assert next(events).data["state"] == "running"
            process.send_signal(signal.SIGTERM)
            assert list(events) == []
        process.wait(30)
    log = (tmp_path / "service.log").read_text()
    assert "Finished server process" in log
    assert "timeout graceful shutdown exceeded" not in log
