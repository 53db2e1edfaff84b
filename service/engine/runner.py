"""The runner: takes queued jobs one by one and runs each in a process of its own, which it can always end.

A worker process and the runner agree: the worker holds ``worker.lock`` in the job's folder while it lives, reads
its standard input and kills its whole process group when that ends (so no worker survives the service, even a service
killed with SIGKILL), and writes its own progress and outcome. What a dead worker cannot write, the runner does.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import BinaryIO

from sqlalchemy.exc import SQLAlchemyError

from autoprune.service.engine.job_limits import JobLimits
from autoprune.service.engine.job_metrics import JobMetrics
from autoprune.service.engine.worker import EXIT_STOPPED
from autoprune.service.locks import held
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.records import Records
from autoprune.service.storage.tables import JobRow, JobState, Json

#: Between SIGTERM and SIGKILL.
GRACE_S = 2.0

POLL_S = 0.1

#: Crashes of the whole service in mid-job, or SIGTERMs to the job alone, after which it does not run again.
MOST_CRASHES = 4

#: Variables that a job's process gets from the service's environment, besides those of :data:`PASSED_PREFIXES`.
PASSED = frozenset(("HOME", "LANG", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV"))
PASSED_PREFIXES = ("AUTOPRUNE_", "CUDA_", "LC_", "MALLOC_", "NVIDIA_", "OPENBLAS_", "PYTHON", "TORCH_", "XDG_")

#: How long a service may take to stop after SIGTERM; whoever stops a service may send that to its workers too.
STOPPING_S = 6.0

#: How long a worker whose service died may take to notice.
LEFTOVER_S = 5.0

_log = logging.getLogger(__name__)


class _End(Enum):
    """Why a worker process ended."""

    BY_ITSELF = auto()
    CANCELLED = auto()
    SHUTDOWN = auto()
    LIMIT = auto()


class JobRunner:
    """Runs the jobs of one service, one at a time, oldest first.

    Only one runner may work in a home folder at a time; a lock there sees to that. Methods are for one owner.
    """

    def __init__(self, settings: Settings, records: Records, metrics: JobMetrics) -> None:
        """Prepare to run the jobs in `records`, in the folders of `settings`, and to count them in `metrics`."""
        self._settings = settings
        self._records = records
        self._metrics = metrics
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-runner")
        self._lock = contextlib.ExitStack()

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._stopping.is_set()

    def start(self) -> None:
        """Begin: queue again what an earlier service left running, then run what is queued.

        Raises:
            SettingsError: Another service runs the jobs of this home folder.

        """
        if not self._lock.enter_context(held(self._settings.home / "runner.lock", wait_s=LEFTOVER_S)):
            self._lock.close()
            raise SettingsError(
                f"another autoprune service runs the jobs in {self._settings.home}; stop it, or set AUTOPRUNE_HOME"
            )
        self._thread.start()

    def stop(self) -> None:
        """End the running job's process, queue that job again, and return when both are done."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._lock.close()

    def wake(self) -> None:
        """Look at the queue now; safe to call from any thread."""
        self._wake.set()

    def _run(self) -> None:
        """Run jobs until told to stop; at first, and after a failure, see to jobs that say they run but do not.

        Only at first did these jobs' service end: a failure of the disk or the database is no job's fault.
        """
        unsure, starts = True, True
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if unsure:
                    for stray in self._records.jobs(state=JobState.RUNNING):
                        self._adopt(stray, crashed=starts)
                    unsure, starts = False, False
                row = self._records.claim()
                if row is not None:
                    self._metrics.claimed()
                    self._run_job(row)
                    ended = self._records.job(row.id)
                    self._metrics.attempted(ended)
                    _log.info("attempt over", extra={"job_id": row.id, "attempt": row.attempts, "state": ended.state})
                    continue
            except (SQLAlchemyError, OSError):  # disk full, database locked: this may pass
                _log.exception("the job runner cannot work; trying again")
                unsure = True
            self._wake.wait(timeout=1.0)

    def _run_job(self, row: JobRow) -> None:
        """Run one claimed job to its end, whatever that is."""
        with self._worker(row) as process:
            self._records.report(row.id, row.attempts, worker_pid=process.pid)
            end, error = self._watch(row, process)
            returncode = process.wait()
        terminated = returncode in (EXIT_STOPPED, -signal.SIGTERM)  # the latter before it could catch it
        stopped = end is _End.BY_ITSELF and terminated  # somebody sent the worker SIGTERM
        if end is _End.SHUTDOWN or (stopped and self._stopping.wait(STOPPING_S)):
            self._requeue(row)
            return
        if stopped:
            self._count_crash(row)
            return
        state = JobState.CANCELLED if end is _End.CANCELLED else JobState.FAILED
        if end is _End.BY_ITSELF:
            error = {"type": "worker-died", "detail": _cause_of_death(returncode)}
        if self._records.move(row.id, state, attempt=row.attempts, error=error):  # no: the worker wrote its outcome
            why = _cause_of_death(returncode) if error is None else error["detail"]
            _log.warning("job %s: %s (%s)", row.id, state, why)

    @contextlib.contextmanager
    def _worker(self, row: JobRow) -> Iterator["subprocess.Popen[bytes]"]:
        """Start the worker process of a job; its whole group is gone when the context ends."""
        folder = self._settings.job_folder(row.id)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "autoprune.service.engine.worker", row.id, str(row.attempts)]
        with (folder / "worker.log").open("ab") as log:
            process = _start(command, self._environment(row), log)
        try:
            yield process
        finally:
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            process.stdin.close()

    def _environment(self, row: JobRow) -> dict[str, str]:
        """Return the worker's environment: where the service's things are, and how many threads it may use."""
        threads = str(row.spec.get("threads", 1))
        passed = {
            name: value for name, value in os.environ.items() if name in PASSED or name.startswith(PASSED_PREFIXES)
        }
        return {
            **passed,
            "AUTOPRUNE_HOME": str(self._settings.home),
            "AUTOPRUNE_DB": self._settings.database_url,
            "AUTOPRUNE_LOG_LEVEL": self._settings.log_level,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }

    def _watch(self, row: JobRow, process: "subprocess.Popen[bytes]") -> tuple[_End, Json | None]:
        """Wait for the end of a worker, and bring it about where somebody asks for it or a limit is broken.

        Returns why it ended, and the error of a job that broke a limit.
        """
        limits = JobLimits.of(self._settings)
        while process.poll() is None:
            if self._stopping.is_set():
                _end(process)
                return _End.SHUTDOWN, None
            error = limits.broken(process.pid)
            if error is not None:
                _signal_group(process.pid, signal.SIGKILL)
                return _End.LIMIT, error
            with contextlib.suppress(SQLAlchemyError):  # a locked database must not lose sight of the process
                if self._records.job(row.id).cancel_requested:
                    _end(process)
                    return _End.CANCELLED, None
            time.sleep(POLL_S)
        return _End.CANCELLED if self._records.job(row.id).cancel_requested else _End.BY_ITSELF, None

    def _adopt(self, row: JobRow, *, crashed: bool) -> None:
        """Queue a job again that nobody runs; that counts as a crash where its service `crashed` over it."""
        folder = self._settings.job_folder(row.id)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "worker.lock", wait_s=LEFTOVER_S) as is_dead:
            if not is_dead and row.worker_pid is not None:  # holds the lock, so the process number is still its own
                _signal_group(row.worker_pid, signal.SIGKILL)
        if crashed:
            self._count_crash(row)
        else:
            self._requeue(row)

    def _count_crash(self, row: JobRow) -> None:
        """Queue a job again after it was ended from outside; where that happened too often, fail it."""
        crashes = row.crashes + 1
        if crashes < MOST_CRASHES:
            self._requeue(row, crashed=True)
            return
        detail = (
            f"this job, or the service that ran it, was ended {crashes} times, and so it is not tried again: killed, "
            "or out of memory; the job's worker.log says how far it came, a smaller model or fewer images may help"
        )
        error = {"type": "poisoned", "detail": detail}
        if self._records.move(row.id, JobState.FAILED, attempt=row.attempts, error=error, crashed=True):
            _log.error("job %s: %s", row.id, detail)

    def _requeue(self, row: JobRow, *, crashed: bool = False) -> None:
        """Let a job start again, unless somebody asked for its end meanwhile."""
        if self._records.move(row.id, JobState.QUEUED, attempt=row.attempts, crashed=crashed):
            _log.warning("job %s: queued again after attempt %d", row.id, row.attempts)
            if self._records.job(row.id).cancel_requested:
                self._records.request_cancel(row.id)


def _start(command: list[str], environment: dict[str, str], log: BinaryIO) -> "subprocess.Popen[bytes]":
    """Start a process as the leader of its own group; its standard input stays open while this process lives."""
    return subprocess.Popen(  # noqa: S603 - this Python and our own module
        command,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a worker to stop, and make it."""
    _signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal a worker's whole group, if any of it is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _cause_of_death(returncode: int) -> str:
    """Say how a process ended."""
    if returncode >= 0:
        return f"the job's process ended with exit code {returncode} and no result; its worker.log says why"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = "; often the system was out of memory" if returncode == -signal.SIGKILL else ""
    return f"the job's process was ended by {name}{hint}"
