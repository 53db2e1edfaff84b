"""Uploads are complete or not there at all, and each content once."""

import hashlib
import io
import os
import time
from pathlib import Path

import pytest

from autoprune.service.storage.file_store import FileStore, TooLargeError

CONTENT = os.urandom(3_000_000)


def everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_content_is_kept_under_its_hash_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for _ in range(2):
        with store.received(io.BytesIO(CONTENT), suffix=".bin", max_bytes=len(CONTENT)) as upload:
            assert upload.file.sha256 == hashlib.sha256(CONTENT).hexdigest()
            assert upload.file.size_bytes == len(CONTENT)
            assert upload.file.path.read_bytes() == CONTENT
            path = upload.keep()
    assert path == store.path(hashlib.sha256(CONTENT).hexdigest(), ".bin")
    assert everything(tmp_path) == [path]
    assert path.read_bytes() == CONTENT


def test_what_is_not_kept_is_gone(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    with store.received(io.BytesIO(CONTENT), suffix=".bin", max_bytes=10**9):
        pass
    with pytest.raises(ValueError, match="refused"), store.received(io.BytesIO(b"x"), suffix=".bin", max_bytes=10):
        raise ValueError("refused")
    with (
        pytest.raises(TooLargeError, match="at most 2,999,999 bytes"),
        store.received(io.BytesIO(CONTENT), suffix=".bin", max_bytes=len(CONTENT) - 1),
    ):
        pass
    assert everything(tmp_path) == []


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 0:
                raise ConnectionResetError
            return super().read(size)

    source = Broken(CONTENT)
    store = FileStore(tmp_path)
    with pytest.raises(ConnectionResetError), store.received(source, suffix=".bin", max_bytes=10**9):
        pass
    assert everything(tmp_path) == []


def test_leftovers_of_dead_processes_are_deleted_a_day_later(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".upload-old.zip", tmp_path / ".upload-fresh.zip"
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    FileStore(tmp_path)
    assert everything(tmp_path) == [fresh]
