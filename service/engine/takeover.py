"""Jobs that say they run but have lost whoever ran them: queued again, or failed where that happened too often."""

import contextlib
import errno
import logging
import os
import sqlite3
import time
from pathlib import Path

from autoprune.service.engine.presence import Presence, host_name, host_of
from autoprune.service.engine.trouble import log_trouble
from autoprune.service.engine.worker_process import kill_leftover
from autoprune.service.locks import held
from autoprune.service.pipeline.job_files import JOURNAL, NOTEBOOK, forget_checkpoints
from autoprune.service.settings import Settings
from autoprune.service.storage.losses import Loss
from autoprune.service.storage.records import Records
from autoprune.service.storage.states import JobState
from autoprune.service.storage.tables import JobRow

#: How long a worker whose service died may take to notice.
LEFTOVER_S = 5.0

#: What is wrong with a disk or a machine and may pass, not with the folder of one job.
_PASSING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
                      errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK))  # fmt: skip

_log = logging.getLogger(__name__)


class Takeover:
    """Takes over what others left. One thread uses one of these."""

    def __init__(self, settings: Settings, records: Records) -> None:
        """Take over jobs in `records`, whose folders are those of `settings`."""
        self._settings = settings
        self._records = records
        self._leftover_since: dict[tuple[str, int], float] = {}

    def of_the_dead(self, presence: Presence) -> bool:
        """Take over the jobs of all runners that are dead; return whether that made something to do."""
        rows = self._records.running()
        dead = presence.dead({row.runner for row in rows if row.runner is not None})
        adopted = [self._tried(row, crashed=True) for row in rows if row.runner is None or row.runner in dead]
        return any(adopted)

    def own(self, runner: str, *, crashed: bool) -> bool:
        """Take over the jobs that `runner`, who runs none now, is said to run; return whether none is left.

        They count as lost where the service `crashed` over them; a failure of the disk or the database is no fault of
        theirs.
        """
        rows = self._records.running(runner)
        adopted = [self._tried(row, crashed=crashed) for row in rows]
        return all(adopted)

    def count_loss(self, row: JobRow, *, died: bool) -> None:
        """Queue a job again after an attempt was lost; where that happened too often, fail it."""
        journaled = recorded_evaluations(self._settings.artifact_folder(row.id))
        loss = Loss.of(self._records.job(row.id), died=died, journaled=journaled)
        if not loss.is_last:
            self.requeue(row, loss)
            return
        detail = (
            f"{loss.deaths} attempts at this job died and {loss.crashes} ended with the service that ran them, none of "
            "which got further than those before, so it is not tried again: killed, or out of memory; the job's "
            "worker.log says how far it came, a smaller model or fewer images may help"
        )
        error = {"type": "poisoned", "detail": detail}
        if self._records.move(row.id, JobState.FAILED, attempt=row.attempts, error=error, loss=loss):
            _log.error("job %s: %s", row.id, detail)
            forget_checkpoints(self._settings.artifact_folder(row.id))

    def requeue(self, row: JobRow, loss: Loss | None = None) -> None:
        """Let a job start again, unless somebody asked for its end meanwhile."""
        if self._records.move(row.id, JobState.QUEUED, attempt=row.attempts, loss=loss):
            _log.warning("job %s: queued again after attempt %d", row.id, row.attempts)
            if self._records.job(row.id).cancel_requested:
                self._records.request_cancel(row.id)

    def _tried(self, row: JobRow, *, crashed: bool) -> bool:
        """Adopt a job if its folder can be used; otherwise fail it and return True, or, where that may pass, False."""
        try:
            return self._adopt(row, crashed=crashed)
        except OSError as error:
            jobs = self._settings.job_folder(row.id).parent
            if error.errno in _PASSING or not (jobs.is_dir() and os.access(jobs, os.W_OK | os.X_OK)):
                log_trouble(f"the takeover of job {row.id}", error)
                return False
            detail = (
                f"expected a folder {jobs.name}/{row.id} that the service may write, found none "
                f"({error.strerror or error}); give the service that folder, or move it away, and submit the job again"
            )
            told = {"type": "storage-error", "detail": detail}
            if self._records.move(row.id, JobState.FAILED, attempt=row.attempts, error=told):
                _log.error("job %s: %s", row.id, detail)
            return True

    def _adopt(self, row: JobRow, *, crashed: bool) -> bool:
        """Queue a job again that nobody runs, and return True; False while its worker is still there.

        Whoever holds the lock in the job's folder works on it, whatever became of the runner: a worker on this machine
        that has not noticed after a while is killed, one elsewhere is waited for.
        """
        folder, attempt = self._settings.job_folder(row.id), (row.id, row.attempts)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / "worker.lock") as is_idle:
            if is_idle:
                self._leftover_since.pop(attempt, None)
                if crashed:
                    self.count_loss(row, died=False)
                else:
                    self.requeue(row)
                return True
        since = self._leftover_since.setdefault(attempt, time.monotonic())
        here = row.runner is not None and host_of(row.runner) == host_name()
        if here and row.worker_pid is not None and time.monotonic() - since > LEFTOVER_S:
            kill_leftover(row.worker_pid, row.id)
        return False


def recorded_evaluations(artifacts: Path) -> int:
    """Return how many evaluations, or figures of a study, a folder of artifacts holds: how far its job came."""
    path = artifacts / JOURNAL
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(path.as_uri() + "?mode=rw", uri=True)) as journal,
    ):
        return int(journal.execute("SELECT count(*) FROM evaluations").fetchone()[0])
    with contextlib.suppress(OSError), (artifacts / NOTEBOOK).open("rb") as notebook:
        return max(0, sum(line.endswith(b"\n") for line in notebook) - 1)  # the first says what they depend on
    return 0
