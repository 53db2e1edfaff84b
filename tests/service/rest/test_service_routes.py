"""What the service says of itself: whether it can work, and what it has done."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from autoprune.service.engine.service import opened
from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from tests.service.live_service import Live, in_thread


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with in_thread(Settings(tmp_path / "home", run_jobs=False)) as service:
        yield service


def samples(live: Live) -> dict[tuple[str, ...], float]:
    """Return what a scrape shows, by name and the values of its labels."""
    answer = live.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def unready(live: Live) -> str:
    """Return why a service says that it cannot work."""
    answer: httpx.Response = live.client.get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
    return str(answer.json()["detail"])


def test_a_service_that_can_work_is_ready(live: Live) -> None:
    for path in ("/readyz", "/healthz"):
        answer = live.client.get(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("content", [b"", b"this is no database " * 1000, None])
def test_records_that_cannot_be_read_are_told(live: Live, content: bytes | None) -> None:
    live.client.get("/readyz")
    path = live.settings.home / "autoprune.sqlite"
    for beside in live.settings.home.glob("autoprune.sqlite-*"):
        beside.unlink()
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    for _ in range(3):
        assert "the records cannot be read" in unready(live)


def test_folders_that_cannot_be_written_are_told(live: Live) -> None:
    shutil.rmtree(live.settings.home / "jobs")
    shutil.rmtree(live.settings.home / "store")
    (live.settings.home / "store").touch()
    assert unready(live).count("cannot be written") == 2


def test_a_runner_that_has_ended_is_told(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(settings) as service, in_thread(settings, service) as live:
        assert live.client.get("/readyz").status_code == 200
        assert service.runners is not None
        service.runners.stop()
        assert "a runner of jobs has ended" in unready(live)


def test_requests_are_counted_by_route(live: Live) -> None:
    for path in ("/v1/jobs/a", "/v1/jobs/b", "/nowhere/1", "/nowhere/2"):
        assert live.client.get(path).status_code == 404
    live.client.request("BREW", "/v1/jobs")
    assert live.client.get("/v1/jobs", headers={"host": "evil.example"}).status_code == 403
    seen = samples(live)
    count = "autoprune_http_request_duration_seconds_count"
    assert seen[count, "GET", "/v1/jobs/{job_id}", "404"] == 2
    assert seen[count, "GET", "none", "404"] == 2
    assert seen[count, "GET", "none", "403"] == 1
    assert seen[count, "other", "/v1/jobs", "405"] == 1
    assert samples(live)[count, "GET", "/metrics", "200"] == 1


def test_defects_are_counted(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False)
    with opened(settings) as service, in_thread(settings, service) as live:
        live.client.get("/v1/jobs")
        with service.records.sessions.begin() as session:
            session.connection().exec_driver_sql(
                "INSERT INTO jobs (id, kind, state, spec, cancel_requested, attempts,"
                " created_at) VALUES ('odd', 'search', 'no such state', '{}', 0, 0, '2026-01-01 00:00:00.000000')"
            )
        answer = live.client.get("/v1/jobs/odd")
        assert answer.status_code == 500
        assert samples(live)["autoprune_http_request_duration_seconds_count", "GET", "/v1/jobs/{job_id}", "500"] == 1


def test_jobs_are_counted(tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home")) as live:
        assert samples(live)["autoprune_job_claims_total",] == 0
        with contextlib.closing(Records(live.settings.url)) as records:
            records.add_job("bad", {"model": "none"})
        live.finished("bad")
        ended = ("autoprune_job_duration_seconds_count", "search", "failed")
        deadline = time.monotonic() + 20
        while ended not in (seen := samples(live)):  # counted once the job's process is gone
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert [seen["autoprune_jobs", state] for state in ("queued", "running", "failed")] == [0, 0, 1]
    assert seen["autoprune_job_claims_total",] == 1
    assert seen[ended] == 1


def test_two_applications_count_apart(live: Live, tmp_path: Path) -> None:
    live.client.get("/v1/jobs")
    with in_thread(Settings(tmp_path / "other", run_jobs=False)) as other:
        assert ("autoprune_http_request_duration_seconds_count", "GET", "/v1/jobs", "200") not in samples(other)
