"""Lists in pages: everything once, whatever is added meanwhile."""

import pytest

from autoprune.service.storage.device_records import DeviceRecords
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobKind, JobState
from tests.service.live_service import Live, images_npz, tiny_onnx

SPEC = {"model": "m", "dataset": "digits", "budget": "macs=50%"}


def pages(live: Live, address: str, key: str = "id") -> list[list[str]]:
    """Follow the links of a list, and return what each page shows."""
    found, url = [], address
    while True:
        answer = live.client.get(url)
        assert answer.status_code == 200, answer.text
        found.append([item[key] for item in answer.json()])
        if "next" not in answer.links:
            return found
        url = answer.links["next"]["url"]


def test_jobs_of_both_kinds(live: Live, records: Records) -> None:
    for index in range(5):
        records.add_job(f"job{index}", SPEC)
        records.add_job(f"cmp{index}", SPEC, kind=JobKind.COMPARISON)
    assert pages(live, "/v1/jobs?limit=2") == [["job4", "job3"], ["job2", "job1"], ["job0"]]
    assert pages(live, "/v1/comparisons?limit=5") == [[f"cmp{index}" for index in (4, 3, 2, 1, 0)]]
    records.move("job3", JobState.FAILED, error={"type": "x", "detail": "x"})
    assert pages(live, "/v1/jobs?state=queued&limit=3") == [["job4", "job2", "job1"], ["job0"]]


def test_what_is_added_meanwhile_moves_nothing(live: Live, records: Records) -> None:
    before = [job["id"] for job in live.client.get("/v1/jobs").json()]
    first = live.client.get("/v1/jobs", params={"limit": 2})
    records.add_job("newer", SPEC)
    rest = pages(live, first.links["next"]["url"])
    assert [job["id"] for job in first.json()] + [job for page in rest for job in page] == before


def test_uploads(live: Live) -> None:
    models = [live.post_model(tiny_onnx(seed=seed)).json()["id"] for seed in range(3)]
    assert pages(live, "/v1/models?limit=2") == [[models[2], models[1]], [models[0]]]
    assert pages(live, "/v1/datasets?limit=1") == [["digits"]]
    dataset = live.post_dataset(images_npz(10), "a.npz").json()["id"]
    assert pages(live, "/v1/datasets?limit=1") == [[dataset], ["digits"]]
    assert pages(live, "/v1/datasets") == [[dataset, "digits"]]
    assert pages(live, "/v1/datasets?after=digits") == [[]]


def test_devices(live: Live, records: Records) -> None:
    devices = DeviceRecords(records)
    for name in ("phone", "board", "watch"):
        devices.take(name)
    assert pages(live, "/v1/devices?limit=3", "name") == [["amd-epyc", "board", "phone"], ["watch"]]  # one is shipped
    assert pages(live, "/v1/devices?after=c", "name") == [["phone", "watch"]]
    [tables] = pages(live, "/v1/latency-tables")
    assert pages(live, "/v1/latency-tables?limit=1") == [[table] for table in tables]


@pytest.mark.parametrize(
    "address", ["/v1/jobs?after=none", "/v1/models?after=job0", "/v1/datasets?after=none", "/v1/comparisons?limit=0"]
)
def test_pages_that_are_not_there(live: Live, address: str) -> None:
    answer = live.client.get(address)
    assert answer.status_code == 422, answer.text
    assert "expected" in answer.text or "greater" in answer.text


def test_the_document_describes_the_link(live: Live) -> None:
    paths = live.client.get("/openapi.json").json()["paths"]
    for path in ("/v1/jobs", "/v1/comparisons", "/v1/models", "/v1/datasets", "/v1/devices", "/v1/latency-tables"):
        answer = paths[path]["get"]["responses"]["200"]
        assert "Link" in answer["headers"]
        assert answer["content"]["application/json"]["schema"]["type"] == "array"
