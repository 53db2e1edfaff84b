"""Jobs in processes of their own: to the end, cancelled, killed, and left behind by a service that died."""

import contextlib
import io
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
from sqlalchemy import update

from autoprune.service.engine.service import opened
from autoprune.service.pipeline.finalist import FILES
from autoprune.service.pipeline.job_files import CHECKPOINTS
from autoprune.service.rest.server import listen
from autoprune.service.rest.uploads import add_model
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.storage.event_records import EventRecords
from autoprune.service.storage.losses import MOST_CRASHES, MOST_DEATHS
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import JobRow
from tests.service.engine.small_jobs import ENDLESS, QUICK, group_is_gone
from tests.service.live_service import Live, in_process, in_thread, tiny_onnx


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with in_thread(Settings(tmp_path_factory.mktemp("runner") / "home")) as service:
        yield service


@pytest.fixture(scope="module")
def model(live: Live) -> str:
    return str(live.post_model(tiny_onnx()).json()["id"])


def worker_pid(live: Live, job_id: str, *, attempt: int = 1) -> int:
    """Return the process of an attempt at a job once it has one; a killed service leaves that of the one before."""
    records = Records(live.settings.url)
    with contextlib.closing(records):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            row = records.job(job_id)
            if row.attempts == attempt and row.worker_pid is not None:
                return row.worker_pid
            time.sleep(0.02)
    raise AssertionError(live.job(job_id))


def training(job: dict[str, object]) -> bool:
    """Tell whether a job is in the middle of its long computation."""
    progress = job["progress"]
    return isinstance(progress, dict) and progress["stage"] == "finetune"


def test_a_job_goes_through(live: Live, model: str) -> None:
    job = live.submit(model=model, **QUICK)
    done = live.finished(job["id"])
    assert (done["state"], done["error"], done["attempts"]) == ("succeeded", None, 1)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    artifacts = {entry["name"]: entry for entry in live.client.get(f"/v1/jobs/{job['id']}/artifacts").json()}
    assert {"result.json", "report.html", "uniform/model.onnx", "uniform/plan.json", "uniform/certificate.json"} <= set(
        artifacts
    )
    assert not [name for name in artifacts if "journal" in name]
    base = f"/v1/jobs/{job['id']}/artifacts"
    result = live.client.get(f"{base}/result.json").json()
    assert result["cost"]["macs"] / 2 >= result["outcomes"][0]["cost"]["macs"]
    assert str(live.settings.home) not in json.dumps(result)
    content = live.client.get(f"{base}/uniform/model.onnx")
    assert content.headers["etag"] == f'"{artifacts["uniform/model.onnx"]["sha256"]}"'
    onnxruntime.InferenceSession(content.content, providers=["CPUExecutionProvider"])
    for name in ("..%2f..%2fautoprune.sqlite", "%2e%2e/worker.log", "%2fetc%2fpasswd", "none.json", "journal.sqlite"):
        answer = live.client.get(f"{base}/{name}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:autoprune:problem:not-found-error")
    assert live.client.post(f"/v1/jobs/{job['id']}/cancel").status_code == 409


def test_a_job_by_a_criterion_runs_over_rest(live: Live, model: str) -> None:
    job = live.submit(model=model, **QUICK, criterion="group-taylor", refit=False)
    assert live.finished(job["id"])["state"] == "succeeded"


def test_the_agent_of_one_job_goes_on_in_another(live: Live, model: str) -> None:
    amc = {**QUICK, "policies": ["amc"], "refit": False, "reconstruction": False, "criterion": "l1"}
    first = live.submit(model=model, **amc, amc={"tensorboard": True})
    too_early = live.client.post("/v1/jobs", json={"model": model, **amc, "amc": {"agent": first["id"]}})
    assert too_early.status_code == 422
    assert "succeeded and left amc/agent.safetensors" in too_early.json()["detail"]
    assert live.finished(first["id"])["state"] == "succeeded"
    base = f"/v1/jobs/{first['id']}/artifacts"
    names = [artifact["name"] for artifact in live.client.get(base).json()]
    assert "amc/agent.safetensors" in names
    assert any(name.startswith("amc/tensorboard/events") for name in names)
    assert b"autoprune-amc-agent/1" in live.client.get(f"{base}/amc/agent.safetensors").content
    second = live.submit(model=model, **amc | {"budget": "params=60%"}, amc={"agent": first["id"]})
    assert live.finished(second["id"])["state"] == "succeeded"
    found = live.client.get(f"/v1/jobs/{second['id']}/artifacts/result.json").json()["outcomes"][0]["amc"]
    assert (found["agent"], found["warmup"]) == (f"inputs/agent/{first['id']}.safetensors", 0)


