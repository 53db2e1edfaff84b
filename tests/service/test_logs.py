"""What the service logs: a document a line, every request and every change of a job, and no secrets."""

import contextlib
import io
import json
import logging
import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from autoprune.service import logs
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.key_records import KeyRecords
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import KeyScope
from tests.service.live_service import in_process, in_thread

SECRET = "s3cr3t-W0rd"  # noqa: S105 - to be found nowhere
TOKEN = f"autoprune_key_0123456789ab_{'A' * 43}"


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what a log holds; every line must be a document."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextlib.contextmanager
def logged(level: str = "info") -> Iterator[list[dict[str, Any]]]:
    """Yield the lines that are logged meanwhile, once the context has ended."""
    stream, found = io.StringIO(), list[dict[str, Any]]()
    with logs.written(level, stream):
        yield found
    found += map(json.loads, stream.getvalue().splitlines())


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql+psycopg://user:{SECRET}@host/base",
        f"https://:{SECRET}@host",
        f"postgresql://host/base?user=a&password={SECRET}",
        f"GET /v1/jobs?api_key={SECRET}&limit=1",
        f"Authorization: Bearer {SECRET}",
        f"{{'authorization': 'Basic {SECRET}'}}",
        f"access_token={SECRET}",
        f"POST /token client_secret={SECRET}&a=b",
        f"PGPASSWORD={SECRET} psql",
        f"PGPASSWORD='x {SECRET}' psql",
        f'{{"password": "{SECRET}", "a": "b"}}',
        f'{{"password":"quoted \\" {SECRET}"}}',
        f"{{'api-key': b'{SECRET}'",
        f"token: \N{LATIN SMALL LETTER E WITH ACUTE}{SECRET}",
        json.dumps({"body": json.dumps({"refresh_token": SECRET})}),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(text: str) -> None:
    log = logging.getLogger("autoprune.test")
    with logged() as found:
        log.info("%s", text)
        log.info("field", extra={"where": {"inside": [text]}})
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("failed")
    assert len(found) == 3
    assert SECRET not in json.dumps(found)
    assert "ValueError" in found[2]["exception"]


def test_what_is_no_secret_stays() -> None:
    assert logs.redacted(f"key_0123456789ab: {TOKEN}") == "key_0123456789ab: autoprune_key_0123456789ab_***"
    text = "serving http://127.0.0.1:8765/docs, asked by me@example.org; basic tokens: 3 = three"
    assert logs.redacted(text) == text
    document = {"token": None, "secret": 3, "event": "no password=", "last": "password:", "path": "a, b"}
    assert json.loads(logs.redacted(json.dumps(document))) == document
    assert logs.redacted('{"password": "abc", "path": "x"} password=abc, token') == (
        '{"password": "***", "path": "x"} password=***, token'
    )


def test_long_lines_are_redacted_at_once() -> None:
    started = time.process_time()
    for long in ("a" * 10**6, "token" * 10**5, 'password="' * 10**4, "password" + " " * 10**5):
        logs.redacted(long)
    assert time.process_time() - started < 5


def test_lines_tell_when_how_bad_and_who() -> None:
    with logged("warning") as found:
        logging.getLogger("autoprune.test").info("not told")
        logging.getLogger("uvicorn.error").warning("told", extra={"color_message": "x", "odd": Path("a")})
    [line] = found
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "warning", "logger": "uvicorn.error", "event": "told", "odd": "a"}
    assert not logging.getLogger().isEnabledFor(logging.INFO)


def test_levels_are_settings() -> None:
    assert Settings.from_environment({"AUTOPRUNE_LOG_LEVEL": "error"}).log_level == "error"
    assert Settings.from_environment({}).log_level == "info"
    with pytest.raises(SettingsError, match=r"AUTOPRUNE_LOG_LEVEL: expected one of debug, info.*found 'loud'"):
        Settings.from_environment({"AUTOPRUNE_LOG_LEVEL": "loud"})


