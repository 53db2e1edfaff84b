"""A job that is sent twice under one key is one job."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from autoprune.service.storage.records import Records
from autoprune.service.storage.submissions import KEPT_FOR
from autoprune.service.storage.tables import SubmissionKeyRow, now
from tests.service.live_service import Live, tiny_onnx


@pytest.fixture(scope="module")
def spec(live: Live) -> dict[str, Any]:
    return {"model": live.post_model(tiny_onnx()).json()["id"], "dataset": "digits", "budget": "macs=50%"}


def post(live: Live, spec: dict[str, Any], key: str, address: str = "/v1/jobs") -> httpx.Response:
    return live.client.post(address, json=spec, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("address", ["/v1/jobs", "/v1/comparisons"])
def test_the_same_key_and_settings_are_one_job(live: Live, spec: dict[str, Any], address: str) -> None:
    first = post(live, spec, "same", address)
    again = post(live, {**spec, "criterion": "obs"}, "same", address)  # the default, written out
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"] == f"{address}/{first.json()['id']}"
    assert post(live, spec, "another", address).json()["id"] != first.json()["id"]
    assert live.client.post(address, json=spec).json()["id"] != first.json()["id"]


def test_the_same_key_and_other_settings_are_refused(live: Live, spec: dict[str, Any]) -> None:
    first = post(live, spec, "once")
    other = post(live, {**spec, "budget": "macs=60%"}, "once")
    assert other.status_code == 422
    assert first.json()["id"] in other.json()["detail"]
    assert other.json()["type"] == "urn:autoprune:problem:idempotency-error"


def test_refused_jobs_leave_no_key(live: Live, spec: dict[str, Any]) -> None:
    assert post(live, {**spec, "budget": "macs=0.01%"}, "refused").status_code == 422
    assert post(live, spec, "refused").status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "schlüssel"])
def test_keys_that_are_refused(live: Live, spec: dict[str, Any], key: str) -> None:
    answer = live.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": key.encode()})
    assert answer.status_code == 422, answer.text
    assert "idempotency-key" in answer.json()["detail"].lower()


def test_requests_at_the_same_time_make_one_job(live: Live, spec: dict[str, Any]) -> None:
    before = len(live.client.get("/v1/jobs").json())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(live, spec, "race"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(live.client.get("/v1/jobs").json()) == before + 1


def test_keys_are_forgotten(live: Live, spec: dict[str, Any], records: Records) -> None:
    first = post(live, spec, "old").json()["id"]
    with records.sessions.begin() as session:
        session.execute(update(SubmissionKeyRow).values(created_at=now() - KEPT_FOR + timedelta(minutes=1)))
    assert post(live, spec, "old").json()["id"] == first
    with records.sessions.begin() as session:
        session.execute(update(SubmissionKeyRow).values(created_at=now() - KEPT_FOR))
    assert post(live, spec, "old").json()["id"] != first
    with records.sessions() as session:
        assert session.scalars(select(SubmissionKeyRow.key)).all() == ["old"]