def test_a_front_and_its_study_are_artifacts(live: Live, model: str) -> None:
    spec = {**QUICK, "policies": ["nsga2"], "refit": False, "budget": "macs=80%", "evaluations": 12}
    job = live.submit(model=model, **spec, front={"least": "macs=40%", "points": 2})
    assert live.finished(job["id"])["state"] == "succeeded"
    base = f"/v1/jobs/{job['id']}/artifacts"
    names = [artifact["name"] for artifact in live.client.get(base).json()]
    assert {f"nsga2/front/01/{name}" for name in FILES.values()} < set(names)  # the network is untrained: few points
    certificate = live.client.get(f"{base}/nsga2/front/01/certificate.json").json()
    assert certificate["holds"] is True
    assert live.client.get(f"{base}/studies.sqlite").content.startswith(b"SQLite format 3")


def test_other_budgets_are_asked_of_a_job_and_another_goes_on_from_it(live: Live, model: str) -> None:
    settings = {**QUICK, "policies": ["uniform", "random"], "evaluations": 5, "refit": False}
    first = live.submit(model=model, **settings)
    early = live.client.get(f"/v1/jobs/{first['id']}/what-if", params={"budget": "macs=40%"})
    assert (early.status_code, early.json()["type"]) == (409, "urn:autoprune:problem:job-state-error")
    assert live.finished(first["id"])["state"] == "succeeded"
    address = f"/v1/jobs/{first['id']}/what-if"
    answer = live.client.get(address, params={"budget": ["macs=40%", "macs=60%,params=70%"]})
    assert answer.status_code == 200, answer.text
    tight, loose = answer.json()["budgets"]
    assert (tight["budget"], loose["budget"]) == ("macs=40%", "macs=60%,params=70%")
    assert tight["low"] <= tight["score"] <= tight["high"]
    assert live.client.get(f"{address}?budget=macs=40%").json()["budgets"] == [tight]  # as people type it
    for budget, message in (("macs=1%", "smallest reachable value"), ("watts=3", "unknown budget quantity")):
        refused = live.client.get(address, params={"budget": budget})
        assert (refused.status_code, message in refused.json()["detail"]) == (422, True)
    assert live.client.get(address).status_code == 422
    assert live.client.get("/v1/jobs/none/what-if", params={"budget": "macs=40%"}).status_code == 404
    for changes, message in (
        ({"continue_from": "/etc"}, "the id of a job that succeeded and left evidence.safetensors"),
        ({"seed": 1}, f"seed: expected what job {first['id']} had (0)"),
    ):
        body = {"model": model, **settings, "budget": "macs=60%", "continue_from": first["id"], **changes}
        refused = live.client.post("/v1/jobs", json=body)
        assert (refused.status_code, message in refused.json()["detail"]) == (422, True), refused.text
    second = live.submit(model=model, **settings | {"budget": "macs=60%"}, continue_from=first["id"])
    assert live.finished(second["id"])["state"] == "succeeded"
    result = live.client.get(f"/v1/jobs/{second['id']}/artifacts/result.json").json()
    assert result["continued"]["budget"] == "macs=50%"
    assert result["continued"]["known"] == answer.json()["trials"]


def test_a_running_job_is_cancelled_within_three_seconds(live: Live, model: str) -> None:
    job = live.submit(model=model, **ENDLESS)
    live.wait(job["id"], training)
    pid = worker_pid(live, job["id"])
    checkpoints = live.settings.artifact_folder(job["id"]) / CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    started = time.monotonic()
    assert live.client.post(f"/v1/jobs/{job['id']}/cancel").json()["cancel_requested"]
    done = live.finished(job["id"])
    assert time.monotonic() - started < 3
    assert (done["state"], done["error"]) == ("cancelled", None)
    assert group_is_gone(pid, 0.1)
    while checkpoints.exists():  # nobody has a use for them any more
        assert time.monotonic() - started < 6
        time.sleep(0.05)


def test_a_job_whose_worker_is_killed_goes_on_and_fails_if_that_happens_every_time(live: Live, model: str) -> None:
    job = live.submit(model=model, **ENDLESS)
    for attempt in range(1, MOST_DEATHS + 1):
        os.killpg(worker_pid(live, job["id"], attempt=attempt), signal.SIGKILL)
    done = live.finished(job["id"])
    assert (done["state"], done["attempts"], done["error"]["type"]) == ("failed", MOST_DEATHS, "poisoned")
    assert f"{MOST_DEATHS} attempts at this job died" in done["error"]["detail"]
    with contextlib.closing(Records(live.settings.url)) as records:
        told = [(event.state, event.detail) for event in EventRecords(records.sessions).of([job["id"]])[job["id"]]]
    again = [("running", {}), ("requeued", {"died": True})] * (MOST_DEATHS - 1)
    end = ("failed", {"error_type": "poisoned", "died": True})
    assert told == [("queued", {}), *again, ("running", {}), end]


