"""Deletes what is older than the service is to keep: jobs that ended, and uploads that no job names."""

import logging
import shutil
import time
from datetime import datetime, timedelta

from autoprune.service.settings import Settings
from autoprune.service.storage.file_store import FileStore
from autoprune.service.storage.records import Records
from autoprune.service.storage.retention_records import RetentionRecords
from autoprune.service.storage.tables import now

#: Seconds between two looks at what has grown old.
_LOOK_S = 3600.0

#: Most jobs deleted at once, so that whoever does it can look after other things in between.
_AT_ONCE = 20

_log = logging.getLogger(__name__)


class Retention:
    """Deletes for one service. Several services may do so at once."""

    def __init__(self, settings: Settings, records: Records) -> None:
        """Delete from `records` and the folders of `settings`; nothing, where these name no age."""
        self._settings = settings
        self._records = RetentionRecords(records)
        self._store = FileStore(settings.store)
        self._next_s = 0.0

    def apply(self) -> None:
        """Delete some of what is too old; to be called often, it looks once an hour.

        Raises:
            SQLAlchemyError: The records cannot be read or written.
            OSError: A folder cannot be deleted.

        """
        if self._settings.keep_days is None or time.monotonic() < self._next_s:
            return
        before = now() - timedelta(days=self._settings.keep_days)
        jobs = self._records.old_jobs(before, _AT_ONCE)
        for job_id in jobs:
            folder = self._settings.job_folder(job_id)
            if folder.exists():
                shutil.rmtree(folder)  # the record after it: what a kill leaves is found again
            self._records.delete_job(job_id)
            _log.info("job %s: deleted, it ended before %s", job_id, before)
        if len(jobs) < _AT_ONCE:
            self._delete_uploads(before)
            self._next_s = time.monotonic() + _LOOK_S

    def _delete_uploads(self, before: datetime) -> None:
        """Delete old uploads that no job names, unless their content was sent again meanwhile."""
        for row in self._records.old_uploads(before):
            if self._store.is_older(row.sha256, row.suffix, before) and self._records.delete_upload(row):
                self._store.delete(row.sha256, row.suffix)
                _log.info("upload %s: deleted, no job names it", row.id)
