"""Deletes what is older than the service is to keep: jobs and work of devices that ended, uploads that no job names."""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from autoprune.service.settings import Settings
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.retention_records import RetentionRecords
from autoprune.service.storage.tables import now

#: Seconds between two looks at what has grown old.
_LOOK_S = 3600.0

#: Most deleted at once, so that whoever does it can look after other things in between.
_AT_ONCE = 20

_log = logging.getLogger(__name__)


class Retention:
    """Deletes for one service. Several services may do so at once; what cannot be deleted holds up nothing else."""

    def __init__(self, settings: Settings, records: Records) -> None:
        """Delete from `records` and the folders of `settings`; nothing, where these name no age."""
        self._settings = settings
        self._records = RetentionRecords(records, FileStore(settings.store))
        self._next_s = 0.0
        self._batches: Iterator[None] = iter(())

    def apply(self) -> None:
        """Delete some of what is too old; to be called often, it looks once an hour.

        Raises:
            SQLAlchemyError: The records cannot be read or written.

        """
        if next(self._batches, self) is None or self._settings.keep_days is None or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _LOOK_S
        self._batches = self._all_batches(now() - timedelta(days=self._settings.keep_days))
        next(self._batches, None)

    def _all_batches(self, before: datetime) -> Iterator[None]:
        """Delete everything that is older than a moment, and pause behind every full batch."""
        number = 0
        while jobs := self._records.old_jobs(before, after=number, limit=_AT_ONCE):
            number = jobs[-1].number
            for job in jobs:
                self._delete_job(job.id, before)
            if len(jobs) == _AT_ONCE:
                yield
        uploads = self._records.old_uploads(before)
        for start in range(0, len(uploads), _AT_ONCE):
            for upload in self._records.delete_uploads(uploads[start : start + _AT_ONCE], before):
                _log.info("upload %s: deleted, no job names it", upload)
            if start + _AT_ONCE <= len(uploads):
                yield
        number = 0
        while work := self._records.delete_work(before, after=number, limit=_AT_ONCE):
            number = work[-1]
            if len(work) == _AT_ONCE:
                yield

    def _delete_job(self, job_id: str, before: datetime) -> None:
        """Delete one job: the record after its folder, so that what a kill leaves is found again."""
        try:
            _delete_folder(self._settings.job_folder(job_id))
        except OSError as error:
            _log.error("job %s: its folder cannot be deleted, so it is kept: %s", job_id, error)
            return
        self._records.delete_job(job_id)
        _log.info("job %s: deleted, it ended before %s", job_id, before)


def _delete_folder(folder: Path) -> None:
    """Delete a folder, also while another service does so."""
    while folder.exists():
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
