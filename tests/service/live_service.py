"""A real service on a free port, and small uploads for it."""

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from autoprune.service.engine.service import Service
from autoprune.service.rest.api import create_app
from autoprune.service.rest.server import Server, listen
from autoprune.service.settings import Settings

FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Live:
    """A running service."""

    settings: Settings
    client: httpx.Client

    @property
    def url(self) -> str:
        """Address of the service."""
        return str(self.client.base_url).rstrip("/")

    def post_model(self, content: bytes, name: str = "tiny.onnx", **form: str) -> httpx.Response:
        """Upload a model."""
        return self.client.post("/v1/models", files={"file": (name, content)}, data=form)

    def post_dataset(self, content: bytes, name: str) -> httpx.Response:
        """Upload a dataset."""
        return self.client.post("/v1/datasets", files={"file": (name, content)})

    def submit(self, **spec: object) -> dict[str, Any]:
        """Submit a job that must be accepted."""
        answer = self.client.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def job(self, job_id: str, address: str = "jobs") -> dict[str, Any]:
        """Return a job as it is now."""
        job: dict[str, Any] = self.client.get(f"/v1/{address}/{job_id}").json()
        return job

    def wait(
        self, job_id: str, until: Callable[[dict[str, Any]], bool], timeout_s: float = 60, address: str = "jobs"
    ) -> dict[str, Any]:
        """Return a job once `until` holds."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            job = self.job(job_id, address)
            if until(job):
                return job
            assert job["state"] not in FINAL, job
            time.sleep(0.03)
        log = self.settings.job_folder(job_id) / "worker.log"
        raise AssertionError(f"{job}\n{log.read_text() if log.exists() else ''}")

    def finished(self, job_id: str, timeout_s: float = 60, address: str = "jobs") -> dict[str, Any]:
        """Return a job, or what else is at `address`, once it has ended."""
        return self.wait(job_id, lambda job: job["state"] in FINAL, timeout_s, address)


@contextlib.contextmanager
def in_thread(settings: Settings, service: Service | None = None) -> Iterator[Live]:
    """Serve from a thread of this process: `service`, or one of its own with these settings."""
    listener = listen("127.0.0.1", 0)
    server = Server(create_app(settings, service=service), log_level="warning")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
            yield Live(settings, client)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def in_process(
    settings: Settings, host: str = "127.0.0.1", port: int = 0
) -> Iterator[tuple[Live, "subprocess.Popen[str]"]]:
    """Serve from a process of its own, which the test may kill."""
    serving = f"serve({host!r}, {port}, ready=lambda url: print(url, flush=True))"
    script = f"from autoprune.service.rest.server import serve; {serving}"
    environment = {**os.environ, "AUTOPRUNE_HOME": str(settings.home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script]
    with (settings.home.parent / "service.log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    assert process.stdout is not None
    try:
        with httpx.Client(base_url=process.stdout.readline().strip(), timeout=60) as client:
            yield Live(settings, client), process
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def tiny_onnx(
    *,
    image: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    width: int = 8,
    convolutions: int = 2,
    seed: int = 0,
) -> bytes:
    """Return some convolutions and a classifier with random weights."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"w1": (width, image[0], 3, 3)}
    shapes |= {f"w{number}": (width, width, 3, 3) for number in range(2, convolutions + 1)}
    shapes |= {"w_head": (classes, width), "b_head": (classes,)}
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes, last = [], "image"
    for n in range(1, convolutions + 1):
        nodes.append(helper.make_node("Conv", [last, f"w{n}"], [f"y{n}"], name=f"conv{n}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"y{n}"], [f"z{n}"], name=f"relu{n}"))
        last = f"z{n}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"),
        helper.make_node("Gemm", ["features", "w_head", "b_head"], ["scores"], name="head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *image])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def npz(**arrays: npt.ArrayLike) -> bytes:
    """Return a .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def images_npz(n: int = 60, *, shape: tuple[int, ...] = (8, 8), classes: int = 10, seed: int = 0) -> bytes:
    """Return random grey images with labels that go round."""
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)
    return npz(images=images, labels=np.arange(n) % classes)


def images_zip(names: list[str]) -> bytes:
    """Return a zip of small PNGs under these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, name in enumerate(names):
            picture = io.BytesIO()
            Image.new("L", (8, 8), index % 256).save(picture, "PNG")
            archive.writestr(name, picture.getvalue())
    return stream.getvalue()


def stored_files(home: Path) -> list[Path]:
    """Return everything in the store, half-written files included."""
    return [path for path in (home / "store").rglob("*") if path.is_file()]
