"""Revisions give the tables that the code works with, to new databases and to those of older versions."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from autoprune.service.settings import SettingsError
from autoprune.service.storage.database import engine_of
from autoprune.service.storage.device_records import DeviceRecords
from autoprune.service.storage.event_records import EventRecords
from autoprune.service.storage.migrate import alone
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import ArtifactRow, DatasetRow, ModelRow, Table
from tests.service.postgres import PASSWORD

BEFORE_REVISIONS = Path(__file__).parent / "records_before_revisions.sql"


def differences(url: str) -> list[object]:
    """Return what the tables of a database lack or have too many, beside those of the code."""
    engine = engine_of(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        found: list[object] = compare_metadata(context, Table.metadata)
    engine.dispose()
    return found


def revisions(url: str) -> list[str]:
    """Return what a database says of its revision."""
    engine = engine_of(url)
    with engine.connect() as connection:
        found = list(connection.scalars(text("SELECT version_num FROM alembic_version")))
    engine.dispose()
    return found


def test_the_revisions_give_the_tables_of_the_code(database_url: str) -> None:
    for _ in range(2):
        Records(database_url, create=True).close()
    assert differences(database_url) == []
    assert len(revisions(database_url)) == 1


@pytest.mark.parametrize("older_still", [[], ["ALTER TABLE jobs DROP COLUMN kind", "DROP TABLE device_work"]])
def test_records_of_older_versions_go_on(tmp_path: Path, older_still: list[str]) -> None:
    path = tmp_path / "records.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(BEFORE_REVISIONS.read_text())
        for statement in older_still:
            connection.execute(statement)
        connection.commit()
    url = f"sqlite:///{path}"
    for _ in range(2):
        with closing(Records(url, create=True)) as records:
            rows = [(row.id, row.kind, row.state, row.crashes, row.spec) for row in records.jobs()]
            events = EventRecords(records.sessions).of(["done", "failed", "waits"])
            told = {job_id: [(row.state, row.attempt, row.detail) for row in of] for job_id, of in events.items()}
            assert events["done"][0].created_at == records.job("done").finished_at
            assert [row.name for row in records.artifacts("done")] == ["x/y"]
            assert (records.find(ModelRow, "mdl_1").facts, records.find(DatasetRow, "dat_1").size_bytes) == (
                {"a": [1]},
                4,
            )
            assert len(DeviceRecords(records).open_work("phone")) == (0 if older_still else 1)
        assert rows == [
            ("waits", "search", "queued", 0, {}),
            ("failed", "search", "failed", 0, {}),
            ("done", "search", "succeeded", 0, {"threads": 1}),
        ]
        assert told == {"done": [("succeeded", 1, {})], "failed": [("failed", 1, {})], "waits": [("queued", 0, {})]}
    assert differences(url) == []
    with closing(Records(url)) as records:
        claimed = records.claim()
        assert claimed is not None
        assert (claimed.id, claimed.attempts) == ("waits", 1)


def test_services_that_start_at_once_change_the_tables_once(database_url: str) -> None:
    script = (
        "import sys, autoprune.service.storage.migrate; from autoprune.service.storage.records import Records;"
        "print(flush=True); sys.stdin.readline(); Records(sys.argv[1], create=True).add_job(sys.argv[2], {})"
    )
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", script, database_url, f"job{index}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for index in range(2)
    ]
    for process in starting:
        assert process.stdout is not None
        process.stdout.readline()
    for process in starting:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in starting:
        process.communicate()
        assert process.returncode == 0
    with closing(Records(database_url)) as records:
        assert {row.id for row in records.jobs()} == {"job0", "job1"}
    assert len(revisions(database_url)) == 1


def test_records_of_a_newer_version_are_refused(database_url: str) -> None:
    with closing(Records(database_url, create=True)) as records, records.sessions.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match=r"newer version of autoprune .*9999.* install that version") as caught:
        Records(database_url, create=True)
    assert PASSWORD not in str(caught.value)
    assert revisions(database_url) == ["9999"]


def test_a_change_of_tables_is_made_whole_or_not_at_all(database_url: str) -> None:
    with closing(Records(database_url, create=True)) as records:
        records.add_job("a", {})
        records.claim()
        kept = ArtifactRow(job_id="a", name="x", sha256="", size_bytes=0, media_type="")
        records.move("a", JobState.SUCCEEDED, artifacts=[kept])
    engine = engine_of(database_url)
    with pytest.raises(DatabaseError, match="no_such_table"), alone(engine) as connection:  # noqa: PT012 - it is the second that fails
        connection.execute(text("CREATE TABLE half (a INTEGER)"))
        connection.execute(text("DROP TABLE no_such_table"))
    assert not inspect(engine).has_table("half")
    with alone(engine) as connection, Operations.context(MigrationContext.configure(connection)) as operations:
        recreate = "always" if engine.dialect.name == "sqlite" else "auto"
        with operations.batch_alter_table("jobs", recreate=recreate) as batch:
            batch.alter_column("spec", nullable=True)
    engine.dispose()
    with closing(Records(database_url)) as records:
        assert [row.name for row in records.artifacts("a")] == ["x"]  # a table that is replaced takes nothing along
