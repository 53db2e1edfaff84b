"""How a job's process reaches the records, and what becomes of the job where it does not."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from autoprune.service.engine.service import opened
from autoprune.service.engine.worker_process import running
from autoprune.service.settings import Settings
from autoprune.service.storage.database import with_password
from autoprune.service.storage.records import Records
from tests.service.postgres import PASSWORD, Postgres


def test_a_worker_finds_the_records_by_what_libpq_finds_in_the_environment(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = postgres.new_database().partition("?")[2]
    for name, value in (
        ("PGHOST", "127.0.0.1"), ("PGPORT", str(postgres.port)), ("PGUSER", "postgres"), ("PGPASSWORD", PASSWORD)
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = Settings(tmp_path / "home", database_url=f"postgresql:///postgres?{options}")
    settings.prepare()
    with contextlib.closing(Records(settings.url, create=True)) as records:
        records.add_job("job", {"model": "none"})
        row = records.claim()
        assert row is not None
        with running(settings, row) as process:
            variables = Path(f"/proc/{process.pid}/environ").read_bytes()
            process.wait(60)
        assert records.job("job").state == "failed"
    assert b"PGHOST=" in variables
    assert PASSWORD.encode() not in variables


def test_a_password_goes_into_an_address_that_has_none() -> None:
    for url in ("postgresql://me@host/db", "postgres:///db?options=-c%20search_path%3Da"):
        assert "password=p%40+ss" in with_password(url, "p@ ss")
        assert with_password(url, None) == url
    for url in ("postgresql://me:own@host/db", "postgresql://host/db?password=own", "sqlite:////tmp/a.sqlite"):
        assert with_password(url, "other") == url


def test_an_attempt_that_cannot_use_the_records_is_queued_again_and_counts_as_no_loss(tmp_path: Path) -> None:
    settings = Settings(tmp_path / "home")
    with opened(replace(settings, run_jobs=False)) as service:
        service.records.add_job("job", {"model": "none", "dataset": "digits", "budget": "macs=50%"})
        with service.records.engine.begin() as connection:
            connection.execute(text("ALTER TABLE models RENAME TO away"))
        with opened(settings):
            deadline = time.monotonic() + 60
            while (row := service.records.job("job")).attempts < 2:
                assert time.monotonic() < deadline, row.error
                time.sleep(0.05)
        assert (row.deaths, row.crashes, row.error) == (0, 0, None)
