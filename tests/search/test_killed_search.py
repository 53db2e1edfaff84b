"""kill -9 in mid-search, then the same command again: the trials of the uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from autoprune.search.journal import Journal
from autoprune.search.local_pool import local_pool
from tests.search.killed_search import EVALUATIONS, SCREENING, run

ROOT = Path(__file__).parents[2]


def start(journal: Path, policy: str, workers: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.search.killed_search", str(journal), policy, str(workers)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_killed_searches_end_as_if_never_killed(tmp_path: Path) -> None:
    """Two searches in processes of their own share the journal."""
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal, start(path, "random") as first, start(path, "sensitivity") as second:
        deadline = time.monotonic() + 120
        while len(journal) < 12:  # read while the others write
            assert first.poll() is second.poll() is None, "a search ended before it could be killed"
            assert time.monotonic() < deadline, "the searches do not record anything"
            time.sleep(0.01)
        for process in (first, second):
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        survived = len(journal)
    cached = 0
    for policy in ("random", "sensitivity"):
        resumed, whole = run(path, policy), run(tmp_path / "uninterrupted.sqlite", policy)
        assert (resumed.trials, resumed.best) == (whole.trials, whole.best)
        cached += resumed.cached
    assert cached >= survived >= 12
    assert survived < 2 * EVALUATIONS - 3


def test_killed_pools_and_screenings_end_as_if_never_killed(tmp_path: Path) -> None:
    """Killed with two workers, resumed with one, compared with this process alone."""
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal, start(path, "random", workers=2) as search:
        deadline = time.monotonic() + 120
        while len(journal) < 25:  # past the audit
            assert search.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline, "the search does not record anything"
            time.sleep(0.01)
        search.send_signal(signal.SIGKILL)
        assert search.wait() == -signal.SIGKILL
    with local_pool(1) as pool:
        resumed = run(path, "random", pool=pool, screening=SCREENING)
    whole = run(tmp_path / "uninterrupted.sqlite", "random", screening=SCREENING)
    assert (resumed.trials, resumed.best, resumed.screening) == (whole.trials, whole.best, whole.screening)
    assert whole.evaluated == len(whole.trials) > EVALUATIONS
    assert 25 > resumed.cached >= 6
    assert whole.screening is not None
    assert whole.screening.screened_out > 20


def test_a_killed_search_of_optuna_learns_the_same_again(tmp_path: Path) -> None:
    """Killed in the third generation; the resumed study is told the same scores and draws the same policies."""
    path = tmp_path / "journal.sqlite"
    with Journal.open(path) as journal, start(path, "tpe") as search:
        deadline = time.monotonic() + 120
        while len(journal) < 20:
            assert search.poll() is None, "the search ended before it could be killed"
            assert time.monotonic() < deadline, "the search does not record anything"
            time.sleep(0.01)
        search.send_signal(signal.SIGKILL)
        assert search.wait() == -signal.SIGKILL
    resumed, whole = run(path, "tpe"), run(tmp_path / "uninterrupted.sqlite", "tpe")
    assert (resumed.trials, resumed.best) == (whole.trials, whole.best)
    assert 20 <= resumed.cached < EVALUATIONS == len(whole.trials)
