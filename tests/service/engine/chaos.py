"""Services that run the jobs of one home folder and are killed, with their workers, at random moments."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil
from sqlalchemy.exc import SQLAlchemyError

from autoprune.service.settings import Settings
from autoprune.service.storage.losses import MOST_DEATHS
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow


@dataclass(slots=True)
class Killed:
    """What was killed.

    Attributes:
        services: How often a service was.
        deaths: Killed workers by job.
        restarts: How often the database was ended and started again.

    """

    services: int = 0
    deaths: dict[str, int] = field(default_factory=dict)
    restarts: int = 0

    @property
    def total(self) -> int:
        """Processes killed with SIGKILL."""
        return self.services + sum(self.deaths.values())


class Fleet:
    """Several processes of ``autoprune work`` on one home folder, each with so many jobs at a time."""

    def __init__(self, settings: Settings, workers: Sequence[int]) -> None:
        """Start them."""
        self._settings, self._workers = settings, workers
        self._services = [self._start(count) for count in workers]

    def kill(self, index: int) -> None:
        """Kill one with SIGKILL."""
        self._services[index].kill()
        self._services[index].wait()

    def start(self, index: int) -> None:
        """Start one again that was killed."""
        self._services[index] = self._start(self._workers[index])

    def stop(self) -> None:
        """End all in good order."""
        for service in self._services:
            service.terminate()
        for service in self._services:
            service.wait(60)

    def tend(self) -> None:
        """Start again, as a supervisor does, those that ended by themselves: they found no database."""
        for index, service in enumerate(self._services):
            if service.poll() is not None:
                assert service.returncode == 2
                self.start(index)

    def _start(self, workers: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "autoprune.service.cli.app", "work", "--workers", str(workers)]
        environment = {**os.environ, "AUTOPRUNE_HOME": str(self._settings.home),
                       "AUTOPRUNE_DB": self._settings.database_url}  # fmt: skip
        with (self._settings.home / "services.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


class Chaos:
    """Kills at random until so many are killed, spread over the time that the jobs take.

    A worker that is killed is its job's own death, as far as anybody can tell, and a job that dies often is not tried
    again: so one fewer of a job's workers are killed than that takes. Services are killed without such a limit.
    """

    def __init__(self, fleet: Fleet, records: Records, seed: int) -> None:
        """Draw moments and victims by `seed`."""
        self._fleet, self._records, self._random = fleet, records, random.Random(seed)  # noqa: S311 - nobody is to be kept from guessing
        self.killed = Killed()

    def run(
        self, kills: int, jobs: int, services: int, restarts: Sequence[Callable[[], None]], timeout_s: float
    ) -> None:
        """Make `kills`, and between them `restarts` of the database, while `jobs` run."""
        deadline = time.monotonic() + timeout_s
        pace_s = self._first_success(deadline)
        due = sorted(self._random.uniform(1, jobs - 2) for _ in range(kills))
        pending = dict(zip(self._random.sample(range(kills // 4, kills), len(restarts)), restarts, strict=True))
        for index, done in enumerate(due):
            while self._succeeded() < int(done):
                assert time.monotonic() < deadline, self.killed
                self._fleet.tend()
                time.sleep(0.1)
            time.sleep(self._random.uniform(0, pace_s / 4))
            if index in pending:
                pending[index]()
                self.killed.restarts += 1
            if self._random.random() < 0.5 or not self._kill_a_worker():
                self._kill_a_service(services, pace_s)

    def _first_success(self, deadline: float) -> float:
        """Return how long the first job takes here, in seconds: the pace of everything."""
        started = time.monotonic()
        while self._succeeded() == 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return time.monotonic() - started

    def _succeeded(self) -> int:
        """Return how many jobs have; none while the database is away."""
        with contextlib.suppress(SQLAlchemyError):
            counts = self._records.counts()
            assert counts[JobState.FAILED] == 0
            return counts[JobState.SUCCEEDED]
        return 0

    def _kill_a_worker(self) -> bool:
        """Kill the worker of a job that runs; return whether there was one."""
        rows = [row for row in self._running() if self.killed.deaths.get(row.id, 0) < MOST_DEATHS - 1]
        self._random.shuffle(rows)
        for row in rows:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(row.worker_pid)
                if row.id in process.cmdline():  # the number may be another's by now
                    process.kill()
                    self.killed.deaths[row.id] = self.killed.deaths.get(row.id, 0) + 1
                    return True
        return False

    def _running(self) -> list[JobRow]:
        """Return the jobs with a worker."""
        with contextlib.suppress(SQLAlchemyError):
            return [row for row in self._records.running() if row.worker_pid is not None]
        return []

    def _kill_a_service(self, services: int, pace_s: float) -> None:
        """Kill a service, and start it again: at once, or after others had time to take over its jobs."""
        index = self._random.randrange(services)
        self._fleet.kill(index)
        self.killed.services += 1
        time.sleep(self._random.choice((0.0, self._random.uniform(0, pace_s / 4))))
        self._fleet.start(index)
