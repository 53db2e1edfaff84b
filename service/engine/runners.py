"""All runners of one service, and the keeper who sees to it that they live and that nobody's jobs are left behind."""

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from autoprune.service.engine.advisory_locks import AdvisoryLocks
from autoprune.service.engine.job_metrics import JobMetrics
from autoprune.service.engine.presence import FileLocks, Presence
from autoprune.service.engine.retention import Retention
from autoprune.service.engine.runner import JobRunner
from autoprune.service.engine.takeover import Takeover
from autoprune.service.engine.trouble import log_trouble
from autoprune.service.settings import Settings, SettingsError
from autoprune.service.storage.database import reason
from autoprune.service.storage.records import Records

#: Seconds between two looks at the own locks and at the jobs of dead runners.
LOOK_S = 1.0

_log = logging.getLogger(__name__)


class Runners:
    """The runners of one service, one job each. Methods are for one owner.

    Several services may share one home folder and database, on one machine or, with PostgreSQL, on several: a job is
    claimed by one runner, and taken over by the keeper of any service where that runner is dead.
    """

    def __init__(self, settings: Settings, records: Records, metrics: JobMetrics) -> None:
        """Prepare to run the jobs in `records`, in the folders of `settings`, and to count them in `metrics`."""
        self._settings = settings
        self._records = records
        self._metrics = metrics
        self._presence = _presence(settings, records)
        self._takeover = Takeover(settings, records)
        self._retention = Retention(settings, records)
        self._runners: list[JobRunner] = []
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="job-keeper")

    @property
    def is_alive(self) -> bool:
        """Whether jobs are taken."""
        return self._keeper.is_alive() and not self._stopping.is_set() and all(it.is_alive for it in self._runners)

    def start(self) -> None:
        """Begin to run jobs.

        Raises:
            SettingsError: The home folder or the database has no locks that work.

        """
        try:
            ids = self._presence.take(self._settings.workers)
        except SQLAlchemyError as error:
            raise SettingsError(
                f"expected a database that gives advisory locks, found that {reason(error)}; set AUTOPRUNE_DB"
            ) from error
        self._runners = [self._runner(runner_id) for runner_id in ids]
        for runner in self._runners:
            runner.start()
        self._keeper.start()

    def stop(self) -> None:
        """End the processes of all running jobs, queue these again, and return when that is done."""
        self._stopping.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        for runner in self._runners:
            runner.end()
        for runner in self._runners:
            runner.join()
        self._presence.close()  # the last: until then they live

    def wake(self) -> None:
        """Look at the queue now; safe to call from any thread."""
        for runner in self._runners:
            runner.wake()

    def _runner(self, runner_id: str) -> JobRunner:
        """Return a new runner."""
        return JobRunner(runner_id, self._settings, self._records, self._metrics, may_claim=self._is_seen)

    def _is_seen(self) -> bool:
        """Tell whether others can see that these runners live."""
        return self._presence.is_held

    def _keep(self) -> None:
        """Look after everything until told to stop."""
        while not self._stopping.wait(LOOK_S):
            try:
                self._presence.keep()
                self._replace_failed()
                if self._takeover.of_the_dead(self._presence):
                    self.wake()
                self._retention.apply()
            except Exception as error:  # whatever it is: without a keeper nobody takes over the jobs of the dead
                log_trouble("the keeper of jobs", error)

    def _replace_failed(self) -> None:
        """Start anew the runners that a defect has ended."""
        for index, runner in enumerate(self._runners):
            if runner.has_failed:
                _log.error("runner %s ended by a defect; starting it anew", runner.id)
                self._runners[index] = self._runner(runner.id)
                self._runners[index].start()


def _presence(settings: Settings, records: Records) -> Presence:
    """Return the locks that suit the database."""
    files = FileLocks(settings.runner_locks)
    return AdvisoryLocks(records.engine, files) if records.engine.dialect.name == "postgresql" else files
