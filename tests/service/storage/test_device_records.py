"""The work of devices, on both databases: given out once, again where no result comes, and done once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from autoprune.service.storage.device_records import MOST_ATTEMPTS, DeviceRecords, WorkStateError
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import DeviceWorkRow, now

WORK = {"time_budget_s": 1}


def forget(records: Records) -> None:
    """Let the time pass in which results were waited for."""
    with records.sessions.begin() as session:
        session.execute(update(DeviceWorkRow).values(taken_until=now() - timedelta(seconds=1)))


def test_work_is_given_out_once_to_many_who_ask_at_once(records: Records) -> None:
    devices = DeviceRecords(records)
    assert devices.take("phone") is None
    queued = [devices.queue("phone", WORK).id for _ in range(20)]
    devices.queue("laptop", WORK)
    with ThreadPoolExecutor(8) as pool:
        taken = [row.id for row in pool.map(lambda _: devices.take("phone"), range(20)) if row is not None]
    assert sorted(taken) == sorted(queued)
    assert devices.take("phone") is None
    assert [row.name for row in devices.all()] == ["laptop", "phone"]
    assert devices.counts() == {"phone": {"taken": 20}, "laptop": {"queued": 1}}


def test_work_without_a_result_is_given_out_again_and_then_fails(records: Records) -> None:
    devices = DeviceRecords(records)
    work_id = devices.queue("phone", WORK).id
    for attempt in range(1, MOST_ATTEMPTS + 1):
        row = devices.take("phone")
        assert row is not None
        assert (row.id, row.attempts) == (work_id, attempt)
        assert devices.take("phone") is None
        forget(records)
    assert devices.take("phone") is None
    assert devices.work(work_id).error == f"given out {MOST_ATTEMPTS} times, and no result came"


def test_of_several_results_the_first_counts(records: Records) -> None:
    devices = DeviceRecords(records)
    work_id = devices.queue("phone", WORK).id
    devices.take("phone")
    assert devices.finish(work_id, result={"latencies": {}}).state == "done"
    with pytest.raises(WorkStateError, match="done already"):
        devices.finish(work_id, error="late")
    assert (devices.work(work_id).result, devices.open_work("phone")) == ({"latencies": {}}, [])
    with pytest.raises(NotFoundError):
        devices.work(work_id, device="laptop")
