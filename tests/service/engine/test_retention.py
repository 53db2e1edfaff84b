"""What is deleted once it is old, and what never is."""

import io
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from autoprune.service.engine.retention import Retention
from autoprune.service.engine.service import Service, opened
from autoprune.service.rest.uploads import add_model
from autoprune.service.settings import MOST_DAYS, Settings, SettingsError
from autoprune.service.storage.records import NotFoundError
from autoprune.service.storage.tables import (
    ArtifactRow,
    DatasetRow,
    JobEventRow,
    JobRow,
    JobState,
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
