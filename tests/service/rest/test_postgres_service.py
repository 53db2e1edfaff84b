"""A service whose records are in PostgreSQL, which goes away and comes back."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from autoprune.service.engine.service import opened
from autoprune.service.engine.worker import EXIT_STOPPED
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.key_records import KeyRecords
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import KeyScope
from tests.service.live_service import Live, in_thread, tiny_onnx
from tests.service.postgres import PASSWORD, Postgres

JOB = {"dataset": "digits", "budget": "macs=50%", "policies": ["uniform"], "evaluations": 3, "fit_images": 200,
       "search_images": 100, "report_images": 100}  # fmt: skip


@pytest.fixture
def live(postgres: Postgres, tmp_path: Path) -> Iterator[Live]:
    """A service that asks for keys: they are records too."""
    settings = Settings(tmp_path / "home", database_url=postgres.new_database(), require_keys=True)
    with contextlib.closing(Records(settings.url, create=True)) as records:
        _, token = KeyRecords(records).create("test", [KeyScope.ADMIN])
    with in_thread(settings) as service:
        service.client.headers["Authorization"] = f"Bearer {token}"
        yield service


def until(found: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def unavailable(answer: httpx.Response, kind: str) -> str:
    """Return the reason of an answer that says: not now."""
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
    assert (answer.json()["type"], answer.headers["retry-after"]) == (f"urn:autoprune:problem:{kind}", "5")
    assert PASSWORD not in answer.text
    return str(answer.json()["detail"])


def test_the_service_and_its_job_outlast_a_restart_of_the_database(live: Live, postgres: Postgres) -> None:
    model = live.post_model(tiny_onnx()).json()["id"]
    job = live.submit(model=model, **JOB, finetune_epochs=40)
    live.wait(job["id"], lambda found: (found["progress"] or {}).get("stage") == "finetune")
    postgres.stop()
    try:
        for _ in range(2):  # over connections that break, and over none
            for path in ("/v1/jobs", f"/v1/jobs/{job['id']}", "/v1/models"):
                unavailable(live.client.get(path), "records-unavailable")
        unavailable(live.client.post("/v1/jobs", json={"model": model, **JOB}), "records-unavailable")
        unavailable(live.post_model(tiny_onnx(seed=1)), "records-unavailable")
        unavailable(live.client.get("/healthz"), "records-unavailable")
        assert unavailable(live.client.get("/readyz"), "not-ready") == (
            "the records cannot be read (PostgreSQL does not answer)"
        )
        log = live.settings.job_folder(job["id"]) / "worker.log"
        until(lambda: "the outcome cannot be recorded" in log.read_text())  # the job has ended meanwhile
    finally:
        postgres.start()
    until(lambda: live.client.get("/readyz").status_code == 200)
    done = live.finished(job["id"])
    assert (done["state"], done["attempts"], done["error"]) == ("succeeded", 1, None)
    with contextlib.closing(Records(live.settings.url)) as records:
        records.add_job("next", {"model": "none"})
    assert live.finished("next")["state"] == "failed"  # the runner goes on
    assert live.post_model(tiny_onnx(seed=1)).status_code == 201


def test_a_database_that_is_not_there_is_told_without_its_password(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.url("no_such_database")
    with pytest.raises(SettingsError, match=r"cannot be used \(.*does not exist.*AUTOPRUNE_DB") as caught:
        Records(url, create=True)
    assert PASSWORD not in str(caught.value)
    with pytest.raises(SettingsError, match="password authentication failed") as caught:
        Records(postgres.url().replace(PASSWORD, "wrong-horse"), create=True)
    assert "wrong-horse" not in str(caught.value)
    nobody = postgres.url().replace(f":{postgres.port}/", ":1/")
    with pytest.raises(SettingsError, match="Connection refused") as caught, opened(Settings(tmp_path, nobody)):
        pass
    assert PASSWORD not in str(caught.value)


def test_a_worker_that_finds_no_database_waits_for_it_and_can_be_stopped(postgres: Postgres, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", postgres.url().replace(f":{postgres.port}/", ":1/"))
    settings.job_folder("job").mkdir(parents=True)
    worker = subprocess.Popen(
        [sys.executable, "-m", "autoprune.service.engine.worker", "job", "1"],
        env={**os.environ, "AUTOPRUNE_HOME": str(settings.home)},
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with worker:
        assert worker.stdin is not None
        assert worker.stderr is not None
        worker.stdin.write(settings.url.encode() + b"\n")
        worker.stdin.flush()
        log = worker.stderr.readline().decode()
        worker.terminate()
        assert worker.wait(60) == EXIT_STOPPED
        log += worker.stderr.read().decode()
    assert "waiting for the database" in log
    assert "Connection refused" in log
    assert PASSWORD not in log
