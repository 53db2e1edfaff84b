"""What is deleted once it is old, and what never is."""

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import func, select, update

from autoprune.files import file_sha256
from autoprune.service.devices.work import queue_files
from autoprune.service.engine.retention import Retention
from autoprune.service.engine.service import Service, opened
from autoprune.service.rest.uploads import add_model
from autoprune.service.settings import MOST_DAYS, Settings, SettingsError
from autoprune.service.storage.device_records import DeviceRecords
from autoprune.service.storage.errors import NotFoundError
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import (
    ArtifactRow,
    DatasetRow,
    DeviceWorkRow,
    JobEventRow,
    JobRow,
    ModelRow,
    SubmissionKeyRow,
    now,
)
from tests.service.live_service import stored_files, tiny_onnx

OLD = timedelta(days=8)


@pytest.fixture
def service(database_url: str, tmp_path: Path) -> Iterator[Service]:
    settings = Settings(tmp_path / "home", database_url=database_url, keep_days=7, run_jobs=False)
    with opened(settings) as service:
        yield service


def model(service: Service, seed: int) -> str:
    """Upload a model; return its id."""
    content = io.BytesIO(tiny_onnx(seed=seed))
    return add_model(service.settings, service.records, service.store, content, "tiny.onnx")[0].id


def job(service: Service, job_id: str, model_id: str, *, ends: JobState | None, **spec: object) -> None:
    """Queue a job, and end it."""
    service.records.add_job(job_id, {"model": model_id, "dataset": "digits", **spec})
    folder = service.settings.artifact_folder(job_id)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    if ends is not None:
        artifact = ArtifactRow(job_id=job_id, name="result.json", sha256="", size_bytes=2, media_type="")
        assert service.records.claim() is not None
        service.records.move(job_id, ends, artifacts=[artifact])


def grow_old(service: Service, *jobs: str) -> None:
    """Let jobs have ended long ago, and all uploads be of a time before that."""
    moment = now() - OLD
    with service.records.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id.in_(jobs)).values(finished_at=moment))
        for kind in (ModelRow, DatasetRow):
            session.execute(update(kind).values(created_at=moment))
    for path in stored_files(service.settings.home):
        os.utime(path, (moment.timestamp(), moment.timestamp()))


def test_jobs_and_uploads_go_when_they_are_old_and_nobody_needs_them(service: Service) -> None:
    used, shared, unused = (model(service, seed) for seed in range(3))
    job(service, "old", shared, ends=JobState.SUCCEEDED)
    job(service, "older", shared, ends=JobState.FAILED)
    job(service, "source", used, ends=JobState.SUCCEEDED)
    job(service, "agent", used, ends=JobState.SUCCEEDED)
    job(service, "young", used, ends=JobState.CANCELLED)
    job(service, "waits", used, ends=None, continue_from="source", amc={"agent": "agent"})
    with service.records.sessions.begin() as session:
        session.add(SubmissionKeyRow(caller="", kind="search", key="k", job_id="old"))
    grow_old(service, "old", "older", "source", "agent")
    Retention(replace(service.settings, keep_days=None), service.records).apply()
    assert len(service.records.jobs()) == 6
    Retention(service.settings, service.records).apply()
    assert {row.id for row in service.records.jobs()} == {"source", "agent", "young", "waits"}
    assert {path.name for path in (service.settings.home / "jobs").iterdir()} == {"source", "agent", "young", "waits"}
    assert [row.id for row in service.records.all(ModelRow)] == [used]
    assert len(stored_files(service.settings.home)) == 1
    for row_id in (shared, unused):
        with pytest.raises(NotFoundError):
            service.records.find(ModelRow, row_id)
    with service.records.sessions() as session:
        for table in (ArtifactRow, JobEventRow, SubmissionKeyRow):
            left = session.scalars(select(func.count()).where(table.job_id.in_(["old", "older"]))).one()
            assert left == 0, table


def test_a_content_that_was_sent_again_stays(service: Service) -> None:
    sent = model(service, 0)
    grow_old(service)
    assert model(service, 0) == sent
    Retention(service.settings, service.records).apply()
    assert service.records.find(ModelRow, sent).id == sent
    assert len(stored_files(service.settings.home)) == 1


