"""Latency tables and devices over REST, up to a device that fetches its work."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from autoprune.errors import Cancelled, LatencyTableError
from autoprune.latency_tables.agent import Agent, ServiceError
from autoprune.latency_tables.measure import Latency
from autoprune.latency_tables.runner import main
from autoprune.latency_tables.table import LatencyTable
from autoprune.service.devices.tables import find_table, table_id
from autoprune.service.devices.work import DeviceTimer, is_polling, queue_files, wait_for_latencies
from autoprune.service.storage.device_records import MOST_ATTEMPTS, DeviceRecords, WorkStateError
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import now
from tests.service.live_service import Live, tiny_onnx
from tests.service.table_samples import altered, sample_table


@pytest.fixture(scope="module")
def devices(live: Live) -> Iterator[DeviceRecords]:
    records = Records(live.settings.url)
    yield DeviceRecords(records)
    records.close()


def post_table(live: Live, content: bytes | str, **form: str) -> httpx.Response:
    return live.client.post("/v1/latency-tables", files={"file": ("latency-table.json", content)}, data=form)


def problem(answer: httpx.Response, status: int = 422) -> str:
    """Return the detail of an error after checking its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "/tmp" not in answer.text  # noqa: S108 - no path of the service
    return str(answer.json()["detail"])


def test_a_table_is_kept_merged_and_found(live: Live) -> None:
    table = sample_table("rest-1")
    answer = post_table(live, table.to_json(), device="rest-1")
    assert answer.status_code == 201, answer.text
    view = answer.json()
    assert (view["device"], view["units"], view["sha256"]) == ("rest-1", 4, table.sha256)
    assert view["id"] == table_id(table.conditions)
    assert view["calibrations"]["net"] == {"scale": 1, "offset_us": 5, "error": 0.03, "worst": 0.06, "networks": 1}
    assert live.client.get(answer.headers["location"]).json() == view
    assert live.client.get(f"{answer.headers['location']}/file").text == table.to_json()
    assert view in live.client.get("/v1/latency-tables").json()
    assert find_table("rest-1", home=live.settings.home) == table
    again = post_table(live, sample_table("rest-1", widths=(16, 24)).to_json())
    assert (again.status_code, again.json()["units"], again.json()["id"]) == (200, 7, view["id"])
    (device,) = [each for each in live.client.get("/v1/devices").json() if each["name"] == "rest-1"]
    assert device == {"name": "rest-1", "tables": [view["id"]], "seen_at": None, "queued": 0, "taken": 0}


def test_tables_that_are_refused(live: Live) -> None:
    table = sample_table("bad-1")
    good = table.to_json()
    for content, reason in (
        (good[:200], "cut off or damaged"),
        (good.replace("64.0", "32.0"), "altered after it was written"),
        (good.replace("64.0", "NaN"), "found NaN"),
        (altered(table, lambda data: data["units"][0]["times"][0].__setitem__(3, 1e9)), "p10 <= median"),
        (altered(table, lambda data: data["conditions"].update(device="../../x")), "a device's name"),
        (b"\xff\x00", "cut off or damaged"),
    ):
        detail = problem(post_table(live, content))
        assert reason in detail
        assert detail.startswith("latency-table.json: ")
    assert "expected a table of the device 'pi', found one of 'bad-1'" in problem(post_table(live, good, device="pi"))
    assert "expected one of file, device" in problem(post_table(live, good, note="x"))
    assert "bad-1" not in live.client.get("/v1/devices").text
    for missing in ("none.000", "..", "%2e%2e%2fautoprune.sqlite"):
        answer = live.client.get(f"/v1/latency-tables/{missing}")
        assert answer.status_code == 404


def test_a_job_finds_the_tables_of_its_service(live: Live) -> None:
    post_table(live, sample_table("rest-9").to_json())
    model = live.post_model(tiny_onnx(width=16, seed=4)).json()["id"]
    job = {"model": model, "dataset": "digits", "budget": "latency=50%", "device": "rest-9"}
    assert "was never compared with this network" in problem(live.client.post("/v1/jobs", json=job))
    assert "Did you mean 'rest-9'" in problem(live.client.post("/v1/jobs", json={**job, "device": "rest9"}))


