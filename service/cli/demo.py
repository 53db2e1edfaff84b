"""``autoprune demo``: the whole product once, for a first-time user, through the real service."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import httpx
import torch
from rich.console import Console
from rich.markup import escape

from autoprune.errors import AutopruneError
from autoprune.formats.onnx_export import export_onnx
from autoprune.service.cli.console import ProgressBars, print_comparison, stdout
from autoprune.service.cli.demo_network import SEED, train_demo_network
from autoprune.service.results.job_result import JobResult
from autoprune.service.results.wording import best_outcome
from autoprune.service.specs.job_spec import Progress

#: What the demo asks of the service.
JOB = {
    "dataset": "digits",
    "budget": "macs=50%",
    "policies": ["uniform", "sensitivity", "exact"],
    "evaluations": 80,
    "finetune_epochs": 3,
    "seed": SEED,
}

#: A job that takes longer than this has gone wrong.
JOB_TIMEOUT_S = 900.0

START_TIMEOUT_S = 60.0


class DemoError(AutopruneError):
    """The demo could not be carried through: the service did not start, or the job failed."""


def run_demo(output: Path) -> JobResult:
    """Train a small network, prune it over REST, and leave everything in `output`.

    Raises:
        DemoError: The folder cannot be written, the service does not start, or the job fails.

    """
    started = time.monotonic()
    console = stdout()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"--output {output}: cannot write there ({error.strerror})") from error
    console.print("[bold]1. Train a small network[/] on 8x8 pictures of handwritten digits (built into scikit-learn)")
    model = _train(output, console)
    console.print("\n[bold]2. Start the service[/] and send it the network and a budget: half of the MACs")
    with _service(output / "service", console) as client:
        job_id = _submit(client, model, console)
        console.print("\n[bold]3. Search[/] how much to prune in every layer, fine-tune, export, certify")
        _wait(client, job_id, console)
        result = _download(client, job_id, output)
    console.print("\n[bold]4. The result[/]")
    _show(console, result, output, time.monotonic() - started)
    return result


def _train(output: Path, console: Console) -> Path:
    """Train the network and write it as ONNX, as a user's own model would come."""
    torch.set_num_threads(1)
    with ProgressBars(console) as bars:

        def stepped(done: int, total: int, text: str) -> None:
            bars(Progress(stage="train", done=done, total=total, message=text, policy=None))

        network, trained, accuracy = train_demo_network(stepped)
    path = output / "original.onnx"
    export_onnx(trained, path, input_shape=network.input_shape)
    console.print(f"   right on {accuracy:.1%} of pictures it has not seen; written to {escape(str(path))}")
    return path


@contextmanager
def _service(home: Path, console: Console) -> Iterator[httpx.Client]:
    """Run the service on a free port of this machine alone; yield a client for it; stop it at the end."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "AUTOPRUNE_HOME": str(home.absolute()), "AUTOPRUNE_DB": ""}
    command = [sys.executable, "-m", "autoprune.service.cli.app", "serve", "--port", "0"]
    log = home / "service.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)  # noqa: S603 - our own program
    try:
        url = _await_start(process, log)
        console.print(f"   it answers at {url} and describes itself at {url}/docs")
        with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_start(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until the service has said where it listens; return its address."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = re.search(r"^serving at (\S+)$", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if found:
            return found[1]
        if process.poll() is not None:
            raise DemoError(f"the service stopped with exit code {process.returncode}; its log is {log}")
        time.sleep(0.05)
    raise DemoError(f"the service did not start within {START_TIMEOUT_S:.0f} s; its log is {log}")


def _submit(client: httpx.Client, model: Path, console: Console) -> str:
    """Upload the model and submit the job; return the job's id."""
    with model.open("rb") as file:
        uploaded = _checked(client.post("/v1/models", files={"file": (model.name, file, "application/octet-stream")}))
    model_id = str(uploaded.json()["id"])
    job_id = str(_checked(client.post("/v1/jobs", json={"model": model_id, **JOB})).json()["id"])
    console.print(f"   POST /v1/models  -> {model_id}\n   POST /v1/jobs    -> {job_id}")
    return job_id


def _wait(client: httpx.Client, job_id: str, console: Console) -> None:
    """Show how far the job is until it ends."""
    deadline = time.monotonic() + JOB_TIMEOUT_S
    with ProgressBars(console) as bars:
        while time.monotonic() < deadline:
            job = _checked(client.get(f"/v1/jobs/{job_id}")).json()
            if job["progress"] is not None:
                bars(Progress.model_validate(job["progress"]))
            if job["state"] == "succeeded":
                bars(Progress(stage="done", done=1, total=1, message="", policy=None))
                return
            if job["state"] in ("failed", "cancelled"):
                reason = (job["error"] or {}).get("detail", "no reason given")
                raise DemoError(f"the job {job['state']}: {reason}")
            time.sleep(0.2)
    raise DemoError(f"the job did not end within {JOB_TIMEOUT_S:.0f} s")


def _download(client: httpx.Client, job_id: str, output: Path) -> JobResult:
    """Fetch every artifact into `output`; the best network's file also as ``model.onnx`` and so on."""
    for item in _checked(client.get(f"/v1/jobs/{job_id}/artifacts")).json():
        name = PurePosixPath(item["name"])
        if name.is_absolute() or ".." in name.parts:
            raise DemoError(f"the service offers a file outside its folder: {name}")
        content = _checked(client.get(f"/v1/jobs/{job_id}/artifacts/{name}")).content
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    result = JobResult.model_validate_json((output / "result.json").read_text(encoding="utf-8"))
    for file in best_outcome(result).artifacts.values():
        (output / PurePosixPath(file).name).write_bytes((output / file).read_bytes())
    return result


def _show(console: Console, result: JobResult, output: Path, seconds: float) -> None:
    """Print the comparison and what to look at next."""
    print_comparison(console, result)
    files = {
        "report.html": "everything above and more; open it in a browser, it needs no network",
        "model.onnx": f"the pruned network ({result.best}), for onnxruntime",
        "plan.json": "which channels were kept",
        "weights.safetensors": "weights for the plan: train on in PyTorch",
        "certificate.json": "what was measured on the exported file",
    }
    console.print(f"\n[bold]Look at[/] (all in {escape(str(output))}/, done in {seconds:.0f} s)")
    for name, text in files.items():
        console.print(f"   {name:<20} {escape(text)}")
    console.print("\n[bold]Next[/]")
    console.print(f"   autoprune inspect {escape(str(output / 'original.onnx'))}")
    console.print("   autoprune search YOUR_MODEL.onnx --data YOUR_IMAGES --budget macs=50%")
    console.print("   autoprune serve")


def _checked(response: httpx.Response) -> httpx.Response:
    """Return a response that is a success.

    Raises:
        DemoError: It is not; says what the service said.

    """
    if not response.is_success:
        raise DemoError(f"the service answered {response.status_code}: {' '.join(response.text.split())[:500]}")
    return response
