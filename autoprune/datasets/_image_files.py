"""Where image files come from (directory or zip), and which class each belongs to."""

import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from autoprune.datasets._archive import MIB, ArchiveLimits, DamagedEntryError, read_entry
from autoprune.datasets._decode import SUFFIXES
from autoprune.errors import DatasetError


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file, not yet read.

    Attributes:
        name: Path inside the directory or zip, with ``/``.
        size_bytes: Size of the file, uncompressed.
        read: Returns its content; raises OSError or DamagedEntryError. Safe to call from several threads.

    """

    name: str
    size_bytes: int
    read: Callable[[], bytes | bytearray]


@dataclass(frozen=True, slots=True)
class Layout:
    """Image files in order, with their classes.

    Attributes:
        files: Sorted by class, then by name.
        labels: Class index of every file; None for a flat, unlabelled collection.
        class_names: In alphabetical order; empty for an unlabelled collection.

    """

    files: tuple[ImageFile, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...]


def directory_files(root: Path, limits: ArchiveLimits) -> tuple[list[ImageFile], list[tuple[str, int, int]]]:
    """Return the image files below `root`, and the listing that identifies them: (name, bytes, mtime in ns), sorted.

    Raises:
        DatasetError: The directory cannot be listed, or a file is larger than one entry may be.

    """
    files: list[ImageFile] = []
    listing: list[tuple[str, int, int]] = []
    try:
        for path in _walk(root):
            name = path.relative_to(root).as_posix()
            if not _is_image(name):
                continue
            facts = path.stat()
            if facts.st_size > limits.entry_bytes:
                raise DatasetError(
                    f"{path}: {facts.st_size / MIB:.4g} MiB; image files of at most {limits.entry_bytes / MIB:.4g} MiB "
                    f"are accepted. Make it smaller or remove it."
                )
            files.append(ImageFile(name, facts.st_size, path.read_bytes))
            listing.append((name, facts.st_size, facts.st_mtime_ns))
    except OSError as error:
        raise DatasetError(f"{root}: cannot be listed ({error}). Check that it is complete and readable.") from error
    return files, sorted(listing)


def archive_files(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> list[ImageFile]:
    """Return the image files among the checked `entries` of an open archive."""
    return [
        ImageFile(info.filename, info.file_size, partial(read_entry, archive, info))
        for info in entries
        if _is_image(info.filename)
    ]


def arranged(files: list[ImageFile], source: str) -> Layout:
    """Return the files with their classes: the folder at the top level is the class.

    One folder around everything is skipped (``photos/cat/1.jpg`` is of class ``cat``). Where all files lie at the
    top level, they are unlabelled.

    Raises:
        DatasetError: No image files, or some at the top level and some in folders.

    """
    if not files:
        raise DatasetError(
            f"{source}: no image files found. Expected class/name.jpg, or images without folders for an unlabelled "
            f"dataset; accepted are {', '.join(sorted(SUFFIXES))}."
        )
    parts = {file.name: _parts(file.name) for file in files}
    tops = {path[0] for path in parts.values()}
    if len(tops) == 1 and all(len(path) > 2 for path in parts.values()):
        parts = {name: path[1:] for name, path in parts.items()}
    ordered = tuple(sorted(files, key=lambda file: parts[file.name]))
    flat = [file.name for file in ordered if len(parts[file.name]) == 1]
    if len(flat) == len(files):
        return Layout(ordered, None, ())
    if flat:
        raise DatasetError(
            f"{source}: {len(flat)} of {len(files)} images lie outside the class folders, for example {flat[0]!r}. "
            f"Expected class/name.jpg for all of them, or no folders at all for an unlabelled dataset."
        )
    class_names = tuple(sorted({path[0] for path in parts.values()}))
    index = {class_name: position for position, class_name in enumerate(class_names)}
    return Layout(ordered, tuple(index[parts[file.name][0]] for file in ordered), class_names)


def read_image_file(file: ImageFile) -> bytes | bytearray | str:
    """Return the content of the file, or (as text) the reason why it cannot be read."""
    try:
        return file.read()
    except (OSError, DamagedEntryError) as error:
        return str(error) or type(error).__name__


def _walk(root: Path) -> Iterator[Path]:
    """Yield all files below `root`, following links but entering every real folder only once."""
    entered: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
        subfolders.sort()
        real = os.path.realpath(folder)
        if real in entered:
            subfolders.clear()
            continue
        entered.add(real)
        yield from (Path(folder, name) for name in names)


def _raise(error: OSError) -> None:
    """Raise what os.walk would otherwise pass over in silence."""
    raise error


def _parts(name: str) -> tuple[str, ...]:
    """Return the parts of a path inside an archive or directory."""
    return PurePosixPath(name.replace("\\", "/")).parts


def _is_image(name: str) -> bool:
    """Tell whether a path is an image file and neither hidden nor one of macOS's ``__MACOSX`` doubles."""
    parts = _parts(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and PurePosixPath(parts[-1]).suffix.lower() in SUFFIXES