def test_a_device_fetches_measures_and_sends(live: Live, tmp_path: Path) -> None:
    model = live.post_model(tiny_onnx(image=(3, 8, 8), width=16, seed=3)).json()
    asked = live.client.post(
        "/v1/devices/agent-1/work", json={"model_id": model["id"], "networks": 3, "time_budget_s": 2.0}
    )
    assert asked.status_code == 201, asked.text
    work = asked.json()
    assert (work["state"], work["attempts"], len(work["networks"]), work["units"]) == ("queued", 0, 4, 3)
    assert live.client.get("/v1/devices/other/work").status_code == 204
    url = str(live.client.base_url)
    assert main(["--poll", url, "--device", "agent-1", "--once"]) == 0
    done = live.client.get(asked.headers["location"]).json()
    assert (done["state"], done["attempts"], done["error"]) == ("done", 1, None), done
    assert set(done["result"]["latencies"]) == set(work["networks"])
    table = find_table("agent-1", home=live.settings.home)
    assert done["result"]["table"] == table_id(table.conditions)
    assert len(table.calibrations) == 1
    (device,) = [each for each in live.client.get("/v1/devices").json() if each["name"] == "agent-1"]
    assert (device["queued"], device["taken"], device["tables"]) == (0, 0, [done["result"]["table"]])
    assert device["seen_at"] is not None
    refused = live.client.get(f"/v1/devices/agent-1/files/{work['networks'][0]}")
    assert "no open work" in problem(refused, 404)


def test_a_device_measures_int8_where_it_is_asked_to(live: Live) -> None:
    model = live.post_model(tiny_onnx(image=(3, 8, 8), width=16, seed=8)).json()["id"]
    request = {"model_id": model, "networks": 3, "time_budget_s": 2.0, "precision": "int8"}
    asked = live.client.post("/v1/devices/agent-9/work", json=request)
    assert asked.status_code == 201, asked.text
    assert main(["--poll", str(live.client.base_url), "--device", "agent-9", "--once"]) == 0
    done = live.client.get(asked.headers["location"]).json()
    assert done["state"] == "done", done
    assert live.client.get(f"/v1/latency-tables/{done['result']['table']}").json()["precision"] == "int8"
    assert find_table("agent-9", home=live.settings.home, precision="int8").calibrations
    problem(live.client.post("/v1/devices/agent-9/work", json={**request, "precision": "int4"}))


def test_finalists_are_timed_on_the_device(live: Live, devices: DeviceRecords, tmp_path: Path) -> None:
    files = [tmp_path / "small.onnx", tmp_path / "large.onnx"]
    for path, width in zip(files, (8, 160), strict=True):
        path.write_bytes(tiny_onnx(image=(3, 32, 32), width=width))
    store = FileStore(live.settings.home / "store")
    row = queue_files(devices, store, "agent-2", files, input_shape=(3, 32, 32), time_budget_s=1.0)
    with pytest.raises(LatencyTableError, match=r"sent no result .* --poll URL --device agent-2"):
        wait_for_latencies(devices, row, timeout_s=0)
    with pytest.raises(Cancelled):
        wait_for_latencies(devices, row, timeout_s=9, should_stop=lambda: True)
    stop = threading.Event()
    agent = Agent(str(live.client.base_url), "agent-2")
    thread = threading.Thread(
        target=agent.run,
        kwargs={"once": False, "interval_s": 0.1, "say": lambda _: None, "should_stop": stop.is_set},
    )
    thread.start()
    try:
        small, large = wait_for_latencies(devices, row, timeout_s=60)
        timer = DeviceTimer(devices, store, "agent-2", timeout_s=60)
        again = timer([*files, files[0]], input_shape=(3, 32, 32))
        assert is_polling(devices, "agent-2")
        assert not is_polling(devices, "agent-2", within_s=-1)
        assert not is_polling(devices, "unheard-of")
    finally:
        stop.set()
        thread.join()
    assert isinstance(small, Latency)
    assert large.p10_ms > 2 * small.p10_ms
    assert again[1].p10_ms > 2 * again[0].p10_ms
    assert again[0] == again[2]


def send(live: Live, device: str, work_id: str, document: dict[str, Any]) -> httpx.Response:
    return live.client.post(
        f"/v1/devices/{device}/work/{work_id}/result", files={"file": ("result.json", json.dumps(document))}
    )


