"""Several jobs at a time, and several services on one home folder and database."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.service.engine.presence import FileLocks, host_name
from autoprune.service.engine.service import Service, opened
from autoprune.service.engine.takeover import Takeover
from autoprune.service.locks import held
from autoprune.service.settings import MOST_DAYS, Settings, SettingsError
from autoprune.service.storage.event_records import EventRecords
from autoprune.service.storage.home_mark import HOME_ID
from autoprune.service.storage.losses import MOST_CRASHES
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow
from tests.service.engine.small_jobs import ENDLESS, QUICK, add_job, group_is_gone

HERE = host_name()


def until(records: Records, job_id: str, holds: Callable[[JobRow], bool], timeout_s: float = 100) -> JobRow:
    """Return a job's record once it `holds`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        row = records.job(job_id)
        if holds(row):
            return row
        time.sleep(0.02)
    raise AssertionError((row.state, row.attempts, row.runner, row.progress, row.error))


def works(row: JobRow, *, attempt: int = 1) -> bool:
    """Tell whether the process of an attempt is known."""
    return (row.state, row.attempts) == (JobState.RUNNING, attempt) and row.worker_pid is not None


def computes(row: JobRow) -> bool:
    """Tell whether a job is in the middle of its long computation."""
    return row.progress is not None and row.progress["stage"] == "finetune"


def told(service: Service, job_id: str) -> list[tuple[str, int, object]]:
    """Return what the events of a job say."""
    rows = EventRecords(service.records.sessions).of([job_id])[job_id]
    return [(row.state, row.attempt, row.detail) for row in rows]


