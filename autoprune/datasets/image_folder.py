"""ImageFolder datasets: ``class/name.jpg`` in a directory or a zip, decoded once and cached."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import PIL
import torch

from autoprune.datasets._archive import GIB, IMAGE_LIMITS, KIB, ArchiveLimits, opened_archive
from autoprune.datasets._cache import IMAGES_FILE, Built, load_or_build
from autoprune.datasets._decode import UnreadableImageError, decode_image
from autoprune.datasets._image_files import (
    ImageFile,
    Layout,
    archive_files,
    arranged,
    directory_files,
    read_image_file,
)
from autoprune.datasets.dataset import ImageDataset, check_class_count
from autoprune.errors import DatasetError

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""

MAX_DECODED_BYTES = 16 * GIB
"""Largest size of all decoded images together, ``N * C * H * W``."""

NAMED_UNREADABLE = 5
"""How many unreadable images a message names; it counts the rest."""

_CHUNK_IMAGES = 64
_THREADED_FROM_BYTES = 16 * KIB  # smaller files decode faster in one thread: the GIL is handed over too often
_CACHE_VERSION = 1


def load_image_folder(
    path: str | Path,
    *,
    input_shape: tuple[int, ...] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    limits: ArchiveLimits = IMAGE_LIMITS,
) -> ImageDataset:
    """Load a directory or zip of images as uint8 ``(N, C, H, W)``.

    Classes are the top-level folders in alphabetical order (one folder around everything is skipped); images without
    any folder are unlabelled. Hidden files, ``__MACOSX`` and files that are no images are ignored. The decoded
    images are cached under the content hash of the zip, or the listing (names, sizes, times) of the directory.

    Args:
        path: Directory or ``.zip``.
        input_shape: ``(C, H, W)`` of the network: images are converted to grey or RGB, scaled (bilinear, shorter
            side) and centre-cropped. None: RGB, and all images must have the same size.
        cache_dir: Where decoded images go; None for ``$AUTOPRUNE_CACHE`` or ``~/.cache/autoprune``.
        progress: Called from this thread while decoding; not at all when the cache answers.
        limits: How far a zip may expand.

    Raises:
        DatasetError: Unsafe or damaged archive, unreadable images (named), one class only, sizes that differ.

    """
    root = Path(path)
    _check_shape(input_shape)
    if root.is_dir():
        files, listing = directory_files(root, limits)
        key = _key("directory", repr((str(root.resolve()), listing)), input_shape)
        build = partial(_build, files, source=str(root), input_shape=input_shape, progress=progress)
        return load_or_build(cache_dir, key, root.resolve().name, build)
    key = _key("zip", _file_hash(root), input_shape)

    def build_from_zip(folder: Path) -> Built:
        """Decode the zip's images into `folder`."""
        with opened_archive(root, limits) as (archive, entries):
            images = archive_files(archive, entries)
            return _build(images, folder, source=str(root), input_shape=input_shape, progress=progress)

    return load_or_build(cache_dir, key, root.stem, build_from_zip)


@dataclass(frozen=True, slots=True)
class _Target:
    """What every image must become, ``(C, H, W)``, and whether it may be scaled and cropped for that."""

    shape: tuple[int, ...]
    resized: bool

    @property
    def size(self) -> tuple[int, int] | None:
        """The ``(H, W)`` to scale to, or None."""
        return (self.shape[1], self.shape[2]) if self.resized else None


def _build(
    files: list[ImageFile],
    folder: Path,
    *,
    source: str,
    input_shape: tuple[int, ...] | None,
    progress: Progress | None,
) -> Built:
    """Decode `files` into ``folder/images.npy``; return their labels and class names."""
    layout = arranged(files, source)
    labels = None if layout.labels is None else np.asarray(layout.labels, dtype=np.int64)
    check_class_count(None if labels is None else torch.from_numpy(labels), layout.class_names, source)
    shape = input_shape or _common_shape(layout, source)
    size_bytes = len(layout.files) * math.prod(shape)
    if size_bytes > MAX_DECODED_BYTES:
        raise DatasetError(
            f"{source}: {len(layout.files)} images of {'x'.join(map(str, shape))} would take {size_bytes / GIB:.3g} "
            f"GiB; at most {MAX_DECODED_BYTES / GIB:.3g} GiB are accepted. Use fewer or smaller images."
        )
    with (folder / IMAGES_FILE).open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(layout.files), *shape)}
        np.lib.format.write_array_header_1_0(stream, header)
        _decode_all(layout, stream, source, _Target(shape, resized=input_shape is not None), progress)
    return labels, layout.class_names


