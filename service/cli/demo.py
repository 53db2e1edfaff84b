"""``autoprune demo``: the whole product once, for a first-time user, through the real service."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape

from autoprune.errors import AutopruneError
from autoprune.formats.onnx_export import export_onnx
from autoprune.service.cli.console import print_comparison, stdout
from autoprune.service.cli.demo_network import SEED, train_demo_network
from autoprune.service.client.client import Client
from autoprune.service.client.job import Job
from autoprune.service.progress_bars import ProgressBars
from autoprune.service.results.job_result import JobResult
from autoprune.service.results.wording import best_outcome
from autoprune.service.specs.progress import Progress

#: What the demo asks of the service.
JOB: dict[str, Any] = {
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
    """The demo could not be carried through: its folder cannot be written, or the service did not start."""


def run_demo(output: Path) -> JobResult:
    """Train a small network, prune it over REST, and leave everything in `output`.

    Raises:
        DemoError: The folder cannot be written, or the service does not start.
        ClientError: The job fails.

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
        job = _submit(client, model, console)
        console.print("\n[bold]3. Search[/] how much to prune in every layer, fine-tune, export, certify")
        with ProgressBars(console) as bars:
            job.wait(JOB_TIMEOUT_S, progress=bars)
        result = _download(job, output)
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
def _service(home: Path, console: Console) -> Iterator[Client]:
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
        with Client(url) as client:
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


def _submit(client: Client, model: Path, console: Console) -> Job:
    """Upload the model and submit the job."""
    uploaded = client.upload_model(model)
    job = client.submit(uploaded, **JOB)
    console.print(f"   POST /v1/models  -> {uploaded.id}\n   POST /v1/jobs    -> {job.id}")
    return job


def _download(job: Job, output: Path) -> JobResult:
    """Fetch every artifact into `output`; the best network's files also as ``model.onnx`` and so on."""
    job.download(output)
    result = job.result()
    for file in best_outcome(result).artifacts.values():
        shutil.copyfile(output / file, output / PurePosixPath(file).name)
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
