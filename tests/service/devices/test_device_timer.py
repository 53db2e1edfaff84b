"""Timing files on a device that polls, while the database goes away and comes back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from autoprune.latency_tables.measure import Latency
from autoprune.service.devices.work import DeviceTimer
from autoprune.service.storage.device_records import DeviceRecords
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from tests.service.postgres import Postgres

SHAPE = (3, 8, 8)
TAKEN = Latency(2.0, 1.0, 3.0, 9, 1, 1, "onnxruntime 1.27.0", "phone")


@pytest.fixture
def devices(postgres: Postgres) -> Iterator[DeviceRecords]:
    with closing(Records(postgres.new_database(), create=True)) as records:
        yield DeviceRecords(records)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"what nobody reads here")
    return path


def test_a_measurement_outlasts_a_restart_of_the_database(
    devices: DeviceRecords, postgres: Postgres, network: Path, tmp_path: Path
) -> None:
    timer = DeviceTimer(devices, FileStore(tmp_path), "phone", timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        measured = pool.submit(timer, [network], input_shape=SHAPE)
        deadline = time.monotonic() + 20
        while not devices.open_work("phone"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        postgres.stop()
        time.sleep(1.2)  # it asks twice a second
        postgres.start()
        row = devices.take("phone")
        assert row is not None
        (sha256,) = [each["sha256"] for each in row.work["networks"]]
        devices.finish(row.id, result={"latencies": {sha256: TAKEN.to_dict()}})
        assert measured.result(20) == [TAKEN]


def test_work_is_withdrawn_whatever_ends_the_wait(devices: DeviceRecords, network: Path, tmp_path: Path) -> None:
    def broken() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        DeviceTimer(devices, FileStore(tmp_path), "phone", should_stop=broken)([network], input_shape=SHAPE)
    assert devices.open_work("phone") == []