def test_every_request_is_a_line_written_before_its_answer_has_ended(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False, require_keys=True)
    log = tmp_path / "log"
    with log.open("w") as stream, logs.written("info", stream), in_thread(settings) as live:
        with contextlib.closing(Records(settings.url)) as records:
            row, token = KeyRecords(records).create("reader", [KeyScope.READ])
        headers = {"Authorization": f"Bearer {token}", "X-Request-ID": "from-proxy.1"}
        for count in range(20):
            answer = live.client.get(f"/v1/jobs?limit=1&token={SECRET}", headers=headers)
            told = [line for line in lines(log) if line["event"] == "request"]  # at once: the answer was complete
            assert len(told) == count + 1
        assert answer.headers["x-request-id"] == told[-1]["request_id"] == "from-proxy.1"
        assert {name: told[-1][name] for name in ("method", "path", "status", "key_id")} == {
            "method": "GET", "path": "/v1/jobs", "status": 200, "key_id": row.id,
        }  # fmt: skip
        assert 0 < told[-1]["ms"] < 10_000
        refused = [
            live.client.get(f"/nowhere/{token}", headers={"Authorization": f"Bearer {token}", "X-Request-ID": "a b"}),
            live.client.post("/v1/jobs", headers={"Authorization": f"Basic {SECRET}"}),
            live.client.get("/v1/jobs", headers={"Host": "evil.example", "Origin": "null"}),
        ]
        told = [line for line in lines(log) if line["event"] == "request"][-3:]
        assert [answer.status_code for answer in refused] == [line["status"] for line in told] == [404, 401, 401]
        assert [line["key_id"] for line in told] == [row.id, None, None]
        assert [answer.headers["x-request-id"] for answer in refused] == [line["request_id"] for line in told]
        assert len({line["request_id"] for line in told} | {"a b"}) == 4
    assert token[30:] not in log.read_text()
    assert SECRET not in log.read_text()


def test_a_defect_is_found_by_the_id_of_its_request(tmp_path: Path) -> None:
    settings, log = Settings(tmp_path / "home", run_jobs=False), tmp_path / "log"
    with log.open("w") as stream, logs.written("info", stream), in_thread(settings) as live:
        live.client.get("/v1/jobs")
        with contextlib.closing(Records(settings.url)) as records, records.sessions.begin() as session:
            session.connection().exec_driver_sql(
                "INSERT INTO jobs (id, kind, state, spec, cancel_requested, attempts,"
                " created_at) VALUES ('odd', 'search', 'no such state', '{}', 0, 0, '2026-01-01 00:00:00.000000')"
            )
        answer = live.client.get("/v1/jobs/odd")
        assert answer.status_code == 500
        told = [line for line in lines(log) if line.get("request_id") == answer.headers["x-request-id"]]
    assert [(line["event"], line["level"]) for line in told[:2]] == [
        ("request", "info"),
        ("defect while answering a request", "error"),
    ]
    assert (told[0]["status"], told[0]["complete"]) == (500, False)
    assert "no such state" in told[1]["exception"]


def test_a_service_tells_what_becomes_of_jobs_and_its_workers_log_the_same_way(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with in_process(settings) as (live, _):
        with contextlib.closing(Records(settings.url)) as records:
            records.add_job("bad", {"model": SECRET})
        assert live.finished("bad")["state"] == "failed"
        told = until_told(tmp_path / "service.log", "attempt over")
    changes = [(line["state"], line["attempt"]) for line in told if line["event"] == "job change"]
    assert changes == [("running", 1)]  # it was queued here, and its own process failed it
    assert [line["state"] for line in told if line["event"] == "attempt over"] == ["failed"]
    assert {line["logger"] for line in told} >= {"uvicorn.error"}
    of_worker = lines(settings.job_folder("bad") / "worker.log")
    assert [line["level"] for line in of_worker] == ["error", "info"]
    change = of_worker[1]
    assert (change["event"], change["job_id"], change["state"], change["error_type"]) == (
        "job change", "bad", "failed", "defect",
    )  # fmt: skip


def until_told(log: Path, event: str) -> list[dict[str, Any]]:
    """Return the lines of a log once one tells of `event`."""
    deadline = time.monotonic() + 20
    while True:
        told = lines(log)
        if event in [line["event"] for line in told]:
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def test_where_somebody_watches_there_are_words(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "autoprune.service.cli.app", "serve", "--port", "0", "--log-level", "info"]
    environment = {**os.environ, "AUTOPRUNE_HOME": str(tmp_path / "home"), "AUTOPRUNE_LOG_LEVEL": "error"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip().removeprefix("serving at ")
        assert httpx.get(f"{url}/healthz").status_code == 200
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    shown = b""
    with contextlib.suppress(OSError):  # what Linux answers once nobody holds the other end
        while piece := os.read(ours, 2**16):
            shown += piece
    os.close(ours)
    assert b"path" in shown
    assert b"/healthz" in shown
    assert not any(line.startswith(b"{") for line in shown.splitlines())
