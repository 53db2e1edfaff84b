"""A content-addressed store of uploaded files: each content once, complete or not there at all."""

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from autoprune.errors import AutopruneError

CHUNK_BYTES = 2**20

_UPLOAD_PREFIX = ".upload-"
_ABANDONED_AFTER_S = 24 * 3600.0


class TooLargeError(AutopruneError):
    """An upload is larger than the service accepts."""


class StorageError(AutopruneError):
    """The store's disk cannot be written: full, read-only or gone."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One content in the store; equal contents are one file."""

    sha256: str
    size_bytes: int
    path: Path


class FileStore:
    """Files by the sha256 of their content, in one folder.

    Several threads and processes may use one store at the same time. Files are never changed once they are there.
    """

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`, which exists; what dead processes left half-written a day ago is deleted."""
        self._folder = folder
        for leftover in folder.glob(f"{_UPLOAD_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):  # its owner has just finished
                if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
                    leftover.unlink()

    def path(self, sha256: str, suffix: str) -> Path:
        """Return where the content with this hash lies, whether it is there or not."""
        return self._folder / sha256[:2] / f"{sha256}{suffix}"

    def is_older(self, sha256: str, suffix: str, before: datetime) -> bool:
        """Tell whether a content was sent for the last time `before` a moment, or is not there."""
        try:
            return self.path(sha256, suffix).stat().st_mtime < before.timestamp()
        except FileNotFoundError:
            return True

    def delete(self, sha256: str, suffix: str) -> None:
        """Delete a content."""
        self.path(sha256, suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def received(self, source: BinaryIO, *, suffix: str, max_bytes: int) -> Iterator["Upload"]:
        """Copy `source` into a temporary file of the store, and yield it to be looked at and then kept.

        The temporary file has the `suffix`, since readers go by it. It is gone when the context ends.

        Raises:
            TooLargeError: `source` holds more than `max_bytes`.
            StorageError: The disk cannot be written.

        """
        handle, name = self._temporary(suffix)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as target:
                sha256, size_bytes = _copy(source, target, max_bytes)
            yield Upload(StoredFile(sha256, size_bytes, path), lambda: self._keep(path, sha256, suffix))
        finally:
            path.unlink(missing_ok=True)

    def _temporary(self, suffix: str) -> tuple[int, str]:
        """Make an empty temporary file."""
        try:
            return tempfile.mkstemp(prefix=_UPLOAD_PREFIX, suffix=suffix, dir=self._folder)
        except OSError as error:
            raise _storage_error(error) from error

    def _keep(self, temporary: Path, sha256: str, suffix: str) -> Path:
        """Move a temporary file to its place, unless the same content is there already."""
        final = self.path(sha256, suffix)
        try:
            final.parent.mkdir(exist_ok=True)
            try:
                os.utime(final)  # whoever deletes old uploads sees that it was sent again
            except FileNotFoundError:
                os.replace(temporary, final)
                _sync_folder(final.parent)
        except OSError as error:
            raise _storage_error(error) from error
        return final


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that is complete but not kept yet.

    Attributes:
        file: The temporary file; its content must not be changed.
        keep: Moves it into the store and returns where it lies; safe to call when the content is there already.

    """

    file: StoredFile
    keep: Callable[[], Path]


def _copy(source: BinaryIO, target: BinaryIO, max_bytes: int) -> tuple[str, int]:
    """Copy everything to disk; return the content's hash and size."""
    digest, size_bytes = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise TooLargeError(
                f"expected a file of at most {max_bytes:,} bytes, found more; use a smaller file, or raise the limit "
                "where the service is started"
            )
        digest.update(chunk)
        try:
            target.write(chunk)
        except OSError as error:
            raise _storage_error(error) from error
    try:
        target.flush()
        os.fsync(target.fileno())
    except OSError as error:
        raise _storage_error(error) from error
    return digest.hexdigest(), size_bytes


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _storage_error(error: OSError) -> StorageError:
    """Say why the disk cannot be written."""
    return StorageError(f"the upload cannot be stored ({error.strerror or error}); free some space and send it again")
