"""A service that is not there, is another one, goes away and comes back, or sends what it should not."""

import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from autoprune import Client, ClientError
from autoprune.service.client.download import save
from autoprune.service.client.views import Artifact
from autoprune.service.settings import DEFAULT_URL, Settings
from autoprune.service.specs.progress import Progress
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from tests.service.live_service import Live, in_process, in_thread, tiny_onnx

QUICK = {"policies": ["uniform"], "evaluations": 1, "refit": False, "fit_images": 100, "search_images": 50,
         "report_images": 50}  # fmt: skip


COUNT = 'autoprune_http_request_duration_seconds_count{method="GET"'


def free_port() -> int:
    """Return a port that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OtherService(BaseHTTPRequestHandler):
    """Some other web server: notes who asks, answers with a page or with JSON that means nothing here."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(self.headers["Authorization"])
        json = self.path.startswith("/v1/jobs/")
        self.send_response(200 if json else 502)
        self.end_headers()
        self.wfile.write(b'{"hello": "world"}' if json else b"<h1>Bad\n gateway</h1>")

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def other() -> Iterator[str]:
    OtherService.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherService) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_nobody_there_says_where_and_what_to_do() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(ClientError, match=f"no answer from {url} .*autoprune serve") as caught:
        client.jobs()
    assert (caught.value.type, caught.value.status) == ("unreachable", None)


def test_another_service_is_recognised(other: str) -> None:
    with Client(other) as client:
        with pytest.raises(ClientError, match=r"found '<h1>Bad gateway</h1>' .HTTP 502, GET /v1/jobs.*check the addr"):
            client.jobs()
        with pytest.raises(ClientError, match=f"expected autoprune's service at {other}, found another answer"):
            client.job("job_1")


