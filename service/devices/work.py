"""Work for devices that ask for it: queued with its files, and its results checked before they are kept."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from autoprune import __version__
from autoprune.errors import Cancelled, LatencyTableError
from autoprune.files import file_sha256
from autoprune.latency_tables.agent import RESULT_FORMAT, RESULT_VERSION
from autoprune.latency_tables.device_name import check_device
from autoprune.latency_tables.measure import Latency
from autoprune.latency_tables.table import Conditions, LatencyTable
from autoprune.latency_tables.work import WholeNetwork, Work
from autoprune.network.network import Network, Shape
from autoprune.service.devices.kit import KitOptions, device_work, networks_only
from autoprune.service.devices.tables import TableStore, check_is_of
from autoprune.service.storage.database import AWAY
from autoprune.service.storage.device_records import DeviceRecords, WorkStateError
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.states import WorkState
from autoprune.service.storage.tables import DeviceWorkRow, Json, now

ONNX = ".onnx"
MOST_RESULT_BYTES = 64 * 2**20

#: An hour: no inference takes that long.
_MOST_MS = 3.6e6

_POLL_S = 0.5


def queue_model(
    devices: DeviceRecords, store: FileStore, device: str, network: Network, options: KitOptions, *, units: bool = True
) -> DeviceWorkRow:
    """Ask a device for the latency table of a network; without `units`, for the latency of pruned networks alone.

    Errors as of :func:`autoprune.service.devices.kit.device_work`, and StorageError.
    """
    check_device(device)
    with tempfile.TemporaryDirectory(prefix="autoprune-kit-") as name:
        work = device_work(network, Path(name), options)
        files = [Path(name) / whole.file for whole in work.networks]
        return _queue(devices, store, device, work if units else networks_only(work), files)


def queue_files(
    devices: DeviceRecords,
    store: FileStore,
    device: str,
    files: Sequence[Path],
    *,
    input_shape: Shape,
    threads: int = 1,
    precision: str = "fp32",
    time_budget_s: float = 60.0,
) -> DeviceWorkRow:
    """Ask a device to time ONNX files whole, side by side.

    Raises:
        StorageError: The files cannot be stored.

    """
    networks = tuple(
        WholeNetwork(f"networks/{index:02d}{ONNX}", file_sha256(path), tuple(input_shape))
        for index, path in enumerate(files)
    )
    work = Work(
        check_device(device),
        networks=networks,
        threads=threads,
        precision=precision,
        time_budget_s=time_budget_s,
        made_by=__version__,
    )
    return _queue(devices, store, device, work, files)


def wait_for_latencies(
    devices: DeviceRecords, asked: DeviceWorkRow, *, timeout_s: float, should_stop: Callable[[], bool] = lambda: False
) -> list[Latency]:
    """Return the latencies of the networks of the work `asked` for, in their order, once a device has measured them.

    A database that is away meanwhile is waited for.

    Raises:
        LatencyTableError: No result came in time, or the device could not measure.
        Cancelled: `should_stop` said so.

    """
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(*AWAY):
            row = devices.work(asked.id)
            if row.state == WorkState.DONE:
                assert row.result is not None
                return [Latency(**row.result["latencies"][each["sha256"]]) for each in row.work["networks"]]
            if row.state == WorkState.FAILED:
                raise LatencyTableError(f"device {row.device} could not measure: {row.error}")
        if should_stop():
            raise Cancelled(f"stopped while device {asked.device} measured")
        if time.monotonic() > deadline:
            raise LatencyTableError(
                f"device {asked.device} sent no result within {timeout_s:.0f} s; does it run "
                f"'python measure.pyz --poll URL --device {asked.device}'?"
            )
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True)
class DeviceTimer:
    """Times ONNX files on a device that polls, as :func:`measure_side_by_side` does on this machine.

    Attributes:
        devices: Where the work is queued.
        store: Where the files are kept for the device.
        device: Its name.
        precision: Of the files.
        timeout_s: How long a result is waited for.
        should_stop: Asked meanwhile.

    """

    devices: DeviceRecords
    store: FileStore
    device: str
    precision: str = "fp32"
    timeout_s: float = 1800.0
    should_stop: Callable[[], bool] = lambda: False

    def __call__(self, paths: Sequence[Path], *, input_shape: Shape, threads: int = 1) -> list[Latency]:
        """Return one measurement per file, in the order of `paths`; the same file may be there several times.

        Work that is no longer waited for is withdrawn, so that the device does not measure for nobody.

        Raises:
            LatencyTableError: No result came in time, or the device could not measure.
            StorageError: The files cannot be stored.
            Cancelled: `should_stop` said so.

        """
        row = queue_files(
            self.devices,
            self.store,
            self.device,
            paths,
            input_shape=input_shape,
            threads=threads,
            precision=self.precision,
        )
        try:
            return wait_for_latencies(self.devices, row, timeout_s=self.timeout_s, should_stop=self.should_stop)
        except Exception as error:
            with suppress(WorkStateError, *AWAY):  # the device said that it could not; nobody can be told now
                self.devices.finish(row.id, error=f"nobody waits for it any more: {error}")
            raise


def is_polling(devices: DeviceRecords, device: str, *, within_s: float = 900.0) -> bool:
    """Tell whether a device has asked for work lately, or is measuring, so that it can be expected to ask again."""
    if any(row.taken_until is not None and row.taken_until >= now() for row in devices.open_work(device)):
        return True
    seen = next((row.seen_at for row in devices.all() if row.name == device), None)
    return seen is not None and (now() - seen).total_seconds() <= within_s


def stored_file(devices: DeviceRecords, store: FileStore, device: str, sha256: str) -> Path:
    """Return the file that open work of a device names.

    Raises:
        NotFoundError: No open work of this device needs such a file.

    """
    for row in devices.open_work(device):
        if any(network["sha256"] == sha256 for network in row.work["networks"]):
            path = store.path(sha256, ONNX)
            if path.is_file():
                return path
    raise NotFoundError(f"no open work of the device {device!r} needs a file with this sha256")


def accept_result(devices: DeviceRecords, tables: TableStore, device: str, work_id: str, text: bytes) -> DeviceWorkRow:
    """Check what a device sends, keep its table, and end the work.

    Raises:
        NotFoundError: The device has no such work.
        WorkStateError: It has ended already.
        LatencyTableError: It is not the result of this work.

    """
    row = devices.work(work_id, device=device)
    devices.check_open(row)
    document = _document(text)
    if "error" in document:
        return devices.finish(work_id, error=str(document["error"])[:2000])
    work = Work.from_dict(row.work)
    result = _checked(document, work, device)
    if result["table"] is not None:
        stored, _ = tables.add(LatencyTable.from_json(json.dumps(result["table"])))
        result = {**result, "table": stored.id}
    return devices.finish(work_id, result=result)


def _document(text: bytes) -> dict[str, Any]:
    """Read a result, not yet its parts."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LatencyTableError(f"result: expected JSON, found {str(error)[:200]}") from error
    if not isinstance(data, dict) or data.get("format") != RESULT_FORMAT or data.get("version") != RESULT_VERSION:
        raise LatencyTableError(f"result: expected format {RESULT_FORMAT!r}, version {RESULT_VERSION}")
    names = {"format", "version", "error"} if "error" in data else {
        "format", "version", "conditions", "table", "latencies"
    }  # fmt: skip
    if set(data) != names:
        raise LatencyTableError(f"result: expected the fields {sorted(names)}, found {sorted(data)[:10]}")
    return data


