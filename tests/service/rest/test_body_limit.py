"""Requests that are too large are answered, however their bodies come."""

import socket
from collections.abc import Iterator

import pytest

from autoprune.service.rest.body_limit import FORM_OVERHEAD_BYTES
from autoprune.service.settings import Settings
from tests.service.live_service import Live, in_thread

#: More than a model, or a form with a model and images, may have here.
TOO_MUCH = FORM_OVERHEAD_BYTES + 4000

#: Their paths, and what the file in the form is called.
FORMS = {"/v1/models": "file", "/jobs": "model_file"}
HEADERS = {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(home, run_jobs=False, max_model_bytes=1000, max_dataset_bytes=1000, requests_per_s=10**6)
    with in_thread(settings) as live:
        yield live


def beginning(path: str) -> bytes:
    """Return how a form begins."""
    return f'--x\r\nContent-Disposition: form-data; name="{FORMS[path]}"; filename="m.onnx"\r\n\r\n'.encode()


def in_pieces(path: str, pieces: int) -> Iterator[bytes]:
    """Return a body whose length is not announced."""
    yield beginning(path)
    yield from (b"x" * (TOO_MUCH // pieces) for _ in range(pieces))


@pytest.mark.parametrize("pieces", [1, 2, 50])
@pytest.mark.parametrize("path", FORMS)
def test_a_body_of_unknown_length_is_refused(live: Live, path: str, pieces: int) -> None:
    answer = live.client.post(path, content=in_pieces(path, pieces), headers=HEADERS, timeout=20)
    assert (answer.status_code, "send less" in answer.text) == (413, True)


def test_a_body_whose_last_piece_is_too_much_is_refused_at_once(live: Live) -> None:
    host, port = live.client.base_url.host, live.client.base_url.port
    assert port is not None
    names = {"Host": f"{host}:{port}", "Transfer-Encoding": "chunked", **HEADERS}
    head = "".join(f"{name}: {value}\r\n" for name, value in names.items())
    form = beginning("/v1/models") + b"x" * TOO_MUCH
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(f"POST /v1/models HTTP/1.1\r\n{head}\r\n{len(form):x}\r\n".encode())
        connection.sendall(form + b"\r\n0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
