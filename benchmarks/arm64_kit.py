"""The device kit on an emulated arm64 machine: does it work there? Times of an emulator mean nothing and are not kept.

    python benchmarks/arm64_kit.py runs/arm64      # minutes the first time, for the folder is filled; then about two

Needs an x86 machine with Debian's mmdebstrap (apt-get install mmdebstrap) and pip; nothing is installed. The folder
gets an arm64 root with Python, the emulator (qemu 10; with the 7.2 of Debian 12 onnxruntime finds no processor and
crashes), and the arm64 wheels of numpy and onnxruntime. For fp32 and int8: a kit is packed, measures a small network
under the emulator, and its table is uploaded over REST; then the kit's agent fetches work from the service and sends a
result.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from autoprune.formats.onnx_export import export_onnx
from autoprune.latency_tables.kit import RUNNER
from autoprune.latency_tables.session import RUNTIME
from autoprune.latency_tables.values import PRECISIONS
from autoprune.service.cli.demo_network import demo_network

#: Release of Debian that root and emulator come from, and its Python.
RELEASE, PYTHON = "trixie", "3.13"

DEVICE = "emulated-arm64"
_CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main() -> None:
    """Prepare the folder where it is empty, and run everything; an exception says what does not work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where emulator, root and wheels are kept")
    parser.add_argument("--time-budget", default="20s", help="of each measurement")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not (folder / "complete").exists():
        prepare(folder)
    with tempfile.TemporaryDirectory(prefix="autoprune-arm64-") as name:
        work = Path(name)
        model = work / "demo.onnx"
        network = demo_network(seed=0)
        export_onnx(network.module, model, input_shape=network.input_shape)
        with service(work / "home") as client:
            for precision in PRECISIONS:
                table = measured(folder, model, work / precision, precision, arguments.time_budget)
                _say(imported(client, table, precision))
            _say(polled(folder, client, model))


def prepare(folder: Path) -> None:
    """Fill the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = {"root": "python3-minimal,libpython3-stdlib,libstdc++6", "emulator": "qemu-user"}
    for name, included in packages.items():
        foreign = ["--architectures=arm64"] if name == "root" else []
        _run("mmdebstrap", "--variant=extract", *foreign, f"--include={included}", RELEASE, str(folder / name))
    if not (folder / "root" / "lib").exists():
        (folder / "root" / "lib").symlink_to("usr/lib")
    wheels = ("--only-binary=:all:", "--platform", "manylinux_2_28_aarch64", "--python-version", PYTHON)
    target = ("--target", str(folder / "site"), "-c", str(_CONSTRAINTS))
    _run(sys.executable, "-m", "pip", "install", "--quiet", *wheels, *target, "numpy", "onnxruntime")
    (folder / "complete").touch()


def measured(folder: Path, model: Path, kit: Path, precision: str, time_budget: str) -> Path:
    """Pack a kit and let the emulated machine measure it; return its table."""
    options = ("--device", DEVICE, "--networks", "3", "--time-budget", time_budget, "--precision", precision)
    _autoprune("device", "pack", str(model), "-o", str(kit), *options)
    emulated(folder, str(kit / RUNNER))
    return kit / "latency-table.json"


def imported(client: httpx.Client, table: Path, precision: str) -> str:
    """Upload a table, check what the service makes of it, and say so."""
    answer = client.post(
        "/v1/latency-tables", files={"file": ("latency-table.json", table.read_bytes())}, data={"device": DEVICE}
    )
    assert answer.status_code == 201, answer.text
    view = answer.json()
    found = tuple(view[name] for name in ("device", "machine", "runtime", "precision"))
    assert found == (DEVICE, "aarch64", RUNTIME, precision), found
    (calibration,) = view["calibrations"].values()
    return (
        f"{precision}: a table of {view['units']} timed units, compared with {calibration['networks']} whole networks"
    )


def polled(folder: Path, client: httpx.Client, model: Path) -> str:
    """Let the emulated machine fetch work from the service; say what became of it."""
    uploaded = client.post("/v1/models", files={"file": (model.name, model.read_bytes())}).json()
    request = {"model_id": uploaded["id"], "networks": 3, "units": False, "precision": "int8", "time_budget_s": 5.0}
    asked = client.post(f"/v1/devices/{DEVICE}/work", json=request)
    assert asked.status_code == 201, asked.text
    kit = next(model.parent.glob(f"*/{RUNNER}"))
    emulated(folder, str(kit), "--poll", str(client.base_url), "--device", DEVICE, "--once")
    done = client.get(asked.headers["location"]).json()
    assert done["state"] == "done", done
    return f"agent: sent the latencies of {len(done['result']['latencies'])} int8 networks"


def emulated(folder: Path, *arguments: str) -> None:
    """Run a Python program on the emulated machine."""
    emulator, root = folder / "emulator" / "usr" / "bin" / "qemu-aarch64", folder / "root"
    python = root / "usr" / "bin" / f"python{PYTHON}"
    settings = ("-L", str(root), "-E", f"PYTHONPATH={folder / 'site'}")
    _run(str(emulator), *settings, str(python), *arguments, environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})


@contextmanager
def service(home: Path) -> Iterator[httpx.Client]:
    """Run a service of its own, and lend a client of it."""
    command = [sys.executable, "-m", "autoprune.service.cli.app", "serve", "--port", "0", "--log-level", "error"]
    environment = {**os.environ, "AUTOPRUNE_HOME": str(home)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603 - our own
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            with httpx.Client(base_url=url, timeout=60) as client:
                yield client
        finally:
            process.terminate()


def _autoprune(*arguments: str) -> None:
    """Run a command of autoprune."""
    _run(sys.executable, "-m", "autoprune.service.cli.app", *arguments)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a program; its output is shown."""
    _say(f"$ {_shortened(command)}")
    subprocess.run(command, check=True, env=environment)  # noqa: S603 - our own command lines


def _shortened(command: Sequence[str]) -> str:
    """Return a command line that fits into a line or two."""
    text = " ".join(command)
    return text if len(text) < 200 else f"{text[:197]}..."


def _say(text: str) -> None:
    """Tell how far it is."""
    print(text, flush=True)  # noqa: T201 - a script's log


if __name__ == "__main__":
    main()
