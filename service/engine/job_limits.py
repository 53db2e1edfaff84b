"""What one job may use: the memory of its processes together, and time."""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from autoprune.network.memory import memory_bytes
from autoprune.service.settings import MIB, Settings
from autoprune.service.storage.tables import Json

#: Part of the machine's memory that all jobs at a time may have, in equal shares, unless the settings say otherwise;
#: the rest is the service's.
MEMORY_SHARE = 0.9

#: Seconds between two looks at the memory of a job.
_LOOK_S = 0.5

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(slots=True)
class JobLimits:
    """The limits of one attempt at a job, which starts now.

    Attributes:
        memory_bytes: Most memory of all its processes together; None where nobody knows how much there is.
        seconds: Longest run; None for any.

    """

    memory_bytes: int | None
    seconds: float | None
    _started_s: float = field(default_factory=time.monotonic)
    _next_look_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "JobLimits":
        """Return the limits of a service's jobs."""
        there = machine_bytes()
        usual = None if there is None else int(MEMORY_SHARE * there / settings.workers)
        return cls(settings.job_memory_mib * MIB if settings.job_memory_mib else usual, settings.job_seconds)

    def broken(self, group: int) -> Json | None:
        """Return the error of a job whose processes, of one process `group`, are over a limit; None if they are not.

        Memory is looked at twice a second: a call costs nothing in between.
        """
        moment = time.monotonic()
        if self.seconds is not None and moment - self._started_s > self.seconds:
            detail = (
                f"expected the job to end within {self.seconds:,} s, and it had not: ask for fewer evaluations or "
                "epochs, or raise AUTOPRUNE_JOB_SECONDS where the service is started"
            )
            return {"type": "time-limit", "detail": detail}
        if self.memory_bytes is None or moment < self._next_look_s:
            return None
        self._next_look_s = moment + _LOOK_S
        found = resident_bytes(group)
        if found <= self.memory_bytes:
            return None
        detail = (
            f"expected the job's processes to hold at most {self.memory_bytes // MIB:,} MiB of memory, found "
            f"{found // MIB:,} MiB: ask for fewer workers, images or a smaller batch, or raise "
            "AUTOPRUNE_JOB_MEMORY_MIB where the service is started"
        )
        return {"type": "memory-limit", "detail": detail}


def machine_bytes() -> int | None:
    """Return the memory of this machine, or of the container that this is, in bytes; None where it does not say."""
    found = [there] if (there := memory_bytes()) is not None else []
    for name in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            found.append(int(Path(name).read_text()))
    return min(found, default=None)


def resident_bytes(group: int) -> int:
    """Return how much memory the processes of a group hold that nothing else could free.

    Files that they share with the page cache (libraries, mapped images) do not count, where the system tells which
    memory these are.
    """
    total = 0
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):  # ended meanwhile; another's
            if os.getpgid(pid) == group:
                memory = psutil.Process(pid).memory_info()
                total += memory.rss - getattr(memory, "shared", 0)
    return total