def _decode_all(layout: Layout, stream: BinaryIO, source: str, target: _Target, progress: Progress | None) -> None:
    """Write the pixels of all images in order; raise DatasetError naming those that cannot be decoded."""
    unreadable: list[str] = []
    done, total = 0, len(layout.files)
    for chunk in _decoded_chunks(layout, target):
        for file, pixels in chunk:
            if isinstance(pixels, str):
                unreadable.append(f"{file.name} ({pixels})")
            elif pixels.shape != target.shape:
                raise _size_error(source, target.shape, file.name, pixels.shape)
            elif not unreadable:
                stream.write(pixels.tobytes())
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    if unreadable:
        raise _unreadable_error(source, unreadable, total)


Decoded = tuple[ImageFile, npt.NDArray[np.uint8] | str]
"""A file with its pixels ``(C, H, W)``, or with the reason why there are none."""


def _decoded_chunks(layout: Layout, target: _Target) -> Iterator[list[Decoded]]:
    """Yield all files with their pixels, in order; with threads where the files are large enough to gain from it."""
    starts = range(0, len(layout.files), _CHUNK_IMAGES)
    work = partial(_decode_chunk, layout.files, target)
    mean_bytes = sum(file.size_bytes for file in layout.files) / len(layout.files)
    threads = min(8, os.cpu_count() or 1) if mean_bytes >= _THREADED_FROM_BYTES else 1
    if threads == 1:
        yield from map(work, starts)
        return
    window = 2 * threads  # chunks in flight: bounds what decoded images wait in memory
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for first in range(0, len(starts), window):
            yield from pool.map(work, starts[first : first + window])


def _decode_chunk(files: tuple[ImageFile, ...], target: _Target, start: int) -> list[Decoded]:
    """Decode the files from `start` on, one chunk of them."""
    return [(file, _decode_file(file, target.shape[0], target.size)) for file in files[start : start + _CHUNK_IMAGES]]


def _decode_file(file: ImageFile, channels: int, size: tuple[int, int] | None) -> npt.NDArray[np.uint8] | str:
    """Return the pixels of one file, or the reason why it has none."""
    content = read_image_file(file)
    if isinstance(content, str):
        return content
    try:
        return decode_image(content, channels, size)
    except UnreadableImageError as error:
        return str(error)


def _common_shape(layout: Layout, source: str) -> tuple[int, ...]:
    """Return the shape, in RGB, of the first image that can be decoded."""
    unreadable: list[str] = []
    for file in layout.files:
        pixels = _decode_file(file, 3, None)
        if not isinstance(pixels, str):
            return pixels.shape
        unreadable.append(f"{file.name} ({pixels})")
    raise _unreadable_error(source, unreadable, len(layout.files))


def _unreadable_error(source: str, unreadable: list[str], total: int) -> DatasetError:
    """Name the first unreadable images and count the rest."""
    more = len(unreadable) - NAMED_UNREADABLE
    rest = f"; and {more} more" if more > 0 else ""
    named = "; ".join(unreadable[:NAMED_UNREADABLE])
    return DatasetError(
        f"{source}: {len(unreadable)} of {total} images cannot be read: {named}{rest}. Replace or remove them."
    )


def _size_error(source: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> DatasetError:
    """Name an image whose size is not that of the first one."""
    return DatasetError(
        f"{source}: images of different sizes: the first is {shape[1]}x{shape[2]}, {other!r} is "
        f"{other_shape[1]}x{other_shape[2]} (height x width). Make them equal, or load the dataset with the network's "
        f"input shape, which scales and crops them."
    )


def _check_shape(input_shape: tuple[int, ...] | None) -> None:
    """Raise DatasetError where image files cannot be brought to `input_shape`."""
    if input_shape is not None and (len(input_shape) != 3 or input_shape[0] not in (1, 3) or min(input_shape) < 1):
        raise DatasetError(
            f"image files are decoded to (1 or 3 channels, height, width); the network takes {tuple(input_shape)}. "
            f"Pass the images as .npz instead."
        )


def _key(kind: str, identity: str, input_shape: tuple[int, ...] | None) -> str:
    """Return the cache key: everything that the decoded pixels depend on."""
    facts = repr((_CACHE_VERSION, kind, identity, input_shape and tuple(input_shape), PIL.__version__))
    return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()


def _file_hash(path: Path) -> str:
    """Return the sha256 of a file's content."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}). Give a directory, a .zip or a .npz.") from error