def _checked(document: Mapping[str, Any], work: Work, device: str) -> Json:
    """Return a result whose table and latencies are those that `work` asked `device` for."""
    conditions = _conditions(document["conditions"])
    found = {**conditions.to_dict(), "device": conditions.device}
    for name, expected in (
        ("device", device),
        ("threads", work.threads),
        ("batch", work.batch),
        ("precision", work.precision),
    ):
        if found[name] != expected:
            raise LatencyTableError(f"result: {name}: expected {expected!r}, found {found[name]!r}")
    table = document["table"]
    if (table is not None) != bool(work.grids):
        raise LatencyTableError("result: expected a latency table where units were asked for, and none elsewhere")
    if table is not None:
        measured = LatencyTable.from_json(json.dumps(table))
        check_is_of(measured, device)
        difference = conditions.differences(measured.conditions)
        if difference:
            raise LatencyTableError(f"result: its table is of other conditions: {difference}")
    latencies = document["latencies"]
    wanted = sorted(network.sha256 for network in work.networks)
    if not isinstance(latencies, dict) or sorted(latencies) != sorted(set(wanted)):
        raise LatencyTableError(f"result: expected the latencies of {len(set(wanted))} networks by their files' hashes")
    return {
        "conditions": conditions.to_dict(),
        "table": table,
        "latencies": {sha256: _latency(data, conditions).to_dict() for sha256, data in latencies.items()},
    }


def _conditions(data: object) -> Conditions:
    """Read conditions."""
    names = {each.name for each in fields(Conditions)}
    if not isinstance(data, dict) or set(data) != names:
        raise LatencyTableError(f"result: conditions: expected the fields {sorted(names)}")
    return Conditions(**data)


def _latency(data: object, conditions: Conditions) -> Latency:
    """Read one latency."""
    names = {each.name for each in fields(Latency)}
    if not isinstance(data, dict) or set(data) != names:
        raise LatencyTableError(f"result: a latency has the fields {sorted(names)}")
    times = [data[name] for name in ("p10_ms", "median_ms", "p90_ms")]
    numbers = all(isinstance(value, int | float) and 0 < value <= _MOST_MS for value in times)
    if not numbers or sorted(times) != times or not isinstance(data["repeats"], int) or data["repeats"] < 1:
        raise LatencyTableError(f"result: expected times above 0 with p10 <= median <= p90 and repeats, found {times}")
    if (data["threads"], data["batch"], data["runtime"]) != (conditions.threads, conditions.batch, conditions.runtime):
        raise LatencyTableError("result: a latency is of other threads, batch or runtime than the conditions")
    return Latency(**{**data, "device": str(data["device"])[:200]})


def _queue(devices: DeviceRecords, store: FileStore, device: str, work: Work, files: Sequence[Path]) -> DeviceWorkRow:
    """Queue work for a device, with files of ours that are put into the store for it."""
    with ExitStack() as stack:
        uploads = []
        for path in files:
            source = stack.enter_context(path.open("rb"))
            uploads.append(stack.enter_context(store.received(source, suffix=ONNX, max_bytes=2**31)))
        return devices.queue(device, work.to_dict(), keep=lambda: [upload.keep() for upload in uploads])
