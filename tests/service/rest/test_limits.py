"""How many requests a caller may send, and how many jobs it may queue: per API key, together without keys."""

import contextlib
from pathlib import Path

import pytest

from autoprune.latency_tables.agent import ServiceError
from autoprune.service.rest.rate_limit import BURST_S
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.key_records import KeyRecords
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import KeyScope
from tests.service.live_service import in_thread, tiny_onnx

JOB = {"dataset": "digits", "budget": "macs=50%", "policies": ["uniform"]}


def test_who_asks_too_often_is_told_when_to_ask_again(tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", run_jobs=False, requests_per_s=1)) as live:
        answers = [live.client.get("/v1/jobs") for _ in range(int(BURST_S) + 5)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) <= 5
        assert {answer.status_code for answer in refused} == {429}
        assert refused[0].json()["type"] == "urn:autoprune:problem:too-many-requests"
        assert refused[0].headers["retry-after"] == "1"
        assert live.client.get("/healthz").status_code == 200


def test_every_key_has_a_bucket_and_a_quota_of_its_own(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False, require_keys=True, requests_per_s=1, queued_jobs=2)
    both = [KeyScope.READ, KeyScope.WRITE]
    with in_thread(settings) as live, contextlib.closing(Records(settings.url)) as records:
        names = {"busy": both, "quiet": both, "boss": [KeyScope.ADMIN]}
        made = {name: KeyRecords(records).create(name, scopes) for name, scopes in names.items()}
        headers = {name: {"Authorization": f"Bearer {token}"} for name, (_, token) in made.items()}
        files = {"file": ("m.onnx", tiny_onnx())}
        model = live.client.post("/v1/models", files=files, headers=headers["boss"]).json()["id"]
        submitted = {
            name: [
                live.client.post(path, json={"model": model, **JOB}, headers=headers[name])
                for path in ("/v1/jobs", "/v1/comparisons", "/v1/jobs")
            ]
            for name in names
        }
        statuses = {name: [answer.status_code for answer in answers] for name, answers in submitted.items()}
        assert statuses == {"busy": [201, 201, 429], "quiet": [201, 201, 429], "boss": [201, 201, 201]}
        refused = submitted["busy"][2].json()
        assert refused["type"] == "urn:autoprune:problem:quota-error"
        assert f"fewer than 2 queued jobs of key {made['busy'][0].id}, found 2" in refused["detail"]
        job = submitted["busy"][0].json()["id"]
        assert live.client.post(f"/v1/jobs/{job}/cancel", headers=headers["busy"]).status_code == 202
        body = {"model": model, **JOB}
        assert live.client.post("/v1/jobs", json=body, headers=headers["busy"]).status_code == 201
        for name, limited in (("busy", True), ("quiet", False), ("boss", False)):
            count = 3 if name == "quiet" else 15
            statuses = [live.client.get("/v1/jobs", headers=headers[name]).status_code for _ in range(count)]
            assert (429 in statuses) == limited, name


def test_the_queue_has_an_end_without_keys_too(tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", run_jobs=False, queued_jobs=1)) as live:
        model = live.post_model(tiny_onnx()).json()["id"]
        live.submit(model=model, **JOB)
        refused = live.client.post("/v1/jobs", json={"model": model, **JOB})
        assert (refused.status_code, "fewer than 1 queued jobs, found 1" in refused.json()["detail"]) == (429, True)


def test_a_device_that_is_told_to_wait_waits() -> None:
    assert [status for status in (None, 401, 404, 409, 429, 500, 503) if ServiceError("", status).may_pass] == [
        None, 429, 500, 503,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["AUTOPRUNE_REQUESTS_PER_SECOND", "AUTOPRUNE_QUEUED_JOBS"])
def test_limits_are_settings(name: str) -> None:
    found = Settings.from_environment({name: "7"})
    assert 7 in (found.requests_per_s, found.queued_jobs)
    for text in ("0", "-1", "1.5", "many", "9" * 30):
        with pytest.raises(SettingsError, match=f"{name}: expected a whole number above 0"):
            Settings.from_environment({name: text})
