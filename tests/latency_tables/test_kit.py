"""The device kit: one file that measures on a machine without torch, and what it refuses."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from autoprune.errors import Cancelled, LatencyTableError
from autoprune.formats.onnx_import import import_onnx
from autoprune.groups.channel_group import find_groups
from autoprune.latency_tables import kit as kit_module
from autoprune.latency_tables.device_name import check_device, device_name
from autoprune.latency_tables.device_run import measure_work, predicted_us
from autoprune.latency_tables.runner import main, parse_duration_s
from autoprune.latency_tables.table import LatencyTable
from autoprune.latency_tables.unit import Unit
from autoprune.latency_tables.width_grid import WidthGrid
from autoprune.latency_tables.work import WholeNetwork, Work
from autoprune.network.network import Network
from autoprune.service.devices.kit import KitOptions, pack_kit
from autoprune.zoo.registry import build
from tests.components import missing
from tests.service.live_service import tiny_onnx

OPTIONS = KitOptions(device="bench-1", time_budget_s=3.0, networks=4)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(tiny_onnx(image=(3, 16, 16), width=24))
    return import_onnx(path)


@pytest.fixture(scope="module")
def kit(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    pack_kit(network, "tiny.onnx", folder, OPTIONS)
    return folder


def run_kit(python: Path | str, kit: Path, *arguments: str, code: int = 0) -> str:
    """Run the kit as its user does, away from this checkout; return what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-I", str(kit / "measure.pyz"), *arguments],
        capture_output=True, text=True, cwd="/", env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_is_in_a_kit(kit: Path, network: Network) -> None:
    assert sorted(path.name for path in kit.iterdir()) == ["README.txt", "measure.pyz", "networks", "work.json"]
    assert "python measure.pyz --device" in (kit / "README.txt").read_text()
    with zipfile.ZipFile(kit / "measure.pyz") as archive:
        names = archive.namelist()
        assert "autoprune/latency_tables/profiler.py" in names
        assert "autoprune/errors.py" in names
        imports = [line for name in names for line in archive.read(name).decode().splitlines() if "import " in line]
    for heavy in ("torch", "pydantic", "sqlalchemy", "rich", "typer", "autoprune.service", "autoprune.network."):
        assert not [line for line in imports if line.strip().startswith((f"import {heavy}", f"from {heavy}"))]
    work = Work.from_json((kit / "work.json").read_text())
    assert Work.from_json(work.to_json()) == work
    assert {str(grid.shape).split(" 0->0")[0]: (grid.c_in, grid.c_out) for grid in work.grids} == {
        "conv 3x3": ((3, 8, 16, 24), (8, 16, 24)),
        "pool 0x0": ((8, 16, 24), (8, 16, 24)),
        "linear 1x1": ((8, 16, 24), (10,)),
    }
    assert len(work.networks) == 5
    for whole in work.networks:
        file = kit / whole.file
        assert hashlib.sha256(file.read_bytes()).hexdigest() == whole.sha256
        onnx.checker.check_model(onnx.load(file))
        sizes = [tuple(weight.dims) for weight in onnx.load(file).graph.initializer if len(weight.dims) == 4]
        assert sizes == [(unit.c_out, unit.c_in, 3, 3) for unit in whole.units if unit.op == "conv"]
    assert len(find_groups(network).prunable()) == 2
    widths = [tuple(unit.c_out for unit in whole.units) for whole in work.networks]
    assert widths[0] == (24, 24, 24, 10)
    assert all(count % 8 == 0 for each in widths for count in each[:-1])


def test_equal_kits_are_equal_files(kit: Path, tmp_path: Path) -> None:
    kit_module.write_runner(tmp_path / "again.pyz", "0.1.0")
    assert (tmp_path / "again.pyz").read_bytes() == (kit / "measure.pyz").read_bytes()


