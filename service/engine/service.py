"""One running service: its settings, records, files and runners, opened and closed together."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from autoprune.service.engine.job_metrics import JobMetrics
from autoprune.service.engine.runners import Runners
from autoprune.service.settings import Settings
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.home_mark import check_home
from autoprune.service.storage.records import Records


@dataclass(frozen=True, slots=True)
class Service:
    """What every request works with.

    Attributes:
        runners: None where this service only accepts jobs.
        metrics: What the runners have done since the start.

    """

    settings: Settings
    records: Records
    store: FileStore
    runners: Runners | None
    metrics: JobMetrics

    def wake(self) -> None:
        """Tell the runners that there is work, if there are any."""
        if self.runners is not None:
            self.runners.wake()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Service]:
    """Open a service, run jobs while the context lasts, and close it; jobs that run then are queued again.

    Raises:
        SettingsError: Folder or database cannot be used, or belong to another database or folder.

    """
    settings.prepare()
    with contextlib.ExitStack() as stack:
        records = Records(settings.url, create=True)
        stack.callback(records.close)
        check_home(settings.home, records)
        metrics = JobMetrics()
        runners = Runners(settings, records, metrics) if settings.run_jobs else None
        if runners is not None:
            stack.callback(runners.stop)
            runners.start()
        yield Service(settings, records, FileStore(settings.store), runners, metrics)
