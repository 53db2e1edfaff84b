"""Where a service keeps its things, and how much it accepts."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoprune.errors import AutopruneError
from autoprune.search.cluster import Cluster
from autoprune.service.logs import LEVELS

MIB = 2**20

DEFAULT_PORT = 8765

#: Where a service is looked for if nobody names an address.
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"

#: Limits by their names here and in the environment.
_LIMITS = {
    "requests_per_s": "AUTOPRUNE_REQUESTS_PER_SECOND",
    "queued_jobs": "AUTOPRUNE_QUEUED_JOBS",
    "job_memory_mib": "AUTOPRUNE_JOB_MEMORY_MIB",
    "job_seconds": "AUTOPRUNE_JOB_SECONDS",
    "keep_days": "AUTOPRUNE_KEEP_DAYS",
}

#: A century: no date lies so far back that it cannot be told.
MOST_DAYS = 36_500

#: Most jobs that one service runs at a time.
MOST_WORKERS = 1024


class SettingsError(AutopruneError):
    """The service cannot run as it is set up: unusable folder, database, address or limit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How one service is set up.

    Attributes:
        home: Folder of everything the service writes: database, uploads, job folders.
        database_url: SQLAlchemy URL of the records; empty for ``home/autoprune.sqlite``.
        max_model_bytes: Largest model file accepted.
        max_dataset_bytes: Largest dataset file accepted.
        run_jobs: Whether this service takes jobs from the queue, or only accepts them.
        workers: Jobs that it runs at a time.
        require_keys: Whether every request must carry an API key.
        requests_per_s: Requests a second that one API key, or everybody without one, may go on sending.
        queued_jobs: Jobs that one API key, or everybody without one, may have waiting at a time.
        job_memory_mib: Memory of a job's processes together, in MiB; None for an equal share of nine
            tenths of the machine's.
        job_seconds: Longest time that one attempt at a job may take; None for any.
        keep_days: Days after which what jobs that ended left, and uploads that no job names, are deleted; None: never.
        log_level: From which level on the service and its workers log: one of :data:`autoprune.service.logs.LEVELS`.

    """

    home: Path
    database_url: str = ""
    max_model_bytes: int = 512 * MIB
    max_dataset_bytes: int = 4096 * MIB
    run_jobs: bool = True
    workers: int = 1
    require_keys: bool = False
    requests_per_s: int = 100
    queued_jobs: int = 1000
    job_memory_mib: int | None = None
    job_seconds: int | None = None
    keep_days: int | None = None
    log_level: str = "info"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings that the environment names; the rest as by default.

        ``AUTOPRUNE_HOME``, ``AUTOPRUNE_DB``, ``AUTOPRUNE_REQUIRE_KEYS`` (0 or 1), ``AUTOPRUNE_LOG_LEVEL``,
        ``AUTOPRUNE_WORKERS`` (0: run no jobs), and as whole numbers above 0 ``AUTOPRUNE_REQUESTS_PER_SECOND``,
        ``AUTOPRUNE_QUEUED_JOBS``, ``AUTOPRUNE_JOB_MEMORY_MIB``, ``AUTOPRUNE_JOB_SECONDS`` and ``AUTOPRUNE_KEEP_DAYS``.

        Raises:
            SettingsError: A variable holds something else.
            ClusterError: ``AUTOPRUNE_CLUSTER``, or what goes with it, cannot be used.

        """
        variables = os.environ if environment is None else environment
        home = variables.get("AUTOPRUNE_HOME") or Path.home() / ".local" / "share" / "autoprune"
        require_keys = variables.get("AUTOPRUNE_REQUIRE_KEYS") or "0"
        if require_keys not in ("0", "1"):
            raise SettingsError(f"AUTOPRUNE_REQUIRE_KEYS: expected 0 or 1, found {require_keys!r}")
        settings = cls(Path(home).absolute(), variables.get("AUTOPRUNE_DB", ""), require_keys=require_keys == "1")
        Cluster.from_environment(environment=variables)  # each job reads it; errors in it are said at the start
        limits: dict[str, Any] = {
            field: _limit(name, variables[name]) for field, name in _LIMITS.items() if variables.get(name)
        }
        level = variables.get("AUTOPRUNE_LOG_LEVEL") or settings.log_level
        if level not in LEVELS:
            raise SettingsError(f"AUTOPRUNE_LOG_LEVEL: expected one of {', '.join(LEVELS)}; found {level[:100]!r}")
        if limits.get("keep_days", 0) > MOST_DAYS:
            raise SettingsError(
                f"AUTOPRUNE_KEEP_DAYS: expected at most {MOST_DAYS}, found {limits['keep_days']}; unset, all is kept"
            )
        settings = replace(settings, log_level=level, **limits)
        workers = variables.get("AUTOPRUNE_WORKERS")
        return settings.with_workers(_workers(workers)) if workers else settings

    def with_workers(self, workers: int) -> "Settings":
        """Return these settings for a service that runs so many jobs at a time; with 0 it only accepts them."""
        return replace(self, run_jobs=workers > 0, workers=max(workers, 1))

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the records."""
        return self.database_url or f"sqlite:///{self.home / 'autoprune.sqlite'}"

    def job_folder(self, job_id: str) -> Path:
        """Return the folder of one job: its inputs, its artifacts, its log and its lock."""
        return self.home / "jobs" / job_id

    def artifact_folder(self, job_id: str) -> Path:
        """Return the folder that one job writes its artifacts into."""
        return self.job_folder(job_id) / "artifacts"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that a service writes into."""
        return self.home, self.store, self.home / "jobs"

    @property
    def store(self) -> Path:
        """The folder of uploaded files."""
        return self.home / "store"

    @property
    def runner_locks(self) -> Path:
        """The folder of the locks that the runners of jobs hold while they live."""
        return self.home / "runners"

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            SettingsError: The home folder cannot be made or written.

        """
        try:
            for folder in self.folders:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):  # a disk that was mounted for reading has the folders too
                    pass
        except OSError as error:
            raise SettingsError(
                f"cannot write to {self.home} ({error}); set AUTOPRUNE_HOME to a folder of yours"
            ) from error


def _workers(text: str) -> int:
    """Return the number of jobs at a time that ``AUTOPRUNE_WORKERS`` holds."""
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= MOST_WORKERS):
        raise SettingsError(f"AUTOPRUNE_WORKERS: expected a whole number up to {MOST_WORKERS}, found {text[:100]!r}")
    return int(text)


def _limit(name: str, text: str) -> int:
    """Return the whole number above 0 that the variable `name` holds."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) < 2**63):
        raise SettingsError(f"{name}: expected a whole number above 0, found {text[:100]!r}")
    return int(text)
