"""Every job ends as it would undisturbed, once, whatever is killed meanwhile: workers, services, the database.

A few jobs and kills by default; ``AUTOPRUNE_CHAOS=full`` for 20 jobs and 30 kills on each database.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from autoprune.service.engine.service import Service, opened
from autoprune.service.engine.takeover import recorded_evaluations
from autoprune.service.pipeline.run import run_job
from autoprune.service.settings import Settings
from autoprune.service.specs.job_spec import JobSpec
from autoprune.service.storage.event_records import EventRecords
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobEventRow, JobRow
from tests.service.engine.chaos import Chaos, Fleet, Killed
from tests.service.engine.small_jobs import QUICK, add_job
from tests.service.live_service import tiny_onnx
from tests.service.postgres import running_postgres

FULL = os.environ.get("AUTOPRUNE_CHAOS") == "full"
JOBS, KILLS, RESTARTS = (20, 30, 3) if FULL else (5, 7, 1)

#: Jobs at a time of each service.
WORKERS = (2, 1)

SPECS = tuple(
    {**QUICK, "policies": ["uniform", "random"], "evaluations": 6, "seed": seed, "criterion": criterion}
    for seed, criterion in ((0, "obs"), (1, "l1"))
)

SEED = 20261129

_log = logging.getLogger(__name__)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_jobs_survive_whatever_is_killed(database: str, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        url, restarts = "", []
        if database == "postgresql":
            server = stack.enter_context(running_postgres(durable=True))
            url = server.new_database()

            def restart() -> None:
                server.stop()
                time.sleep(1)
                server.start()

            restarts = [restart] * RESTARTS
        settings = Settings(tmp_path / "home", database_url=url, run_jobs=False)
        with opened(settings) as service:
            jobs = [add_job(service, **SPECS[index % len(SPECS)]) for index in range(JOBS)]
            killed = tormented(service, jobs, restarts)
            expected = [undisturbed(tmp_path / f"undisturbed{index}", spec) for index, spec in enumerate(SPECS)]
            for index, job in enumerate(jobs):
                check(service, job, expected[index % len(SPECS)])
            check_losses(service, jobs, killed)


def tormented(service: Service, jobs: list[str], restarts: list[Callable[[], None]]) -> Killed:
    """Let services run the jobs while they are killed; return what was."""
    fleet = Fleet(service.settings, WORKERS)
    chaos = Chaos(fleet, service.records, SEED)
    try:
        chaos.run(KILLS, len(jobs), len(WORKERS), restarts, timeout_s=1000)
        deadline = time.monotonic() + 400
        while service.records.counts()[JobState.SUCCEEDED] < len(jobs):
            assert time.monotonic() < deadline, [(row.state, row.attempts, row.error) for row in service.records.jobs()]
            fleet.tend()
            time.sleep(0.1)
    finally:
        fleet.stop()
    assert (chaos.killed.total, chaos.killed.restarts) == (KILLS, len(restarts))
    left = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in left if set(command or ()) & set(jobs)]
    return chaos.killed


def undisturbed(folder: Path, spec: dict[str, object]) -> Path:
    """Run a job in this process; return the folder that it leaves."""
    folder.mkdir()
    (folder / "tiny.onnx").write_bytes(tiny_onnx())
    with contextlib.chdir(folder):
        run_job(JobSpec.model_validate({"model": "tiny.onnx", **spec}), folder / "artifacts")
    return folder / "artifacts"


def check(service: Service, job: str, expected: Path) -> None:
    """Make sure that a job has ended as it would have undisturbed, and that its events tell how it came there."""
    row, found = service.records.job(job), service.settings.artifact_folder(job)
    assert (row.state, row.error, row.cancel_requested) == ("succeeded", None, False)
    check_events(row, EventRecords(service.records.sessions).of([job])[job])
    assert [artifact.name for artifact in service.records.artifacts(job)] == [
        path.relative_to(expected).as_posix()
        for path in sorted(expected.rglob("*"))
        if path.is_file() and not path.name.startswith("journal.sqlite")
    ]
    assert recorded_evaluations(found) == recorded_evaluations(expected)
    for policy in ("uniform", "random"):
        for name in ("plan.json", "weights.safetensors", "model.onnx"):
            assert (found / policy / name).read_bytes() == (expected / policy / name).read_bytes(), name
    assert trials(found) == trials(expected)


def check_events(row: JobRow, events: list[JobEventRow]) -> None:
    """Make sure that no event is missing, doubled or out of order."""
    told = [(event.state, event.attempt) for event in events]
    attempts = [[("running", attempt), ("requeued", attempt)] for attempt in range(1, row.attempts)]
    last = [("running", row.attempts), ("succeeded", row.attempts)]
    assert told == [("queued", 0), *(change for pair in attempts for change in pair), *last]
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert all(earlier.created_at <= later.created_at for earlier, later in pairwise(events))


def check_losses(service: Service, jobs: list[str], killed: Killed) -> None:
    """Make sure that attempts are counted as lost where something was killed, and nowhere else; that some were."""
    told = EventRecords(service.records.sessions).of(jobs)
    died = {job: sum("died" in event.detail for event in told[job]) for job in jobs}
    assert all(died[job] <= killed.deaths.get(job, 0) for job in jobs), (died, killed)
    crashed = sum("crashed" in event.detail for job in jobs for event in told[job])
    _log.info("%s; attempts lost: %d died, %d with their service", killed, sum(died.values()), crashed)
    assert crashed <= killed.services * max(WORKERS)
    assert sum(died.values()) + crashed >= KILLS // 4


def trials(folder: Path) -> list[Any]:
    """Return what a job's result says of its trials, but for the time that they took."""
    outcomes = json.loads((folder / "result.json").read_text())["outcomes"]
    return [[outcome["policy"], [{**trial, "seconds": None} for trial in outcome["trials"]]] for outcome in outcomes]