def test_address_and_key_come_from_arguments_or_the_environment(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPRUNE_URL", raising=False)
    monkeypatch.delenv("AUTOPRUNE_API_KEY", raising=False)
    assert Client().url == DEFAULT_URL == "http://127.0.0.1:8765"
    monkeypatch.setenv("AUTOPRUNE_URL", f"{other}/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # is not asked
    for key in (None, "given"):
        with pytest.raises(ClientError):
            Client(api_key=key).jobs()
    monkeypatch.setenv("AUTOPRUNE_API_KEY", "found")
    for key in (None, "given"):
        with pytest.raises(ClientError):
            Client(api_key=key).jobs()
    assert OtherService.asked == [None, "Bearer given", "Bearer found", "Bearer given"]
    assert Client(DEFAULT_URL).url == DEFAULT_URL


def test_waiting_outlives_a_service_that_is_killed_and_started_again(tmp_path: Path) -> None:
    settings, port = Settings(tmp_path / "home"), free_port()
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx())
    with in_process(settings, port=port) as (live, service), Client(live.url) as client:
        job = client.submit(tmp_path / "tiny.onnx", "digits", "macs=50%", **QUICK)  # starting its process takes seconds
        live.wait(job.id, lambda now: now["state"] == "running")
        states: list[str] = []

        def wait() -> None:
            states.append(job.wait(250).state)

        waiting = threading.Thread(target=wait)
        waiting.start()
        service.kill()
        service.wait()
        time.sleep(1)
        assert waiting.is_alive()
        with in_process(settings, port=port):
            waiting.join(280)
            assert states == ["succeeded"]
            assert job.status.attempts == 2


class CuttingProxy:
    """Passes connections on to a service, and cuts the first ones once the service has begun to answer.

    In place of the answer it sends `instead`; with None it says nothing until the client gives up.
    """

    def __init__(self, live: Live, cuts: int, instead: bytes | None = b"") -> None:
        self._service = ("127.0.0.1", int(live.client.base_url.port or 0))
        self._cuts, self._instead = cuts, instead
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                with client, socket.create_connection(self._service) as service:
                    self._pass(client, service)

    def _pass(self, client: socket.socket, service: socket.socket) -> None:
        """Pass one connection on, until one side ends it."""
        while True:
            for ready in select.select([client, service], [], [], 30)[0]:
                data = ready.recv(2**16)
                if not data:
                    return
                if ready is service and self._cuts > 0:
                    self._cuts -= 1
                    if self._instead is None:
                        client.recv(1)
                    else:
                        client.sendall(self._instead)
                    return
                (service if ready is client else client).sendall(data)


UNAVAILABLE = b"HTTP/1.1 %d Not now\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "instead", [b"", None, UNAVAILABLE % 502, UNAVAILABLE % 503, UNAVAILABLE % 504], ids=["cut", "slow", *"234"]
)
def test_a_job_whose_answer_is_lost_is_submitted_once(instead: bytes | None, tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", run_jobs=False)) as live:
        model = live.post_model(tiny_onnx()).json()["id"]
        proxy = CuttingProxy(live, 2, instead)
        try:
            with Client(proxy.url, timeout=30 if instead is not None else 1) as client:
                job = client.submit(model, "digits", "macs=50%", **QUICK)
        finally:
            proxy.close()
        assert [each["id"] for each in live.client.get("/v1/jobs").json()] == [job.id]
        with Client(live.url) as client:
            assert client.submit(model, "digits", "macs=50%", **QUICK).id != job.id  # somebody means it


def test_a_busy_service_is_not_told_to_be_missing(tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", run_jobs=False)) as live:
        proxy = CuttingProxy(live, 1, None)
        try:
            with Client(proxy.url, timeout=0.5) as client, pytest.raises(ClientError, match="there but busy") as caught:
                client.jobs()
        finally:
            proxy.close()
    assert caught.value.is_transient


def test_who_waits_is_told_and_asks_little(tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", run_jobs=False)) as live, Client(live.url) as client:
        model = live.post_model(tiny_onnx()).json()["id"]
        job = client.submit(model, "digits", "macs=50%", **QUICK)
        seen: list[Progress] = []
        waiting = threading.Thread(target=lambda: job.wait(60, progress=seen.append))
        waiting.start()
        with contextlib.closing(Records(live.settings.url)) as records:
            row = records.claim()
            assert row is not None
            for done in range(1, 6):
                records.report(job.id, row.attempts, progress={"stage": "search", "done": done, "total": 9})
                time.sleep(0.4)
            records.move(job.id, JobState.SUCCEEDED, attempt=row.attempts)
        waiting.join(10)
        assert not waiting.is_alive()
        told = [progress.done for progress in seen if progress.stage == "search"]
        assert (told, seen[0].stage, seen[-1].stage) == (sorted(told), "queued", "done")
        assert {1, 2, 3, 4, 5} == set(told)
        counts = live.client.get("/metrics").text.splitlines()
        [asked] = [line for line in counts if line.startswith(COUNT) and 'route="/v1/jobs/{job_id}",' in line]
        assert float(asked.split()[-1]) < 7  # four a second would be more


def test_waiting_ends_where_the_service_stays_away(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx())
    with in_thread(Settings(tmp_path / "home", run_jobs=False)) as live:
        job = Client(live.url, reconnect=0.6).submit(tmp_path / "tiny.onnx", "digits", "macs=50%")
        patient = Client(live.url).job(job.id)
    started = time.monotonic()
    for waiting, timeout in ((job, None), (patient, 0.6)):
        with pytest.raises(ClientError, match="no answer from"):
            waiting.wait(timeout)
    assert time.monotonic() - started > 1.2


def test_damaged_files_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_onnx())
    with in_thread(Settings(tmp_path / "home")) as live, Client(live.url) as client:
        job = client.submit(tmp_path / "tiny.onnx", "digits", "macs=50%", **QUICK).wait(120)
        [kept] = job.download(tmp_path / "out", "report.html")
        before = kept.read_bytes()
        stored = live.settings.artifact_folder(job.id)
        for name, content in (
            ("report.html", before[:-1] + b"!"),
            ("report.html", before + b"more"),
            ("uniform/plan.json", b""),
            ("result.json", b"{}"),
        ):
            (stored / name).write_bytes(content)
            with pytest.raises(ClientError, match=f"{name}: expected .* bytes with sha256") as caught:
                job.download(tmp_path / "out", name)
            assert caught.value.type == "damaged-download"
        with pytest.raises(ClientError, match=r"result.json: expected"):
            job.network()
        (stored / "uniform" / "model.onnx").unlink()
        with pytest.raises(ClientError, match="has no artifact"):
            job.download(tmp_path / "out", "uniform/model.onnx")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [kept]
    assert kept.read_bytes() == before


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", ".", "", "link/out.txt"])  # noqa: S108
def test_files_outside_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    artifact = Artifact(name=name, sha256=hashlib.sha256(b"x").hexdigest(), size_bytes=1, media_type="text/plain")
    with pytest.raises(ClientError, match="outside its folder"):
        save(artifact, [b"x"], folder)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
