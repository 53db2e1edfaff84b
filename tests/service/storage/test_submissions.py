"""Jobs under keys of the client's and within quotas, on both databases, also when many are sent at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from autoprune.service.storage.quota import NO_QUOTA, Quota, QuotaError
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobKind, JobState
from autoprune.service.storage.submissions import KEPT_FOR, IdempotencyError, Submissions
from autoprune.service.storage.tables import SubmissionKeyRow, now

SEARCH = JobKind.SEARCH


def test_one_key_is_one_job_for_many_who_send_at_once(records: Records) -> None:
    submissions = Submissions(records, NO_QUOTA)
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda index: submissions.add(f"job{index}", {"a": 1}, SEARCH, "key"), range(16)))
    assert len({row.id for row, _ in sent}) == len(records.jobs()) == sum(is_new for _, is_new in sent) == 1
    with pytest.raises(IdempotencyError):
        submissions.add("other", {"a": 2}, SEARCH, "key")
    assert submissions.known({"a": 2}, JobKind.COMPARISON, "key") is None
    assert Submissions(records, Quota("key_of_another")).known({"a": 2}, SEARCH, "key") is None


def test_a_key_is_forgotten_after_its_time(records: Records) -> None:
    submissions = Submissions(records, NO_QUOTA)
    submissions.add("first", {}, SEARCH, "key")
    with records.sessions.begin() as session:
        session.execute(update(SubmissionKeyRow).values(created_at=now() - KEPT_FOR))
    assert submissions.known({}, SEARCH, "key") is None
    row, is_new = submissions.add("second", {}, SEARCH, "key")
    assert (row.id, is_new) == ("second", True)


@pytest.mark.parametrize("key_id", [None, "key_a"])
def test_no_more_get_in_than_may_when_all_come_at_once(records: Records, key_id: str | None) -> None:
    submissions = Submissions(records, Quota(key_id, queued_jobs=3))
    records.add_job("of another", {}, quota=Quota("key_b"))

    def send(index: int) -> bool:
        try:
            submissions.add(f"job{index}", {}, SEARCH, None)
        except QuotaError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(send, range(12))) == 3
    assert records.counts()[JobState.QUEUED] == 4
    records.claim()
    records.claim()
    assert send(99)