def test_a_job_whose_upload_is_gone_fails_with_its_reason(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(replace(settings, run_jobs=False)) as service:
        row, _ = add_model(settings, service.records, service.store, io.BytesIO(tiny_onnx()), "tiny.onnx")
        service.records.add_job("job", JobSpec(model=row.id, dataset="digits", budget="macs=50%").model_dump())
        service.store.path(row.sha256, row.suffix).unlink()
    with in_thread(settings) as live:
        done = live.finished("job")
    assert done["state"] == "failed"
    assert "no longer in the store; upload it again" in done["error"]["detail"]


def test_jobs_outlive_a_service_that_is_killed_and_leave_no_process(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with in_process(settings) as (live, service):
        model = live.post_model(tiny_onnx()).json()["id"]
        job = live.submit(model=model, **ENDLESS)
        waiting = live.submit(model=model, **QUICK)
        live.wait(job["id"], training)
        pid = worker_pid(live, job["id"])
        service.kill()
        service.wait()
    assert group_is_gone(pid, 3)
    with in_thread(settings) as live:
        second_pid = worker_pid(live, job["id"], attempt=2)
        again = live.job(job["id"])
        assert (again["state"], again["attempts"]) == ("running", 2)
    assert group_is_gone(second_pid, 0.1)  # this time the service ended in good order
    with contextlib.closing(Records(settings.url)) as records:
        assert records.job(job["id"]).crashes == 1  # the kill alone
    with contextlib.closing(Records(settings.url)) as records:
        assert [records.job(name).state for name in (job["id"], waiting["id"])] == ["queued", "queued"]


def test_a_job_that_ends_the_service_every_time_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with in_process(settings) as (live, service):
        model = live.post_model(tiny_onnx()).json()["id"]
        poisoned, waiting = live.submit(model=model, **ENDLESS), live.submit(model=model, **QUICK)
        live.wait(poisoned["id"], training)
        service.kill()
        service.wait()
    with contextlib.closing(Records(settings.url)) as records, records.sessions.begin() as session:
        before = {"crashes": MOST_CRASHES - 1, "journaled": 100}  # none got further than that
        session.execute(update(JobRow).where(JobRow.id == poisoned["id"]).values(before))
    with in_thread(settings) as live:
        failed = live.finished(poisoned["id"])
        assert (failed["state"], failed["attempts"], failed["error"]["type"]) == ("failed", 1, "poisoned")
        assert f"{MOST_CRASHES} ended with the service" in failed["error"]["detail"]
        assert live.finished(waiting["id"])["state"] == "succeeded"


def test_a_job_that_is_ended_from_outside_every_time_fails(live: Live, model: str) -> None:
    job = live.submit(model=model, **ENDLESS)
    live.wait(job["id"], training)
    with contextlib.closing(Records(live.settings.url)) as records, records.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job["id"]).values(deaths=MOST_DEATHS - 2, journaled=100))
    os.killpg(worker_pid(live, job["id"]), signal.SIGTERM)
    live.wait(job["id"], lambda found: found["attempts"] == 2 and training(found))
    os.killpg(worker_pid(live, job["id"], attempt=2), signal.SIGTERM)
    failed = live.finished(job["id"])
    assert (failed["state"], failed["attempts"], failed["error"]["type"]) == ("failed", 2, "poisoned")


@pytest.mark.parametrize(
    ("limit", "kind"),
    [({"job_memory_mib": 100}, "memory-limit"), ({"job_seconds": 5}, "time-limit")],
)
def test_a_job_over_a_limit_fails_and_the_next_one_runs(limit: dict[str, int], kind: str, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with in_thread(replace(settings, **limit)) as live:
        model = live.post_model(tiny_onnx()).json()["id"]
        endless, waiting = (live.submit(model=model, **ENDLESS, workers=2) for _ in range(2))
        pid = worker_pid(live, endless["id"])
        failed = live.finished(endless["id"])
        assert (failed["state"], failed["error"]["type"]) == ("failed", kind)
        assert "AUTOPRUNE_JOB" in failed["error"]["detail"]
        assert group_is_gone(pid, 10)
        assert worker_pid(live, waiting["id"])


def test_a_job_does_not_see_the_secrets_of_its_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AUTOPRUNE_API_KEY", "AUTOPRUNE_DB"):
        monkeypatch.setenv(name, "seen")
    with in_thread(Settings(tmp_path / "home")) as live:
        job = live.submit(model=live.post_model(tiny_onnx()).json()["id"], **ENDLESS)
        live.wait(job["id"], training)
        variables = Path(f"/proc/{worker_pid(live, job['id'])}/environ").read_bytes()
        assert b"PATH=" in variables
        assert b"=seen" not in variables
        assert b"AUTOPRUNE_DB" not in variables


def test_a_taken_port_is_an_error_not_a_defect() -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match="choose another address or port"):
            listen("localhost", taken.getsockname()[1])
    with pytest.raises(SettingsError, match="port from 0 to 65535"):
        listen("127.0.0.1", 70_000)
