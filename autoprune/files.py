"""Files: their fingerprints, and writing them whole."""

import hashlib
import os
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file completely or not at all, if nobody else writes it meanwhile; until then the old one stays.

    With `durable` that holds for a loss of power too, not only for a process that is killed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a part of a file is good for nothing, and a full disk needs its room
        temporary.unlink(missing_ok=True)
        raise
