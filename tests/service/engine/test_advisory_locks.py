"""Who is alive on several machines that share a PostgreSQL database, and what that leaves when it is away."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from autoprune.service.engine.advisory_locks import AdvisoryLocks
from autoprune.service.engine.presence import FileLocks
from autoprune.service.engine.service import opened
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.database import engine_of
from tests.service.engine.small_jobs import ENDLESS, add_job
from tests.service.engine.test_runners import computes, until
from tests.service.postgres import Postgres

SETTLE_S = 0.5


@pytest.fixture
def url(postgres: Postgres) -> Iterator[str]:
    return postgres.new_database()


def machine(url: str, folder: Path, host: str) -> AdvisoryLocks:
    """Return the locks of a machine, whose lock files the others do not see."""
    return AdvisoryLocks(engine_of(url), FileLocks(folder / host, host), settle_s=SETTLE_S)


def test_machines_see_which_runners_of_others_are_alive(url: str, tmp_path: Path) -> None:
    with closing(machine(url, tmp_path, "b")) as there:
        here = machine(url, tmp_path, "a")
        assert (here.take(2), there.take(1)) == (("a/0", "a/1"), ("b/0",))
        assert (here.is_held, there.is_held) == (True, True)
        known = ["a/0", "a/1", "a/2", "b/0", "b/1"]
        assert there.dead(known) == {"b/1"}  # nobody elsewhere is judged yet
        time.sleep(SETTLE_S)
        assert there.dead(known) == {"a/2", "b/1"}
        here.close()
        assert there.dead(known) == {"a/0", "a/1", "a/2", "b/1"}


def test_machines_of_one_name_do_not_share_ids(url: str, tmp_path: Path) -> None:
    one, other = (AdvisoryLocks(engine_of(url), FileLocks(tmp_path / name, "a")) for name in ("one", "other"))
    with closing(one), closing(other):
        assert (one.take(1), other.take(1)) == (("a/0",), ("a/1",))


def test_nobody_is_judged_until_others_had_time_to_connect_again(postgres: Postgres, url: str, tmp_path: Path) -> None:
    with closing(machine(url, tmp_path, "a")) as here, closing(machine(url, tmp_path, "b")) as there:
        here.take(1)
        there.take(1)
        time.sleep(SETTLE_S)
        postgres.stop()
        there.keep()
        assert not there.is_held
        assert there.dead(["a/0", "b/1"]) == {"b/1"}
        postgres.start()
        there.keep()
        assert there.is_held
        assert there.dead(["a/0"]) == set()  # the others' locks are gone, as were ours
        here.keep()
        time.sleep(SETTLE_S)
        assert there.dead(["a/0"]) == here.dead(["b/0"]) == set()
        assert here.is_held


def test_jobs_go_on_while_the_database_is_away(postgres: Postgres, url: str, tmp_path: Path) -> None:
    with opened(Settings(tmp_path / "home", database_url=url)) as service:
        job = add_job(service, **ENDLESS)
        before = until(service.records, job, computes).progress
        postgres.stop()
        time.sleep(3)
        postgres.start()
        assert service.runners is not None
        assert service.runners.is_alive
        after = until(service.records, job, lambda row: row.progress != before)
        assert (after.state, after.attempts, after.crashes, after.deaths) == ("running", 1, 0, 0)
        service.records.request_cancel(job)
        assert until(service.records, job, lambda row: row.finished_at is not None).state == "cancelled"


def test_one_home_folder_for_a_database(url: str, tmp_path: Path) -> None:
    with (
        opened(Settings(tmp_path / "one", database_url=url, run_jobs=False)),
        pytest.raises(SettingsError, match="expected the home folder that the database belongs to"),
        opened(Settings(tmp_path / "other", database_url=url, run_jobs=False)),
    ):
        pass