def result(table: LatencyTable | None, latencies: dict[str, Any], **changes: object) -> dict[str, Any]:
    conditions = sample_table("agent-3").conditions.to_dict()
    document = {
        "format": "autoprune-device-result", "version": 1, "conditions": conditions,
        "table": None if table is None else json.loads(table.to_json()), "latencies": latencies,
    }  # fmt: skip
    return {**document, **changes}


def test_results_that_are_refused(live: Live, devices: DeviceRecords, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny_onnx())
    row = queue_files(devices, FileStore(live.settings.home / "store"), "agent-3", [path], input_shape=(1, 8, 8))
    assert live.client.get("/v1/devices/agent-3/work").json()["id"] == row.id
    (sha256,) = [network["sha256"] for network in row.work["networks"]]
    good = Latency(2.0, 1.0, 3.0, 9, 1, 1, "onnxruntime 1.27.0", "Cortex-X4").to_dict()
    other = sample_table("agent-4").conditions.to_dict()
    quantized = sample_table("agent-3", precision="int8").conditions.to_dict()
    bad: list[tuple[dict[str, Any], str]] = [
        (result(None, {}), "latencies of 1 networks"),
        (result(None, {sha256: {**good, "p10_ms": 2.5}}), "p10 <= median"),
        (result(None, {sha256: {**good, "p10_ms": -1.0}}), "above 0"),
        (result(None, {sha256: {**good, "p90_ms": 10**400}}), "above 0"),
        (result(None, {sha256: {**good, "note": 1}}), "a latency has the fields"),
        (result(None, {sha256: {**good, "threads": 4}}), "other threads"),
        (result(None, {sha256: good}, conditions=other), "device: expected 'agent-3', found 'agent-4'"),
        (result(None, {sha256: good}, conditions=quantized), "precision: expected 'fp32', found 'int8'"),
        (result(sample_table("agent-3"), {sha256: good}), "none elsewhere"),
        (result(None, {sha256: good}, version=2), "version 1"),
        (result(None, {sha256: good}, note=2), "expected the fields"),
    ]
    for document, reason in bad:
        assert reason in problem(send(live, "agent-3", row.id, document))
    assert "no work" in problem(send(live, "agent-4", row.id, bad[0][0]), 404)
    assert devices.work(row.id).state == "taken"
    answer = send(live, "agent-3", row.id, result(None, {sha256: good}))
    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    assert "is done already" in problem(send(live, "agent-3", row.id, result(None, {sha256: good})), 409)


def test_a_device_that_cannot_measure_says_why(live: Live, devices: DeviceRecords, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny_onnx())
    store = FileStore(live.settings.home / "store")
    row = queue_files(devices, store, "agent-5", [path], input_shape=(3, 9, 9))  # a wrong shape
    said: list[str] = []
    Agent(str(live.client.base_url), "agent-5").run(once=True, interval_s=0.1, say=said.append)
    assert any("does not run on images" in line for line in said)
    with pytest.raises(LatencyTableError, match=r"agent-5 could not measure: .*does not run on images"):
        wait_for_latencies(devices, row, timeout_s=1)


def test_work_that_nobody_waits_for_is_withdrawn(live: Live, devices: DeviceRecords, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny_onnx())
    store = FileStore(live.settings.home / "store")
    for timer, error in (
        (DeviceTimer(devices, store, "agent-6", should_stop=lambda: True), Cancelled),
        (DeviceTimer(devices, store, "agent-6", timeout_s=0), LatencyTableError),
    ):
        with pytest.raises(error):
            timer([path], input_shape=(3, 8, 8))
    assert devices.open_work("agent-6") == []
    assert live.client.get("/v1/devices/agent-6/work").status_code == 204


def test_an_agent_whose_work_ends_while_it_downloads_goes_on(
    live: Live, devices: DeviceRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny_onnx())
    row = queue_files(devices, FileStore(live.settings.home / "store"), "agent-7", [path], input_shape=(3, 8, 8))
    agent, said = Agent(str(live.client.base_url), "agent-7"), list[str]()
    request = agent._request

    def withdrawn(url: str, **options: Any) -> bytes:  # noqa: ANN401 - handed on
        if "/files/" in url:
            devices.finish(row.id, error="withdrawn")
        return request(url, **options)

    monkeypatch.setattr(agent, "_request", withdrawn)
    agent.run(once=True, interval_s=0.1, say=said.append)
    assert "no use for it any more" in said[-1]