def test_a_service_deletes_by_itself_what_a_kill_left_half_deleted(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home", run_jobs=False)
    with ExitStack() as stack:
        service = stack.enter_context(opened(settings))
        for index in range(25):
            job(service, f"job{index}", "none", ends=JobState.SUCCEEDED)
        grow_old(service, *(f"job{index}" for index in range(25)))
        (settings.artifact_folder("job0") / "result.json").unlink()
        stack.enter_context(
            opened(Settings.from_environment({"AUTOPRUNE_HOME": str(settings.home), "AUTOPRUNE_KEEP_DAYS": "7"}))
        )
        deadline = time.monotonic() + 20
        while service.records.jobs():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert list((settings.home / "jobs").iterdir()) == []


def test_days_to_keep_lie_within_a_century(tmp_path: Path) -> None:
    def settings(days: int) -> Settings:
        return Settings.from_environment({"AUTOPRUNE_HOME": str(tmp_path), "AUTOPRUNE_KEEP_DAYS": str(days)})

    with opened(replace(settings(MOST_DAYS), run_jobs=False)) as service:
        Retention(service.settings, service.records).apply()
    with pytest.raises(SettingsError, match=f"AUTOPRUNE_KEEP_DAYS: expected at most {MOST_DAYS}, found 36501"):
        settings(MOST_DAYS + 1)


def test_what_is_sent_or_named_while_it_is_deleted_is_there_or_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, named = model(service, 0), model(service, 1)
    grow_old(service)
    delete, asked = FileStore.delete, list[Future[object]]()
    with ThreadPoolExecutor(2) as pool:

        def slow(store: FileStore, sha256: str, suffix: str) -> None:
            if not asked:
                asked.append(pool.submit(model, service, 0))
                asked.append(pool.submit(service.records.add_job, "job", {"model": named}))
                wait(asked, timeout=0.5)
            delete(store, sha256, suffix)

        monkeypatch.setattr(FileStore, "delete", slow)
        Retention(service.settings, service.records).apply()
        assert asked[0].result(20) == again
        with pytest.raises(NotFoundError, match=named):
            asked[1].result(20)
    (row,) = service.records.all(ModelRow)
    assert row.id == again
    assert stored_files(service.settings.home) == [service.store.path(row.sha256, row.suffix)]
    assert service.records.jobs() == []


def test_what_cannot_be_deleted_holds_up_nothing_else(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    stuck = [f"stuck{index:02d}" for index in range(25)]
    for job_id in stuck:
        service.records.add_job(job_id, {})
        service.records.claim()
        service.records.move(job_id, JobState.FAILED)
        (service.settings.home / "jobs" / job_id).touch()  # no folder, so nothing that could be deleted as one
    job(service, "behind", "none", ends=JobState.SUCCEEDED)
    unused = model(service, 0)
    grow_old(service, *stuck, "behind")
    retention = Retention(service.settings, service.records)
    for _ in range(4):
        retention.apply()
    assert sorted(row.id for row in service.records.jobs()) == stuck
    with pytest.raises(NotFoundError):
        service.records.find(ModelRow, unused)
    assert caplog.text.count("its folder cannot be deleted") == len(stuck)


def test_services_delete_the_same_jobs_at_once(service: Service) -> None:
    jobs = [f"job{index:02d}" for index in range(15)]
    for job_id in jobs:
        job(service, job_id, "none", ends=JobState.SUCCEEDED)
        for index in range(20):
            folder = service.settings.artifact_folder(job_id) / str(index)
            folder.mkdir()
            (folder / "file").touch()
    grow_old(service, *jobs)
    start = Barrier(3)

    def delete() -> None:
        retention = Retention(service.settings, service.records)
        start.wait()
        retention.apply()

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(delete) for _ in range(3)]:
            done.result(20)
    assert service.records.jobs() == []
    assert list((service.settings.home / "jobs").iterdir()) == []


def test_what_devices_measured_goes_and_what_they_have_yet_to_measure_stays(service: Service, tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.onnx" for index in range(4)]
    for seed, path in enumerate(files):
        path.write_bytes(tiny_onnx(seed=seed))
    measured, waiting, uploaded, _ = files
    model(service, 2)
    service.records.add_job("job", {"model": model(service, 2)})
    devices = DeviceRecords(service.records)
    ended = [queue_files(devices, service.store, "phone", [path], input_shape=(3, 8, 8)) for path in files]
    kept = queue_files(devices, service.store, "phone", [waiting], input_shape=(3, 8, 8))
    for row in ended:
        devices.finish(row.id, error="it could not")
    grow_old(service)
    with service.records.sessions.begin() as session:
        session.execute(update(DeviceWorkRow).where(DeviceWorkRow.id.in_([row.id for row in ended[:3]])).values(
            finished_at=now() - OLD))  # fmt: skip
    Retention(service.settings, service.records).apply()
    with service.records.sessions() as session:
        left = session.scalars(select(DeviceWorkRow.id).order_by(DeviceWorkRow.number)).all()
    assert left == [ended[3].id, kept.id]
    assert {path.stem for path in stored_files(service.settings.home)} == {file_sha256(path) for path in files[1:]}
    assert not service.store.path(file_sha256(measured), ".onnx").exists()
    assert uploaded.read_bytes() == service.store.path(file_sha256(uploaded), ".onnx").read_bytes()
