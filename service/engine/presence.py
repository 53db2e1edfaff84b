"""Which runners of jobs are alive: each holds a lock for as long as it lives, which others can see."""

import contextlib
import re
import socket
from collections.abc import Collection
from itertools import count
from pathlib import Path
from typing import Protocol

from autoprune.service.locks import held, is_free
from autoprune.service.settings import SettingsError

#: How long a new runner waits for somebody who looks at this very moment whether its lock is free.
_LOOKED_AT_S = 0.1


class Presence(Protocol):
    """The locks of the runners of one service, and the view of those of all others.

    A runner's id is ``<host>/<number>``; a service that starts again on a machine takes the ids that it had, where
    nobody took them meanwhile. Methods are for one thread, but `is_held` may be read by any.
    """

    @property
    def is_held(self) -> bool:
        """Whether all locks of this service are held, as far as is known; without them it must claim nothing."""
        ...

    def take(self, runners: int) -> tuple[str, ...]:
        """Return the ids of so many new runners, whose locks are held from now on.

        Raises:
            SettingsError: The locks cannot be had here.

        """
        ...

    def keep(self) -> None:
        """Make sure that the locks are still held, and take again those that were lost; to be called every second."""
        ...

    def dead(self, runners: Collection[str]) -> frozenset[str]:
        """Return those of `runners` that are certainly not alive."""
        ...

    def close(self) -> None:
        """Free all locks."""
        ...


def host_name() -> str:
    """Return the name of this machine as it stands in ids of runners."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname()) or "_"


def host_of(runner: str) -> str:
    """Return the machine of a runner."""
    return runner.rpartition("/")[0]


class FileLocks:
    """Lock files in one folder, for runners on one machine, or on several whose file system shares locks.

    The kernel frees a lock with the process that held it, and never before: `keep` has nothing to do.
    """

    def __init__(self, folder: Path, host: str | None = None) -> None:
        """Keep the lock files in `folder`, which is made, for a machine of the name `host`; None: its own name."""
        self._folder = folder
        self.host = host_name() if host is None else host
        self._held: dict[str, contextlib.ExitStack] = {}

    @property
    def is_held(self) -> bool:
        """Whether the locks are held."""
        return True

    def take(self, runners: int) -> tuple[str, ...]:
        """See :meth:`Presence.take`."""
        return tuple(self.take_one() for _ in range(runners))

    def take_one(self, *, start: int = 0) -> str:
        """Take the lock of the first free id of this machine from the number `start` on; return the id."""
        for number in count(start):
            runner = f"{self.host}/{number}"
            path, stack = self._path(runner), contextlib.ExitStack()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if stack.enter_context(held(path, wait_s=_LOOKED_AT_S)):
                    self._held[runner] = stack
                    return runner
            except OSError as error:
                raise SettingsError(
                    f"expected a folder with working file locks, found none in {self._folder} ({error.strerror}); set "
                    "AUTOPRUNE_HOME to a folder on another file system"
                ) from error
            stack.close()
        raise AssertionError("unreachable")

    def free(self, runner: str) -> None:
        """Free the lock of one runner of ours."""
        self._held.pop(runner).close()

    def keep(self) -> None:
        """Do nothing."""

    def dead(self, runners: Collection[str]) -> frozenset[str]:
        """See :meth:`Presence.dead`."""
        return frozenset(runner for runner in runners if is_free(self._path(runner)))

    def close(self) -> None:
        """Free all locks."""
        for runner in tuple(self._held):
            self.free(runner)

    def _path(self, runner: str) -> Path:
        """Return the lock file of a runner."""
        return self._folder / f"{runner}.lock"