def test_a_result_is_sent_again_while_the_service_is_away(
    live: Live, devices: DeviceRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(tiny_onnx(image=(3, 8, 8)))
    row = queue_files(
        devices, FileStore(live.settings.home / "store"), "agent-8", [path], input_shape=(3, 8, 8), time_budget_s=0.1
    )
    monkeypatch.setattr("autoprune.latency_tables.agent._RESEND_S", 0.01)
    agent, failures = Agent(str(live.client.base_url), "agent-8"), [None, 503]
    send_once = agent._send

    def shaky(url: str, document: dict[str, Any]) -> None:
        if failures:
            raise ServiceError("away", failures.pop())
        send_once(url, document)

    monkeypatch.setattr(agent, "_send", shaky)
    agent.run(once=True, interval_s=0.1, say=lambda _: None)
    assert devices.work(row.id).state == "done"


def test_requests_that_are_refused(live: Live) -> None:
    assert "no model has the id" in problem(live.client.post("/v1/devices/x/work", json={"model_id": "none"}), 404)
    model = live.post_model(tiny_onnx(seed=9)).json()["id"]
    assert "networks" in problem(live.client.post("/v1/devices/x/work", json={"model_id": model, "networks": 1}))
    assert "a device's name" in problem(live.client.post("/v1/devices/-x/work", json={"model_id": model}))
    assert "a device's name" in problem(live.client.get("/v1/devices/a..b/work"))
    assert "a device's name" in problem(live.client.get("/v1/devices/a.json/work"))  # would be a file of the server
    assert "no work has the id" in problem(live.client.get("/v1/devices/x/work/wrk_0"), 404)
    with pytest.raises(ServiceError, match="422: a device's name"):
        Agent(str(live.client.base_url), "x")._request(f"{live.client.base_url}/v1/devices/-/work")
    with pytest.raises(ServiceError, match="cannot be reached"):
        Agent("http://127.0.0.1:9", "x").run(once=True, interval_s=0.1, say=lambda _: None)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[DeviceRecords]:
    records = Records(f"sqlite:///{tmp_path / 'a.sqlite'}", create=True)
    yield DeviceRecords(records)
    records.close()


def test_work_is_given_out_in_order_and_again_after_a_time_out(
    own: DeviceRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (own.queue("a", {"time_budget_s": 1.0, "n": n}) for n in range(2))
    own.queue("b", {"time_budget_s": 1.0})
    assert [row.id for row in own.open_work("a")] == [first.id, second.id]
    taken = [own.take("a"), own.take("a"), own.take("a")]
    assert [row and row.id for row in taken] == [first.id, second.id, None]
    assert own.counts() == {"a": {"taken": 2}, "b": {"queued": 1}}
    assert own.finish(second.id, result={"x": 1}).result == {"x": 1}
    with pytest.raises(WorkStateError, match="is done already"):
        own.finish(second.id, error="late")
    with pytest.raises(NotFoundError):
        own.work(first.id, device="b")
    assert is_polling(own, "a", within_s=-1)  # it measures, so it does not ask
    later(monkeypatch, 601)
    assert own.take("a") is None
    for attempt in range(2, MOST_ATTEMPTS + 1):
        later(monkeypatch, 10_000 * attempt)
        again = own.take("a")
        assert again is not None
        assert (again.id, again.attempts) == (first.id, attempt)
    later(monkeypatch, 1_000_000)
    assert own.take("a") is None
    assert (own.work(first.id).state, own.work(first.id).error) == (
        "failed", f"given out {MOST_ATTEMPTS} times, and no result came"
    )  # fmt: skip
    assert [(row.name, row.seen_at is not None) for row in own.all()] == [("a", True), ("b", False)]


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the records think that it is later."""
    moment = now() + timedelta(seconds=seconds)
    monkeypatch.setattr("autoprune.service.storage.device_records.now", lambda: moment)


def test_one_piece_of_work_goes_to_one_of_many_who_ask(own: DeviceRecords) -> None:
    for _ in range(8):
        own.queue("a", {"time_budget_s": 1.0})
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: found.extend(row.id if row else None for row in (own.take("a"), own.take("a"))))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert found.count(None) == 2
    assert len(set(found)) == 9
