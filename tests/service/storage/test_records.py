"""Guarded transitions, exactly-once claims, and records that other processes see."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.errors import JobStateError, NotFoundError
from autoprune.service.storage.losses import MOST_CRASHES, MOST_DEATHS, Loss
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobKind, JobState
from autoprune.service.storage.tables import ArtifactRow, DatasetRow, JobRow, ModelRow, now
from tests.service.postgres import Postgres

DAY = timedelta(days=1)


def dataset(row_id: str, name: str = "a.npz") -> DatasetRow:
    return DatasetRow(id=row_id, name=name, sha256="00", suffix=".npz", size_bytes=1, facts={"images": 3})


def test_jobs_go_only_where_they_may(records: Records) -> None:
    for source in JobState:
        for target in JobState:
            job_id = f"{source}-{target}"
            records.add_job(job_id, {})
            if source is not JobState.QUEUED:
                assert records.move(job_id, JobState.RUNNING)
                if source is not JobState.RUNNING:
                    assert records.move(job_id, source)
            allowed = source in target.sources
            assert records.move(job_id, target) == allowed
            assert records.job(job_id).state == (target if allowed else source)
            assert (records.job(job_id).finished_at is not None) == JobState(records.job(job_id).state).is_final
    assert [state for state in JobState if state.is_final] == ["succeeded", "failed", "cancelled"]


def test_each_job_is_claimed_once_and_the_oldest_first(records: Records) -> None:
    expected = [f"job{i}" for i in range(40)]
    for job_id in expected:
        records.add_job(job_id, {})
    with ThreadPoolExecutor(8) as pool:
        claimed = [row.id for row in pool.map(lambda _: records.claim(), range(40)) if row is not None]
    assert sorted(claimed) == sorted(expected)  # nobody went away empty while there was something
    assert records.claim() is None
    records.add_job("later", {})
    records.move("job7", JobState.QUEUED)
    first = records.claim()
    assert first is not None
    assert (first.id, first.attempts) == ("job7", 2)


def test_an_earlier_attempt_can_write_no_more(records: Records) -> None:
    records.add_job("a", {})
    records.claim()
    records.report("a", 1, progress={"done": 1}, worker_pid=7)
    records.move("a", JobState.QUEUED)
    records.claim()
    records.report("a", 1, progress={"done": 99}, worker_pid=8)
    assert not records.move("a", JobState.SUCCEEDED, attempt=1)
    row = records.job("a")
    assert (row.state, row.progress, row.worker_pid) == ("running", {"done": 1}, None)
    artifact = ArtifactRow(job_id="a", name="x/y", sha256="00", size_bytes=1, media_type="text/plain")
    assert records.move("a", JobState.SUCCEEDED, attempt=2, artifacts=[artifact])
    assert [row.name for row in records.artifacts("a")] == ["x/y"]


def test_cancelling(records: Records) -> None:
    for job_id in ("queued", "running", "done"):
        records.add_job(job_id, {})
    assert records.request_cancel("queued").state == "cancelled"
    assert records.request_cancel("queued").state == "cancelled"
    assert records.claim().id == "running"  # type: ignore[union-attr]
    row = records.request_cancel("running")
    assert (row.state, row.cancel_requested) == ("running", True)
    records.claim()
    records.move("done", JobState.SUCCEEDED)
    with pytest.raises(JobStateError, match="succeeded already"):
        records.request_cancel("done")
    with pytest.raises(NotFoundError, match="no job has the id 'none'"):
        records.request_cancel("none")


def test_kinds_share_one_queue_and_are_told_apart(records: Records) -> None:
    records.add_job("a", {})
    records.add_job("b", {}, kind=JobKind.COMPARISON)
    assert [row.id for row in records.jobs()] == ["b", "a"]
    assert [row.id for row in records.jobs(kind=JobKind.COMPARISON)] == ["b"]
    assert [records.claim().id, records.claim().id] == ["a", "b"]  # type: ignore[union-attr]
    assert records.job("b", JobKind.COMPARISON).kind == records.job("b").kind == "comparison"
    with pytest.raises(NotFoundError, match="no comparison has the id 'a'; GET /v1/comparisons"):
        records.job("a", JobKind.COMPARISON)
    with pytest.raises(NotFoundError, match="no job has the id 'b'"):
        records.job("b", JobKind.SEARCH)


def test_each_lost_attempt_counts_once_until_one_gets_further(records: Records) -> None:
    records.add_job("a", {})
    found = []
    for died, journaled in ((False, 0), (True, 0), (True, 0), (False, 5), (False, 5), (True, 6)):
        row = records.claim("host/0")
        assert row is not None
        assert (row.runner, [job.id for job in records.running("host/0")], records.running("host/1")) == (
            "host/0", ["a"], [],
        )  # fmt: skip
        loss = Loss.of(row, died=died, journaled=journaled)
        assert not loss.is_last
        moves = [records.move("a", JobState.QUEUED, attempt=row.attempts, loss=loss) for _ in range(2)]
        assert moves == [True, False]
        found.append((records.job("a").crashes, records.job("a").deaths))
    assert found == [(1, 0), (1, 1), (1, 2), (1, 0), (2, 0), (0, 1)]
    for died, most in ((True, MOST_DEATHS), (False, MOST_CRASHES)):
        row = JobRow(crashes=0, deaths=0, journaled=3)
        for index in range(most):
            loss = Loss.of(row, died=died, journaled=3)
            assert loss.is_last == (index == most - 1)
            row.crashes, row.deaths = loss.crashes, loss.deaths


def test_the_same_content_is_recorded_once(records: Records) -> None:
    first, is_new = records.add(dataset("d1"))
    again, is_new_again = records.add(dataset("d1", "other name.npz"))
    assert (is_new, is_new_again, again.name) == (True, False, "a.npz")
    assert first.created_at.tzinfo is not None
    assert again.created_at == first.created_at
    records.add(dataset("d2"))
    assert [row.id for row in records.all(DatasetRow)] == ["d2", "d1"]
    with pytest.raises(NotFoundError, match="no model has the id 'd1'"):
        records.find(ModelRow, "d1")


def test_other_connections_see_what_is_written(database_url: str, records: Records) -> None:
    records.add_job("a", {"threads": 2})
    other = Records(database_url)
    assert other.claim().spec == {"threads": 2}  # type: ignore[union-attr]
    assert records.job("a").state == "running"
    other.close()


def test_text_is_kept_as_both_databases_can(records: Records) -> None:
    records.add_job("a", {"name": "\0 \N{SNOWMAN} \ud800", "number": 2**60, "none": None})
    assert records.job("a").spec == {"name": "\0 \N{SNOWMAN} \ud800", "number": 2**60, "none": None}
    records.add(dataset("d", "\0\N{SNOWMAN}.npz"))
    assert records.find(DatasetRow, "d").name == "\N{REPLACEMENT CHARACTER}\N{SNOWMAN}.npz"
    with pytest.raises(NotFoundError, match="no job has the id"):
        records.job("a\0")


def test_files_may_be_larger_than_2_gib(records: Records) -> None:
    row = dataset("d")
    row.size_bytes = 2**40
    records.add(row)
    assert records.find(DatasetRow, "d").size_bytes == 2**40


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_urls_of_postgresql_mean_psycopg_3(postgres: Postgres, scheme: str) -> None:
    url = postgres.new_database().replace("postgresql", scheme, 1)
    with closing(Records(f"{url}&application_name=another", create=True)) as records, records.sessions() as session:
        assert session.scalar(text("SELECT current_setting('application_name')")) == "another"
        assert session.get_bind().engine.url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://user:secret@host",
        "postgresql+asyncpg://user:secret@host/db",
        "postgresql://user:secret@host:port/db",
        "mysql://user:secret@host/db?password=secret",
        "nosuch:///x",
    ],
)
def test_only_sqlite_files_and_postgresql_hold_records(url: str) -> None:
    with pytest.raises(SettingsError, match="AUTOPRUNE_DB: expected") as caught:
        Records(url, create=True)
    assert "secret" not in str(caught.value)


def test_order_does_not_depend_on_the_clock(records: Records) -> None:
    for index in range(4):
        records.add_job(f"job{index}", {})
        with records.sessions.begin() as session:  # as if the clock had been set back by a day before each
            session.execute(update(JobRow).where(JobRow.id == f"job{index}").values(created_at=now() - index * DAY))
    assert [row.id for row in records.jobs(limit=2)] == ["job3", "job2"]
    assert [row.id for row in records.jobs(after="job2")] == ["job1", "job0"]
    assert [row.id for _ in range(4) if (row := records.claim())] == ["job0", "job1", "job2", "job3"]


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(SettingsError, match="cannot be used"):
        Records(f"sqlite:///{path}", create=True)


def test_damaged_records_are_refused(tmp_path: Path) -> None:
    path, url = tmp_path / "records.sqlite", f"sqlite:///{tmp_path / 'records.sqlite'}"
    with closing(Records(url, create=True)) as records:
        for index in range(200):
            records.add_job(f"job{index}", {"text": "x" * 200})
    content = bytearray(path.read_bytes())
    page = len(content) // 4096 // 2 * 4096  # in the middle: the file opens, and its first rows can be read
    content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"records.sqlite are damaged \(.*move the file away to begin with none"):
        Records(url, create=True)
    assert path.read_bytes() == content


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment({"AUTOPRUNE_HOME": str(tmp_path / "home")})
    assert settings.url == f"sqlite:///{tmp_path / 'home' / 'autoprune.sqlite'}"
    assert Settings.from_environment({"AUTOPRUNE_DB": "sqlite:////x/y"}).url == "sqlite:////x/y"
    assert Settings.from_environment({}).home == Path.home() / ".local" / "share" / "autoprune"
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="AUTOPRUNE_HOME"):
        Settings(tmp_path / "file" / "home").prepare()


def test_a_job_never_starts_before_it_was_added(records: Records) -> None:
    records.add_job("a", {})
    with records.sessions.begin() as session:  # as a claim that waited for the database finds it
        session.execute(update(JobRow).values(created_at=now() + DAY))
    row = records.claim()
    assert row is not None
    assert row.started_at == row.created_at
