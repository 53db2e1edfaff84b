"""Zip archives from strangers: every entry is checked before anything is decompressed, and reads are bounded."""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import DatasetError

KIB, MIB, GIB = 2**10, 2**20, 2**30

READ_CHUNK_BYTES = MIB

DAMAGED_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, OSError, RuntimeError)
"""What :mod:`zipfile` raises on a damaged, truncated or unsupported archive."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How far an archive may expand.

    Attributes:
        entries: Largest number of entries.
        entry_bytes: Largest uncompressed size of one entry.
        total_bytes: Largest uncompressed size of all entries together.
        ratio: Largest uncompressed/compressed size of one entry, where it is larger than `ratio_floor_bytes`
            (deflate reaches 1032; photographs stay near 1, arrays of labels go far but are small).
        ratio_floor_bytes: Entries up to this size may have any ratio.

    """

    entries: int
    entry_bytes: int
    total_bytes: int
    ratio: float = 100.0
    ratio_floor_bytes: int = 16 * MIB


IMAGE_LIMITS = ArchiveLimits(entries=2_000_000, entry_bytes=64 * MIB, total_bytes=32 * GIB)
"""Zips of images: one image is in memory at a time, so the total may be large."""

NPZ_LIMITS = ArchiveLimits(entries=64, entry_bytes=8 * GIB, total_bytes=8 * GIB)
"""Arrays: all of them end up in memory."""


class DamagedEntryError(Exception):
    """One entry cannot be read: wrong checksum, truncated, or its size is not what the archive says."""


@contextmanager
def opened_archive(path: Path, limits: ArchiveLimits) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Open the zip at `path`, check all entries, and yield it with its files (no directories).

    Raises:
        DatasetError: Not a zip, truncated, an unsafe name, a link, an encrypted or oddly compressed entry, the same
            name twice, or more than `limits` allow.

    """
    try:
        archive = zipfile.ZipFile(path)
    except (*DAMAGED_ERRORS, ValueError) as error:
        raise DatasetError(f"{path}: expected a complete zip archive; it is damaged or truncated ({error}).") from error
    with archive:
        _check_entries(archive.infolist(), path, limits)
        yield archive, [info for info in archive.infolist() if not info.is_dir()]


def read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytearray:
    """Return the content of an entry that passed the checks, never holding more than its checked size plus a chunk.

    `zipfile` stops at the size in the header; reading in chunks keeps the decompressor from running ahead of it.

    Raises:
        DamagedEntryError: The content is shorter or longer than the header says, or its checksum is wrong.

    """
    content = bytearray()
    try:
        with archive.open(info) as stream:
            while chunk := stream.read(READ_CHUNK_BYTES):
                content += chunk
    except DAMAGED_ERRORS as error:
        raise DamagedEntryError(str(error) or type(error).__name__) from error
    if len(content) != info.file_size:
        raise DamagedEntryError(f"holds {len(content)} bytes where the archive says {info.file_size}")
    return content


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, limits: ArchiveLimits) -> None:
    """Raise DatasetError at the first entry that is unsafe, and where all of them together expand too far."""
    if len(entries) > limits.entries:
        raise DatasetError(f"{path}: {len(entries)} entries; at most {limits.entries} are accepted. Use fewer files.")
    total_bytes = sum(info.file_size for info in entries)
    if total_bytes > limits.total_bytes:
        raise DatasetError(
            f"{path}: would expand to {total_bytes / GIB:.3g} GiB; at most {limits.total_bytes / GIB:.3g} GiB are "
            f"accepted. Use fewer or smaller images."
        )
    seen: set[str] = set()
    for info in entries:
        problem = _name_problem(info.filename) or _entry_problem(info, limits)
        if problem is None and info.filename in seen:
            problem = "occurs twice"
        if problem is not None:
            raise DatasetError(f"{path}: entry {info.filename!r} {problem}; the archive is refused. Repack it.")
        seen.add(info.filename)


def _name_problem(name: str) -> str | None:
    """Say what is unsafe about an entry's name, if anything."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or re.match(r"[A-Za-z]:", name):
        return "has an absolute name"
    if ".." in parts:
        return "leads out of the archive's folder"
    return None


def _entry_problem(info: zipfile.ZipInfo, limits: ArchiveLimits) -> str | None:
    """Say what is unsafe about an entry's kind or size, if anything."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "uses a compression other than 'stored' or 'deflate'"
    if info.file_size > limits.entry_bytes:
        return (
            f"would expand to {info.file_size / MIB:.4g} MiB (at most {limits.entry_bytes / MIB:.4g} MiB are accepted)"
        )
    if info.file_size > limits.ratio_floor_bytes and info.file_size > limits.ratio * max(info.compress_size, 1):
        return f"expands more than {limits.ratio:g} times, like a zip bomb"
    return None