def test_a_kit_measures_in_an_environment_of_numpy_and_onnxruntime_alone(
    kit: Path, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("clean")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, timeout=120)
    python = home / "bin" / "python"
    install = ["--python", str(python), "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command = [sys.executable, "-m", "pip", *install, "-c", str(root / "constraints.txt"), "numpy", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    if done.returncode != 0:
        missing("numpy and onnxruntime for a clean environment", f"a package index: {done.stderr[-300:]}")
    output = home / "table.json"
    said = run_kit(python, kit, "--device", "clean-1", "--time-budget", "2s", "--output", str(output))
    assert "written:" in said
    for module in ("torch", "onnx"):
        assert subprocess.run([str(python), "-I", "-c", f"import {module}"], capture_output=True).returncode != 0
    table = LatencyTable.load(output)
    assert (table.conditions.device, table.conditions.threads, table.conditions.precision) == ("clean-1", 1, "fp32")
    assert table.provenance["autoprune"] == "0.1.0"
    work = Work.from_json((kit / "work.json").read_text())
    assert set(table.calibrations) == {work.structure}
    (calibration,) = table.calibrations.values()
    assert len(calibration.points) == 5
    for whole in work.networks:
        assert predicted_us(table, whole) > 0


def test_a_kit_of_int8_measures_quantized_networks(network: Network, tmp_path: Path) -> None:
    kit, output = tmp_path / "kit", tmp_path / "table.json"
    kit.mkdir()
    work = pack_kit(network, "tiny.onnx", kit, replace(OPTIONS, precision="int8", time_budget_s=2.0))
    assert "--device bench-1 --int8\n" in (kit / "README.txt").read_text()
    for whole in work.networks:
        found = onnx.load(kit / whole.file)
        sizes = [tuple(weight.dims) for weight in found.graph.initializer if len(weight.dims) == 4]
        assert sizes == [(unit.c_out, unit.c_in, 3, 3) for unit in whole.units if unit.op == "conv"]
        weights = {weight.name: weight.data_type for weight in found.graph.initializer}
        convolutions = [node for node in found.graph.node if node.op_type == "Conv"]
        assert len(convolutions) == 2
        assert {weights[f"{node.name}.weight_quantized"] for node in convolutions} == {onnx.TensorProto.INT8}
    assert main(["--kit", str(kit), "-o", str(output)]) == 0
    table = LatencyTable.load(output)
    assert table.conditions.precision == "int8"
    assert {grid.shape for grid in work.grids} == set(table.shapes)
    (calibration,) = table.calibrations.values()
    assert len(calibration.points) == 5


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    kit.mkdir()
    pack_kit(build("resnet20_cifar"), "resnet20_cifar", kit, replace(OPTIONS, time_budget_s=40.0))  # seconds of work
    output = tmp_path / "table.json"
    state = tmp_path / "table.bench-1-fp32-t1.state.jsonl"
    command = [sys.executable, "-I", str(kit / "measure.pyz"), "--time-budget", "40s", "-o", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (state.exists() and len(state.read_bytes().splitlines()) > 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "goes on from there" in said
    assert not output.exists()
    before = state.read_bytes()
    assert main(["--kit", str(kit), "--time-budget", "4s", "-o", str(output)]) == 0
    assert len(LatencyTable.load(output).entries) >= 6
    if state.exists():  # the time ended before everything was measured
        assert state.read_bytes().startswith(before)


def test_what_a_kit_refuses(kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    assert "keep the files of a kit together" in refused("--kit", str(tmp_path))
    assert "a device's name" in refused("--kit", str(kit), "--device", "../x")
    assert "expected a time such as 90s" in refused("--kit", str(kit), "--time-budget", "soon")
    assert "expected an address" in refused("--poll", "ftp://x")
    (tmp_path / "work.json").write_text((kit / "work.json").read_text())
    assert "copy the whole kit again" in refused("--kit", str(tmp_path))
    (tmp_path / "networks").mkdir()
    for path in (kit / "networks").iterdir():
        (tmp_path / "networks" / path.name).write_bytes(path.read_bytes()[:-1] + b"x")
    assert "expected the sha256" in refused("--kit", str(tmp_path))
    (tmp_path / "work.json").write_text("{}")
    assert "expected format 'autoprune-device-work'" in refused("--kit", str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "and version 1"),
        ({"note": 1}, "expected the fields"),
        ({"grids": {}}, "list of at most 10000 grids"),
        ({"grids": [{"unit": {}, "c_in": [8], "c_out": [8]}]}, "a unit has the fields"),
        ({"grids": [{"unit": {}, "c_in": [], "c_out": [8]}]}, "1 to 4096 widths"),
        ({"time_budget_s": 0}, "seconds above 0"),
        ({"device": 3}, "device: expected a text"),
        ({"networks": [{"file": "../x", "sha256": "0" * 64, "input_shape": [1, 2, 3], "units": []}]}, "within the kit"),
        (
            {"networks": [{"file": "..\\x", "sha256": "0" * 64, "input_shape": [1, 2, 3], "units": []}]},
            "within the kit",
        ),
        ({"networks": [{"file": "/x", "sha256": "0" * 64, "input_shape": [1, 2, 3], "units": []}]}, "within the kit"),
        ({"networks": [{"file": "C:x", "sha256": "0" * 64, "input_shape": [1, 2, 3], "units": []}]}, "within the kit"),
        ({"networks": [{"file": "x\0", "sha256": "0" * 64, "input_shape": [1, 2, 3], "units": []}]}, "within the kit"),
        ({"networks": [{"file": "x", "sha256": "0", "input_shape": [1, 2, 3], "units": []}]}, "expected a sha256"),
        ({"networks": [{"file": "x", "sha256": "0" * 64, "input_shape": [1], "units": []}]}, "input shape"),
        ({"conditions": {"threads": 0, "batch": 1, "precision": "fp32", "graph_options": "all"}}, "threads"),
        ({"conditions": {"threads": 1, "batch": 1, "precision": "int4", "graph_options": "all"}}, "fp32 or int8"),
    ],
)
def test_malformed_work_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(LatencyTableError, match=reason):
        Work.from_dict({**Work().to_dict(), **changes})


def test_networks_alone_give_latencies_and_no_table(kit: Path) -> None:
    networks = Work.from_json((kit / "work.json").read_text()).networks[:2]
    shares: list[float] = []
    measured = measure_work(
        Work(networks=networks, time_budget_s=1.0), kit, device="x", report=lambda _, share: shares.append(share)
    )
    assert measured.table is None
    assert set(measured.latencies) == {network.sha256 for network in networks}
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    with pytest.raises(Cancelled):
        measure_work(Work(networks=networks), kit, device="x", should_stop=lambda: True)


def test_too_few_networks_give_no_calibration(kit: Path) -> None:
    unit = Unit("linear", (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1, (1, 1), 0, 0)
    full = Work.from_json((kit / "work.json").read_text())
    network = full.networks[0]
    plain = WholeNetwork(network.file, network.sha256, network.input_shape)
    work = Work(grids=(WidthGrid(unit, (8, 16), (10,)),), networks=(plain,), structure="x", time_budget_s=1.0)
    table = measure_work(work, kit, device="x").table
    assert table is not None
    assert {entry.c_in for entry in table.entries} == {8, 16}
    assert table.calibrations == {}


def test_names_and_durations() -> None:
    assert device_name("Intel(R) Xeon(R) CPU @ 2.20GHz") == "intel-xeon-cpu-2-20ghz"
    assert device_name("???") == "device"
    assert check_device("raspberry-pi-5") == "raspberry-pi-5"
    assert [parse_duration_s(text) for text in ("90", "90s", "1.5m", "2h")] == [90, 90, 90, 7200]
    for text in ("", "-1s", "0", "10 parsecs", "1e999h", "99999h"):
        with pytest.raises(LatencyTableError):
            parse_duration_s(text)
    assert json.loads(Work().to_json())["format"] == "autoprune-device-work"