@contextlib.contextmanager
def working(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """Run jobs in a process of its own, which the test may kill: ``autoprune work``."""
    command = [sys.executable, "-m", "autoprune.service.cli.app", "work", "--workers", str(settings.workers)]
    environment = {**os.environ, "AUTOPRUNE_HOME": str(settings.home), "AUTOPRUNE_DB": settings.database_url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"at a time" in process.stdout.readline()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def test_a_service_runs_as_many_jobs_at_a_time_as_it_has_workers(tmp_path: Path) -> None:
    with opened(Settings(tmp_path / "home", workers=2)) as service:
        jobs = [add_job(service, **ENDLESS) for _ in range(2)]
        waiting = add_job(service, **ENDLESS)
        rows = [until(service.records, job, computes) for job in jobs]
        assert sorted(str(row.runner) for row in rows) == [f"{HERE}/0", f"{HERE}/1"]
        assert service.records.job(waiting).state == "queued"
        started = time.monotonic()
        for job in jobs:
            service.records.request_cancel(job)
        for row in rows:
            assert until(service.records, row.id, lambda found: found.finished_at is not None).state == "cancelled"
        assert time.monotonic() - started < 3
        assert all(group_is_gone(row.worker_pid or 0, 1) for row in rows)
        last = until(service.records, waiting, works)
    assert group_is_gone(last.worker_pid or 0, 0.1)
    assert service.runners is not None
    assert not service.runners.is_alive


def test_services_share_a_queue_and_take_over_from_those_that_are_killed(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(replace(settings, run_jobs=False)) as service, working(replace(settings, workers=2)) as killed:
        jobs = [add_job(service, **ENDLESS) for _ in range(3)]
        first = [until(service.records, job, computes) for job in jobs[:2]]
        with opened(settings) as peer:
            assert until(peer.records, jobs[2], works).runner == f"{HERE}/2"
            assert [peer.records.job(job).attempts for job in jobs[:2]] == [1, 1]  # the living are left alone
            peer.records.request_cancel(jobs[2])
            until(peer.records, jobs[2], lambda row: row.state == "cancelled")
            killed.kill()
            taken = until(peer.records, jobs[0], lambda row: works(row, attempt=2), timeout_s=10)
            assert (taken.runner, taken.crashes, taken.deaths) == (f"{HERE}/2", 1, 0)
            assert until(peer.records, jobs[1], lambda row: row.state == "queued").crashes == 1
            assert all(group_is_gone(row.worker_pid or 0, 3) for row in first)
        expected = [("queued", 0, {}), ("running", 1, {}), ("requeued", 1, {"crashed": True})]
        assert told(service, jobs[1]) == expected
        assert told(service, jobs[0]) == [*expected, ("running", 2, {}), ("requeued", 2, {})]


def test_a_job_that_was_taken_away_wrongly_never_runs_twice_at_once(tmp_path: Path) -> None:
    with opened(Settings(tmp_path / "home")) as service:
        job = add_job(service, **ENDLESS)
        before = until(service.records, job, computes)
        assert service.records.move(job, JobState.QUEUED, attempt=1)  # as another service might
        after = until(service.records, job, lambda row: works(row, attempt=2))
        assert group_is_gone(before.worker_pid or 0, 1)
        with held(service.settings.job_folder(job) / "worker.lock") as locked:
            assert locked or after.worker_pid is not None
        assert told(service, job)[2:] == [("requeued", 1, {}), ("running", 2, {})]
        service.records.request_cancel(job)
        until(service.records, job, lambda row: row.state == "cancelled")


def test_a_job_whose_worker_lives_somewhere_waits_for_it(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(replace(settings, run_jobs=False)) as service:
        job = add_job(service, **QUICK)
        service.records.claim("elsewhere/0")
        presence, takeover = FileLocks(settings.runner_locks), Takeover(settings, service.records)
        settings.job_folder(job).mkdir()
        with held(settings.job_folder(job) / "worker.lock") as locked:
            assert locked
            assert not takeover.of_the_dead(presence)
            assert service.records.job(job).state == "running"
            service.records.move(job, JobState.QUEUED, attempt=1)
            with opened(settings) as other:
                until(other.records, job, lambda row: row.attempts > 2)  # began, and found the other at work
        assert [detail for *_, detail in told(service, job)] == [{}] * len(told(service, job))
        service.records.claim("elsewhere/0")
        assert takeover.of_the_dead(presence)
        assert service.records.job(job).crashes == 1


def test_what_an_earlier_version_left_running_is_taken_over(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(replace(settings, run_jobs=False)) as service:
        job = add_job(service, **QUICK)
        service.records.claim()
        assert Takeover(settings, service.records).of_the_dead(FileLocks(settings.runner_locks))
        assert told(service, job)[-1] == ("requeued", 1, {"crashed": True})


def test_a_runner_that_a_defect_ended_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path / "home")
    with opened(settings) as service, monkeypatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _: None)
        with service.records.sessions.begin() as session:  # a record that no version writes
            session.add(JobRow(id="odd", spec=[], crashes=MOST_CRASHES - 2))  # type: ignore[arg-type]
        until(service.records, "odd", lambda row: row.state == "failed")
        assert service.records.job("odd").error["type"] == "poisoned"  # type: ignore[index]
        assert service.runners is not None
        deadline = time.monotonic() + 10
        while not service.runners.is_alive and time.monotonic() < deadline:
            time.sleep(0.05)
        assert service.runners.is_alive


def test_the_keeper_of_jobs_goes_on_after_a_defect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before_all_dates = Settings(tmp_path / "home", keep_days=10 * MOST_DAYS**2)
    with opened(before_all_dates) as service:
        deadline = time.monotonic() + 20
        while "OverflowError" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with service.records.sessions.begin() as session:
            session.add(JobRow(id="left", spec={}, state="running", attempts=1, runner="elsewhere/0"))
        until(service.records, "left", lambda row: row.attempts == 2)
        assert service.runners is not None
        assert service.runners.is_alive


def test_a_database_belongs_to_one_home_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    one, other = (Settings(tmp_path / name, database_url=url, run_jobs=False) for name in ("one", "other"))
    for _ in range(2):
        with opened(one):
            pass
    with (
        pytest.raises(SettingsError, match="expected the home folder that the database belongs to") as caught,
        opened(other),
    ):
        pass
    assert str(one.home) in str(caught.value)
    assert str(other.home) in str(caught.value)
    one.home.rename(tmp_path / "moved")
    with opened(Settings(tmp_path / "moved", database_url=url, run_jobs=False)):
        assert (tmp_path / "moved" / HOME_ID).exists()


def test_ids_of_runners_are_taken_again_and_never_shared(tmp_path: Path) -> None:
    one, other = FileLocks(tmp_path), FileLocks(tmp_path)
    assert one.take(2) == (f"{HERE}/0", f"{HERE}/1")
    assert other.take(1) == (f"{HERE}/2",)
    assert other.dead([f"{HERE}/0", f"{HERE}/2", f"{HERE}/3", "elsewhere/0"]) == {f"{HERE}/3", "elsewhere/0"}
    one.close()
    assert other.dead([f"{HERE}/0", f"{HERE}/2"]) == {f"{HERE}/0"}
    assert FileLocks(tmp_path).take(1) == (f"{HERE}/0",)
    other.close()


def test_workers_are_settings() -> None:
    def workers(text: str) -> tuple[bool, int]:
        settings = Settings.from_environment({"AUTOPRUNE_WORKERS": text})
        return settings.run_jobs, settings.workers

    assert [workers(text) for text in ("", "0", "3")] == [(True, 1), (False, 1), (True, 3)]
    for text in ("-1", "x", "1025", "1.5"):
        with pytest.raises(SettingsError, match="AUTOPRUNE_WORKERS: expected a whole number"):
            workers(text)


def test_working_without_workers_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autoprune.service.cli.app", "work", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "AUTOPRUNE_HOME": str(tmp_path)})
    assert (done.returncode, "at least 1 job at a time" in done.stderr) == (2, True)
