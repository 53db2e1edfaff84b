"""A runner: takes queued jobs one by one and runs each in a process of its own, which it can always end.

A worker process and its runner agree: the worker holds ``worker.lock`` in the job's folder while it lives, reads
its standard input and kills its whole process group when that ends (so no worker survives the service, even a service
killed with SIGKILL), and writes its own progress and outcome. What a dead worker cannot write, the runner does.
"""

import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from enum import Enum, auto

from sqlalchemy.exc import SQLAlchemyError

from autoprune.service.engine.job_limits import JobLimits
from autoprune.service.engine.job_metrics import JobMetrics
from autoprune.service.engine.takeover import Takeover
from autoprune.service.engine.trouble import log_trouble
from autoprune.service.engine.worker import EXIT_LOCKED, EXIT_RECORDS, EXIT_STOPPED
from autoprune.service.engine.worker_process import Worker, cause_of_death, end, running, signal_group
from autoprune.service.pipeline.job_files import forget_checkpoints
from autoprune.service.settings import Settings
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow, Json

POLL_S = 0.1

#: How long a service may take to stop after SIGTERM; whoever stops a service may send that to its workers too.
STOPPING_S = 6.0

#: How long a worker may take to end after it has recorded its outcome.
ENDING_S = 10.0

#: Exit codes of attempts that came to nothing by no fault of the job.
_FAULTLESS = (EXIT_LOCKED, EXIT_RECORDS)

_log = logging.getLogger(__name__)


class _End(Enum):
    """Why a worker process ended."""

    BY_ITSELF = auto()
    CANCELLED = auto()
    SHUTDOWN = auto()
    LIMIT = auto()
    LOST = auto()


class JobRunner:
    """Runs one job at a time, the oldest first, in a thread of its own. Methods are for one owner."""

    def __init__(
        self,
        runner_id: str,
        settings: Settings,
        records: Records,
        metrics: JobMetrics,
        *,
        may_claim: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare to run the jobs in `records`, in the folders of `settings`, and to count them in `metrics`.

        Args:
            runner_id: What the record of a job names it by; nobody else runs jobs under this name.
            settings: Of the service.
            records: Of the service.
            metrics: Of the service.
            may_claim: Whether others can see that this runner lives; otherwise it takes no new job.

        """
        self.id = runner_id
        self._settings = settings
        self._records = records
        self._metrics = metrics
        self._may_claim = may_claim
        self._takeover = Takeover(settings, records)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"job-runner {runner_id}")

    @property
    def is_alive(self) -> bool:
        """Whether it takes jobs."""
        return self._thread.is_alive() and not self._stopping.is_set()

    @property
    def has_failed(self) -> bool:
        """Whether it has ended although nobody told it to."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set()

    def start(self) -> None:
        """Begin: queue again what this runner left running in an earlier life, then run what is queued."""
        self._thread.start()

    def end(self) -> None:
        """Begin to stop: the running job's process is ended, and the job queued again."""
        self._stopping.set()
        self._wake.set()

    def join(self) -> None:
        """Return when it has stopped."""
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        """Look at the queue now; safe to call from any thread."""
        self._wake.set()

    def _run(self) -> None:
        """Run jobs until told to stop; at first, and after a failure, see to jobs that it runs as far as records know.

        Only at first did the service end that ran these: a failure of the disk or the database is no job's fault.
        """
        unsure, starts = True, True
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if unsure:
                    unsure = not self._takeover.own(self.id, crashed=starts)
                    starts = starts and unsure
                row = self._records.claim(self.id) if self._may_claim() and not unsure else None
                if row is not None:
                    self._metrics.claimed()
                    self._run_job(row)
                    ended = self._records.job(row.id)
                    if JobState(ended.state).is_final:
                        forget_checkpoints(self._settings.artifact_folder(row.id))
                    self._metrics.attempted(ended)
                    _log.info("attempt over", extra={"job_id": row.id, "attempt": row.attempts, "state": ended.state})
                    continue
            except (SQLAlchemyError, OSError) as error:  # disk full, database locked or away: this may pass
                log_trouble(f"runner {self.id}", error)
                unsure = True
            self._wake.wait(timeout=1.0)

    def _run_job(self, row: JobRow) -> None:
        """Run one claimed job to its end, whatever that is."""
        with running(self._settings, row) as process:
            self._records.report(row.id, row.attempts, worker_pid=process.pid)
            why, error = self._watch(row, process)
            returncode = process.wait()
        terminated = returncode in (EXIT_STOPPED, -signal.SIGTERM)  # the latter before it could catch it
        stopped = why is _End.BY_ITSELF and terminated  # somebody sent the worker SIGTERM
        if why is _End.LOST or self._is_over(row):
            return
        if why is _End.SHUTDOWN or (stopped and self._stopping.wait(STOPPING_S)) or returncode in _FAULTLESS:
            self._takeover.requeue(row)
        elif why is _End.BY_ITSELF and (returncode < 0 or returncode == EXIT_STOPPED):
            _log.warning("job %s, attempt %d: %s", row.id, row.attempts, cause_of_death(returncode))
            self._takeover.count_loss(row, died=True)
        else:
            self._finish(row, why, returncode, error)

    def _finish(self, row: JobRow, why: _End, returncode: int, error: Json | None) -> None:
        """Record the end of a job whose worker could not."""
        state = JobState.CANCELLED if why is _End.CANCELLED else JobState.FAILED
        if why is _End.BY_ITSELF:
            error = {"type": "worker-died", "detail": cause_of_death(returncode)}
        if self._records.move(row.id, state, attempt=row.attempts, error=error):
            detail = cause_of_death(returncode) if error is None else error["detail"]
            _log.warning("job %s: %s (%s)", row.id, state, detail)

    def _is_over(self, row: JobRow) -> bool:
        """Tell whether the outcome of a job is recorded."""
        return JobState(self._records.job(row.id).state).is_final

    def _watch(self, row: JobRow, process: Worker) -> tuple[_End, Json | None]:
        """Wait for the end of a worker, and bring it about where somebody asks for it or a limit is broken.

        Returns why it ended, and the error of a job that broke a limit.
        """
        limits = JobLimits.of(self._settings)
        while process.poll() is None:
            if self._stopping.is_set():
                end(process)
                return _End.SHUTDOWN, None
            error = limits.broken(process.pid)
            if error is not None:
                signal_group(process.pid, signal.SIGKILL)
                return _End.LIMIT, error
            with contextlib.suppress(SQLAlchemyError):  # a database that is away must not lose sight of the process
                now = self._records.job(row.id)
                if JobState(now.state).is_final:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(ENDING_S)
                    signal_group(process.pid, signal.SIGKILL)
                    return _End.BY_ITSELF, None
                if (now.state, now.attempts) != (JobState.RUNNING, row.attempts):  # taken from us
                    _log.warning("job %s: attempt %d is no longer ours", row.id, row.attempts)
                    signal_group(process.pid, signal.SIGKILL)
                    return _End.LOST, None
                if now.cancel_requested:
                    end(process)
                    return _End.CANCELLED, None
            time.sleep(POLL_S)
        return _End.CANCELLED if self._records.job(row.id).cancel_requested else _End.BY_ITSELF, None
