"""A small disk of its own, which a test can fill or make read-only."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_FILLER = "filler"


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A disk in memory, mounted at a folder."""

    folder: Path

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / _FILLER).open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            for size in (2**16, 2**12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(b"x" * size)

    def free(self) -> None:
        """Give back what was filled."""
        (self.folder / _FILLER).unlink()

    def make_read_only(self) -> None:
        """Let nobody write; no file may be open for writing."""
        _run("mount", "-o", "remount,ro", str(self.folder))


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[SmallDisk]:
    """Mount a disk of so many MiB at `folder`, which exists; skip the test where nobody may mount."""
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:  # CI cannot always grant itself that
        pytest.skip(f"needs the right to mount a disk: run as root, where that is not forbidden ({error})")
    try:
        yield SmallDisk(folder)
    finally:
        _run("umount", "-l", str(folder))


def _run(*command: str) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, check=True, capture_output=True)
