"""API keys: who gets in, who may do what, and where the service may listen."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from autoprune.latency_tables.agent import Agent, ServiceError
from autoprune.latency_tables.runner import main
from autoprune.service.rest.server import serve
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.key_records import KeyNameError, KeyRecords
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import KeyScope
from tests.service.live_service import Live, in_process, in_thread, tiny_onnx

MODEL = {"file": ("m.onnx", tiny_onnx(seed=1))}
FOREIGN = {"host": "prune.example:8765"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with in_thread(Settings(tmp_path_factory.mktemp("keys") / "home", run_jobs=False, require_keys=True)) as service:
        yield service


@pytest.fixture
def keys(live: Live) -> Iterator[KeyRecords]:
    with contextlib.closing(Records(live.settings.url)) as records:
        yield KeyRecords(records)


def bearer(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def test_nobody_gets_in_without_a_key_except_to_see_whether_the_service_works(live: Live, keys: KeyRecords) -> None:
    row, token = keys.create("somebody", [KeyScope.READ])
    wrong = f"autoprune_{row.id}_{'A' * 43}"
    for headers in (
        {},
        {"Authorization": "Bearer"},
        bearer("x"),
        bearer(wrong),
        bearer(token[:-1]),
        {"Authorization": f"Basic {token}"},
    ):
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/docs"), ("GET", "/nowhere")):
            answer = live.client.request(method, path, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json"), (
                answer.text
            )
            assert answer.headers["www-authenticate"].startswith('Bearer realm="autoprune"')
            assert ("invalid_token" in answer.headers["www-authenticate"]) == bool(headers)
            assert token not in answer.text
    assert live.client.get("/healthz").status_code == 200


def test_a_browser_is_asked_for_a_password_and_sends_the_token_as_one(live: Live, keys: KeyRecords) -> None:
    html = {"Accept": "text/html,application/xhtml+xml"}
    asked = live.client.get("/", headers=html)
    assert (asked.status_code, asked.headers["www-authenticate"].partition(" ")[0]) == (401, "Basic")
    _, token = keys.create("reader", [KeyScope.READ])
    page = live.client.get("/", headers=html, auth=("anybody", token))
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert live.client.post("/jobs", headers=html, auth=("anybody", token)).status_code == 403
    foreign = html | {"Origin": "http://elsewhere.example"}
    _, writes = keys.create("writer", [KeyScope.WRITE])
    assert live.client.post("/jobs", headers=foreign, auth=("anybody", writes)).status_code == 403
    for wrong in ("Basic !", "Basic " + "é".encode("latin-1").hex(), "Basic " + token):
        assert live.client.get("/", headers={"Authorization": wrong}).status_code == 401


def test_scopes_decide_what_a_key_may_do(live: Live, keys: KeyRecords) -> None:
    tokens = {scope: bearer(keys.create(scope, [scope])[1]) for scope in KeyScope}
    work = "/v1/devices/shelf/work"
    allowed = {
        (scope, method, path): live.client.request(method, path, headers=tokens[scope]).status_code != 403
        for scope in KeyScope
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", work), ("GET", f"{work}/none"))
    }
    assert [key for key, may in allowed.items() if not may] == [
        (KeyScope.READ, "POST", "/v1/jobs"),
        (KeyScope.READ, "GET", work),  # takes the work out of the queue
        (KeyScope.WRITE, "GET", "/v1/jobs"),
        (KeyScope.WRITE, "GET", f"{work}/none"),
    ]
    refused = live.client.post("/v1/models", files=MODEL, headers=tokens[KeyScope.READ])
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:autoprune:problem:missing-scope")
    assert 'error="insufficient_scope", scope="write"' in refused.headers["www-authenticate"]
    assert live.client.post("/v1/models", files=MODEL, headers=tokens[KeyScope.WRITE]).status_code == 201


def test_metrics_are_read_with_a_key(live: Live, keys: KeyRecords) -> None:
    assert live.client.get("/metrics").status_code == 401
    for scope, status in ((KeyScope.WRITE, 403), (KeyScope.READ, 200), (KeyScope.ADMIN, 200)):
        assert live.client.get("/metrics", headers=bearer(keys.create("m", [scope])[1])).status_code == status


def test_a_revoked_key_ends_at_once_and_its_use_is_on_record(live: Live, keys: KeyRecords) -> None:
    row, token = keys.create("short", [KeyScope.READ, KeyScope.READ])
    assert (row.scopes, row.last_used_at) == (["read"], None)
    assert live.client.get("/v1/jobs", headers=bearer(token)).status_code == 200
    used = next(key for key in keys.all() if key.id == row.id).last_used_at
    assert used is not None
    assert used >= row.created_at
    first = keys.revoke(row.id).revoked_at
    assert live.client.get("/v1/jobs", headers=bearer(token)).status_code == 401
    assert keys.revoke(row.id).revoked_at == first
    with pytest.raises(NotFoundError, match="keys list"):
        keys.revoke("key_none")
    for name in ("", " ", "x" * 101, "a\nb"):
        with pytest.raises(KeyNameError):
            keys.create(name, [KeyScope.READ])
    with pytest.raises(KeyNameError, match="at least one scope"):
        keys.create("nothing", [])


def test_no_token_is_stored(live: Live, keys: KeyRecords) -> None:
    secret = keys.create("secret", [KeyScope.READ])[1].rpartition("_")[2].encode()
    with contextlib.closing(Records(live.settings.url)) as records, records.sessions() as session:
        session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    for path in live.settings.home.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def test_with_keys_the_service_has_any_name_but_no_pages_of_other_sites(live: Live, keys: KeyRecords) -> None:
    _, token = keys.create("far away", [KeyScope.READ, KeyScope.WRITE])
    headers = {**FOREIGN, **bearer(token)}
    assert live.client.get("/v1/jobs", headers=headers).status_code == 200
    assert live.client.get("/v1/jobs", headers=FOREIGN).status_code == 401
    for origin in ("https://evil.example", "null", "http://prune.example", "http://127.0.0.1:1"):
        answer = live.client.post("/v1/models", files=MODEL, headers={**headers, "origin": origin})
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:autoprune:problem:foreign-caller"), origin
    own = {**headers, "origin": "https://prune.example:8765"}  # behind a proxy that speaks TLS
    assert live.client.post("/v1/models", files=MODEL, headers=own).status_code in (200, 201)


def test_devices_bring_a_key(live: Live, keys: KeyRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    url, (row, token) = str(live.client.base_url), keys.create("device", [KeyScope.READ, KeyScope.WRITE])
    with pytest.raises(ServiceError, match="valid API key"):
        Agent(url, "shelf").do_one(print)
    assert not Agent(url, "shelf", key=token).do_one(print)  # nothing to do
    monkeypatch.setenv("AUTOPRUNE_API_KEY", token)
    assert main(["--poll", url, "--device", "shelf", "--once"]) == 0
    keys.revoke(row.id)
    assert main(["--poll", url, "--device", "shelf", "--once"]) == 2


def test_the_api_description_names_the_keys(live: Live, keys: KeyRecords) -> None:
    headers = bearer(keys.create("reader", [KeyScope.READ])[1])
    document = live.client.get("/openapi.json", headers=headers).json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert {"401", "403"} < set(document["paths"]["/v1/jobs"]["post"]["responses"])


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.com", ""])  # noqa: S104 - to be refused
def test_only_loopback_is_served_while_there_is_no_key(host: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"found no active one: make one with autoprune keys create"):
        serve(host, 0, settings=Settings(tmp_path / "home"))


def test_a_service_with_keys_listens_anywhere_and_asks_everybody(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    settings.prepare()
    with contextlib.closing(Records(settings.url, create=True)) as records:
        row, token = KeyRecords(records).create("me", [KeyScope.READ])
    with in_process(settings, host="0.0.0.0") as (live, _):  # noqa: S104 - what is tested
        port = live.client.base_url.port
        address = f"http://{socket.gethostbyname(socket.gethostname())}:{port}/v1/jobs"
        assert httpx.get(address).status_code == 401
        assert httpx.get(address, headers=bearer(token)).status_code == 200
        assert autoprune(settings, "keys", "revoke", row.id) == f"revoked: {row.id} (me)\n"
        assert httpx.get(address, headers=bearer(token)).status_code == 401
    with pytest.raises(SettingsError, match="no active one"):
        serve("127.0.0.1", 0, settings=Settings(tmp_path / "home", require_keys=True))


def test_the_setting_for_loopback() -> None:
    assert Settings.from_environment({"AUTOPRUNE_REQUIRE_KEYS": "1"}).require_keys
    assert not Settings.from_environment({"AUTOPRUNE_REQUIRE_KEYS": "0"}).require_keys
    with pytest.raises(SettingsError, match="expected 0 or 1, found 'yes'"):
        Settings.from_environment({"AUTOPRUNE_REQUIRE_KEYS": "yes"})


def test_keys_on_the_command_line(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    assert "no API keys yet" in autoprune(settings, "keys", "list")
    token = autoprune(settings, "keys", "create", "ci [bold]").strip()
    made = json.loads(autoprune(settings, "keys", "create", "boss", "--scope", "admin", "--json"))
    listed = json.loads(autoprune(settings, "keys", "list", "--json"))
    assert [(key["name"], key["scopes"]) for key in listed] == [("ci [bold]", ["read", "write"]), ("boss", ["admin"])]
    assert made.pop("token").startswith(f"autoprune_{made['id']}_")
    assert listed[1] == made
    with contextlib.closing(Records(settings.url)) as records:
        assert KeyRecords(records).active(token) is not None
    assert "ci [bold]" in autoprune(settings, "keys", "list")
    assert "found 'root'" in autoprune(settings, "keys", "create", "x", "--scope", "root", code=2)
    assert "autoprune keys list" in autoprune(settings, "keys", "revoke", "key_none", code=2)


def autoprune(settings: Settings, *arguments: str, code: int = 0) -> str:
    """Run the command line in a service home; return what it prints, to stderr where it fails."""
    environment = {**os.environ, "AUTOPRUNE_HOME": str(settings.home), "COLUMNS": "200"}
    command = [sys.executable, "-m", "autoprune.service.cli.app", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
