"""Pages of other sites cannot use the service through a browser; large bodies are for routes that take files."""

from pathlib import Path

import pytest

from autoprune.service.rest.body_limit import MAX_DOCUMENT_BYTES
from autoprune.service.rest.caller_check import is_local
from autoprune.service.settings import Settings
from tests.service.live_service import Live, in_thread, tiny_onnx

MODEL = {"file": ("m.onnx", tiny_onnx(seed=1))}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.1", "", "[::"])
def test_requests_under_another_name_are_refused(live: Live, host: str) -> None:
    answer = live.client.get("/v1/jobs", headers={"host": host})
    assert answer.status_code == 403, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "localhost" in answer.json()["detail"]


def test_names_of_this_machine_are_answered(live: Live) -> None:
    port = live.client.base_url.port
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "127.0.0.2", "[::1]:8765"):
        assert live.client.get("/v1/jobs", headers={"host": host}).status_code == 200, host


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"]
)
def test_pages_of_other_sites_cannot_change_anything(live: Live, origin: str) -> None:
    answer = live.client.post("/v1/models", files=MODEL, headers={"origin": origin})
    assert answer.status_code == 403, answer.text
    assert origin in answer.json()["detail"]
    assert live.client.get("/v1/models").json() == []


def test_own_pages_can(live: Live) -> None:
    own = f"http://127.0.0.1:{live.client.base_url.port}"
    model = live.client.post("/v1/models", files=MODEL, headers={"origin": own})
    assert model.status_code == 201, model.text


def test_a_proxy_is_told_to_pass_the_host_on(tmp_path: Path) -> None:
    own = {"origin": "https://prune.example"}
    with in_thread(Settings(tmp_path / "home", run_jobs=False, require_keys=True)) as service:
        by_default = service.client.post("/jobs", headers=own)  # the Host is the proxy's name for the service
        passed_on = service.client.post("/jobs", headers={**own, "host": "prune.example"})
    assert (by_default.status_code, passed_on.status_code) == (403, 401)
    assert "proxy_set_header Host $http_host" in by_default.json()["detail"]


def test_only_routes_that_take_files_take_large_bodies(live: Live) -> None:
    large = {"file": ("x", b"x" * (MAX_DOCUMENT_BYTES + 1))}
    for path in ("/v1/jobs", "/v1/comparisons", "/v1/jobs/x/cancel", "/v1/models/x", "/anything"):
        answer = live.client.post(path, files=large)
        assert answer.status_code == 413, (path, answer.text)
    for path in ("/v1/models", "/v1/latency-tables"):
        assert live.client.post(path, files=large).status_code == 422, path


def test_hosts_that_are_this_machine() -> None:
    assert all(map(is_local, ("http://localhost", "//127.0.0.1:80", "//[::1]", "//127.9.9.9")))
    assert not any(map(is_local, ("http://a", "//", "null", "", "//0.0.0.0", "//[", "http://localhost@evil.example")))
