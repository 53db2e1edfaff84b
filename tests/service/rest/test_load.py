"""Small versions of benchmarks/load.py: what must not slow the service down. Ratios, and the fastest of many times."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import JobRow
from tests.service.live_service import Live, in_thread
from tests.service.open_loop import asked

pytestmark = pytest.mark.timing

#: How long a kernel may wait before it acknowledges what came, in seconds.
DELAYED_ACK_S = 0.04


@contextlib.contextmanager
def queue_of(size: int, home: Path) -> Iterator[Live]:
    """Serve with so many jobs in the queue, which nobody takes."""
    with in_thread(Settings(home, run_jobs=False, requests_per_s=100_000)) as live:
        with (
            contextlib.closing(Records(live.settings.url)) as records,
            records.sessions.begin() as session,
        ):
            session.add_all(JobRow(id=f"job_{number}", spec={}, kind="search") for number in range(size))
        yield live


def seconds_of(live: Live, path: str) -> float:
    """Return how long an answer takes."""
    began = time.perf_counter()
    live.client.get(path).raise_for_status()
    return time.perf_counter() - began


def test_answers_do_not_wait_for_an_acknowledgement(tmp_path: Path) -> None:
    with queue_of(1, tmp_path / "home") as live:
        times = [seconds_of(live, "/v1/jobs") for _ in range(80)][20:]  # at first a kernel acknowledges at once
    assert statistics.quantiles(times)[0] < DELAYED_ACK_S * 0.75


@pytest.mark.parametrize("path", ["/v1/jobs?limit=10", "/v1/jobs/job_5", "/metrics"])
def test_a_long_queue_is_looked_at_as_fast_as_a_short_one(path: str, tmp_path: Path) -> None:
    with queue_of(10, tmp_path / "short") as short, queue_of(10_000, tmp_path / "long") as long:
        seconds = [(seconds_of(short, path), seconds_of(long, path)) for _ in range(40)]
    assert min(slow for _, slow in seconds) < 3 * min(fast for fast, _ in seconds)


def test_requests_come_back_at_the_rate_they_are_sent(tmp_path: Path) -> None:
    with queue_of(1, tmp_path / "home") as live:
        answers = asyncio.run(asked(live.url, "/v1/jobs/job_0", per_s=200, seconds=2))
    assert answers.statuses == [200] * 400
    assert answers.latencies_ms[-1] < 1000  # an answer that queues behind the others comes ever later
