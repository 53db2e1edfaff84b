"""One running service: its settings, records, files and runner, opened and closed together."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from autoprune.service.engine.job_metrics import JobMetrics
from autoprune.service.engine.runner import JobRunner
from autoprune.service.settings import Settings
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records


@dataclass(frozen=True, slots=True)
class Service:
    """What every request works with.

    Attributes:
        runner: None where this service only accepts jobs.
        metrics: What the runner has done since the start.

    """

    settings: Settings
    records: Records
    store: FileStore
    runner: JobRunner | None
    metrics: JobMetrics

    def wake(self) -> None:
        """Tell the runner that there is work, if there is a runner."""
        if self.runner is not None:
            self.runner.wake()


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Service]:
    """Open a service, run its jobs while the context lasts, and close it; a job that runs then is queued again.

    Raises:
        SettingsError: Folder or database cannot be used, or another service runs the jobs of this folder.

    """
    settings.prepare()
    with contextlib.ExitStack() as stack:
        records = Records(settings.url, create=True)
        stack.callback(records.close)
        metrics = JobMetrics()
        runner = JobRunner(settings, records, metrics) if settings.run_jobs else None
        if runner is not None:
            runner.start()
            stack.callback(runner.stop)
        yield Service(settings, records, FileStore(settings.home / "store"), runner, metrics)
