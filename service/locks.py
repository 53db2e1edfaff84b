"""Locks that the kernel frees when their owner dies, however it dies."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.02


@contextlib.contextmanager
def held(path: Path, *, wait_s: float = 0.0) -> Iterator[bool]:
    """Yield whether this process got the lock file at `path` within `wait_s`; it is free again when the context ends.

    A child that is started without ``exec`` (multiprocessing's fork) shares the lock.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(_POLL_S)
            else:
                yield True
                return
    finally:
        os.close(handle)


def is_free(path: Path) -> bool:
    """Tell whether nobody holds the lock file at `path`; one that was never held is not there. Others may ask too."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
