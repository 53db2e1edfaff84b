"""Where a service keeps its things, and how much it accepts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import AutopruneError

MIB = 2**20

DEFAULT_PORT = 8765

#: Where a service is looked for if nobody names an address.
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"


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

    """

    home: Path
    database_url: str = ""
    max_model_bytes: int = 512 * MIB
    max_dataset_bytes: int = 4096 * MIB
    run_jobs: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings of ``AUTOPRUNE_HOME`` and ``AUTOPRUNE_DB``; the rest as by default."""
        variables = os.environ if environment is None else environment
        home = variables.get("AUTOPRUNE_HOME") or Path.home() / ".local" / "share" / "autoprune"
        return cls(Path(home).absolute(), variables.get("AUTOPRUNE_DB", ""))

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

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            SettingsError: The home folder cannot be made or written.

        """
        try:
            for folder in (self.home, self.home / "store", self.home / "jobs"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"cannot write to {self.home} ({error}); set AUTOPRUNE_HOME to a folder of yours"
            ) from error
