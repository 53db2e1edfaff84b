"""The commands ``device pack`` and ``device measure``."""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.markup import escape

from autoprune.latency_tables.device_name import check_device, device_name
from autoprune.latency_tables.device_run import measure_work
from autoprune.latency_tables.kit import RUNNER
from autoprune.latency_tables.runner import ProgressLine, parse_duration_s, summary
from autoprune.latency_tables.session import processor_name
from autoprune.latency_tables.values import PRECISIONS
from autoprune.network.network import Network
from autoprune.service.cli.console import stderr, stdout, stop_on_interrupt
from autoprune.service.cli.errors import CommandError
from autoprune.service.cli.inspect import load_model
from autoprune.service.cli.spec_values import spec_values
from autoprune.service.devices.kit import README, KitOptions, device_work, pack_kit
from autoprune.service.devices.tables import TableStore, dropped_warning
from autoprune.service.locks import held
from autoprune.service.settings import Settings

_KIT_FILES = (RUNNER, README, "work.json", "networks")


def run_pack(params: Mapping[str, object]) -> None:
    """Write a kit.

    Raises:
        AutopruneError: The model cannot be used, or the folder holds other things or cannot be written.

    """
    network, options = _network_and_options(params)
    folder = Path(str(params["output"]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in _KIT_FILES)
        if foreign:
            raise CommandError(
                f"--output {folder}: expected an empty folder or an older kit, found {foreign[0]} in it; name another"
            )
        work = pack_kit(network, str(params["model"]), folder, options)
    except OSError as error:
        raise CommandError(f"--output {folder}: cannot write there ({error.strerror})") from error
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    facts = {"folder": str(folder), "units": len(work.grids), "networks": len(work.networks), "bytes": size}
    if params["as_json"]:
        typer.echo(json.dumps(facts, indent=1))
        return
    console = stdout()
    console.print(
        f"[bold]{escape(str(folder))}[/]  {len(work.grids)} kinds of units, {len(work.networks)} networks, "
        f"{size / 2**20:.1f} MiB"
    )
    console.print(f"copy it to the device and run there: python {RUNNER}   (it needs Python, numpy and onnxruntime)")
    console.print("then here: autoprune device import latency-table.json")


def run_measure(params: Mapping[str, object]) -> None:
    """Measure this machine and keep the table.

    Raises:
        AutopruneError: The model cannot be used, or onnxruntime cannot run a unit.
        Cancelled: Interrupted; what was measured is kept.

    """
    network, options = _network_and_options(params)
    device = options.device or device_name(processor_name())
    home = Settings.from_environment().home
    with tempfile.TemporaryDirectory(prefix="autoprune-kit-") as folder, stop_on_interrupt(stderr()) as should_stop:
        work = device_work(network, Path(folder), options)
        state = home / "device-runs" / f"{device}.{work.structure[:16]}.{work.precision}.t{work.threads}.jsonl"
        state.parent.mkdir(parents=True, exist_ok=True)
        with held(state.with_suffix(".lock")) as is_free:
            if not is_free:
                raise CommandError(f"{device} is being measured for this network already; wait for it, or stop it")
            if params["fresh"]:
                state.unlink(missing_ok=True)
            measured = measure_work(
                work, Path(folder), device=device, state=state, report=ProgressLine(sys.stderr), should_stop=should_stop
            )
            if measured.complete:
                state.unlink(missing_ok=True)
    assert measured.table is not None
    stored, _ = TableStore(home).add(measured.table)
    if stored.dropped:
        stderr().print(f"warning: {escape(dropped_warning(stored.dropped))}")
    if params["output"] is not None:
        measured.table.save(Path(str(params["output"])))
    if params["as_json"]:
        found = [calibration.error for calibration in measured.table.calibrations.values()]
        facts = {"id": stored.id, "device": device, "file": str(stored.path), "units": len(measured.table.entries)}
        typer.echo(json.dumps({**facts, "error": found[0] if found else None, "complete": measured.complete}, indent=1))
        return
    for line in summary(measured):
        stdout().print(escape(line))
    int8 = " --int8" if work.precision == "int8" else ""
    stdout().print(f"kept as [bold]{escape(stored.id)}[/]; use it with --device {escape(device)}{int8}")


def _network_and_options(params: Mapping[str, object]) -> tuple[Network, KitOptions]:
    """Load the network that a command names, and read how it is to be measured."""
    max_ratio = float(str(params["max_ratio"]))
    if not 0 < max_ratio < 1:
        raise CommandError(f"--max-ratio must lie between 0 and 1, found {max_ratio}")
    precision = str(params["precision"])
    if precision not in PRECISIONS:
        raise CommandError(f"--precision must be {' or '.join(PRECISIONS)}, found {precision!r}")
    options = KitOptions(
        device=None if params["device"] is None else check_device(params["device"]),
        threads=int(str(params["threads"])),
        precision=precision,
        time_budget_s=parse_duration_s(str(params["time_budget"])),
        networks=int(str(params["networks"])),
        max_ratio=max_ratio,
        include_residual=bool(params["residual"]),
        seed=int(str(params["seed"])),
    )
    return load_model(spec_values(params)), options
