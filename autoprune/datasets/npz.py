"""``.npz`` datasets: the arrays are checked from their headers before memory is taken, and pickles are never loaded."""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from autoprune.datasets._archive import DAMAGED_ERRORS, NPZ_LIMITS, READ_CHUNK_BYTES, ArchiveLimits, opened_archive
from autoprune.datasets.dataset import MAX_CLASSES, ImageDataset, check_class_count
from autoprune.errors import DatasetError

IMAGE_KEYS = ("images", "x")
LABEL_KEYS = ("labels", "y")

_HELP = (
    "Write it with numpy.savez(path, images=..., labels=...): images (N, H, W), (N, H, W, C) or (N, C, H, W) "
    "as uint8 or float, labels (N,) as integers or left out."
)


def load_npz(
    path: str | Path, *, input_shape: tuple[int, ...] | None = None, limits: ArchiveLimits = NPZ_LIMITS
) -> ImageDataset:
    """Load ``images`` (or ``x``) and, if there, ``labels`` (or ``y``) from a numpy ``.npz`` file.

    Images may be ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``; which of the last two is told by
    `input_shape`, else by the axis that has 1 or 3 entries (the last one where both have). uint8 stays uint8;
    floats become float32 and are taken to be scaled already. Classes are named by their numbers.

    Args:
        path: The file.
        input_shape: ``(C, H, W)`` of the network, or None.
        limits: How far the file may expand.

    Raises:
        DatasetError: Not a ``.npz``, arrays missing, pickled or of a wrong shape or type, values that are not finite,
            another number of labels than images, negative labels, one class only.

    """
    source = Path(path)
    with opened_archive(source, limits) as (archive, entries):
        by_key = {info.filename.removesuffix(".npy"): info for info in entries if info.filename.endswith(".npy")}
        image_entry = _first(by_key, IMAGE_KEYS)
        if image_entry is None:
            found = ", ".join(sorted(by_key)) or "none"
            raise DatasetError(f"{source}: no array 'images' (or 'x'); found: {found}. {_HELP}")
        images = _as_images(_read_array(archive, image_entry, source), input_shape, source)
        label_entry = _first(by_key, LABEL_KEYS)
        labels = None if label_entry is None else _as_labels(_read_array(archive, label_entry, source), source)
    targets = None if labels is None else torch.from_numpy(labels)
    class_names = [] if labels is None else [str(index) for index in range(int(labels.max()) + 1)]
    dataset = ImageDataset.of(torch.from_numpy(images), targets, class_names, source.stem)
    check_class_count(dataset.labels, dataset.class_names, str(source))
    return dataset


@dataclass(frozen=True, slots=True)
class _Header:
    """What a ``.npy`` header says."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """Size of the array's data."""
        return math.prod(self.shape) * self.dtype.itemsize


def _first(by_key: dict[str, zipfile.ZipInfo], keys: tuple[str, ...]) -> zipfile.ZipInfo | None:
    """Return the entry of the first of `keys` that is there."""
    return next((by_key[key] for key in keys if key in by_key), None)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Path) -> npt.NDArray[Any]:
    """Return one array. Memory is taken only once the header agrees with the entry's (bounded) size."""
    try:
        with archive.open(info) as stream:
            header = _read_header(stream)
            if header.dtype.hasobject:
                raise DatasetError(
                    f"{source}: array {info.filename!r} is pickled (Python objects), which is never loaded because it "
                    f"can run code. {_HELP}"
                )
            left = info.file_size - stream.tell()
            if header.size_bytes != left:
                raise DatasetError(
                    f"{source}: array {info.filename!r} is damaged: shape {header.shape} of {header.dtype} needs "
                    f"{header.size_bytes} bytes, the file holds {left}. Write it again."
                )
            content = bytearray()
            while chunk := stream.read(READ_CHUNK_BYTES):
                content += chunk
    except (*DAMAGED_ERRORS, ValueError) as error:
        raise DatasetError(f"{source}: array {info.filename!r} is damaged ({error}). Write it again.") from error
    if len(content) != header.size_bytes:
        raise DatasetError(f"{source}: array {info.filename!r} is truncated. Write it again.")
    flat = np.frombuffer(content, dtype=header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def _read_header(stream: IO[bytes]) -> _Header:
    """Read the ``.npy`` header of versions 1 and 2 (3 exists for the field names of structured arrays only)."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return _Header(*np.lib.format.read_array_header_1_0(stream))
    if version == (2, 0):
        return _Header(*np.lib.format.read_array_header_2_0(stream))
    raise ValueError(f"version {version} of the array format holds no images")


def _as_images(array: npt.NDArray[Any], input_shape: tuple[int, ...] | None, source: Path) -> npt.NDArray[Any]:
    """Return `array` as contiguous ``(N, C, H, W)`` in uint8 or float32."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DatasetError(f"{source}: images must be uint8 (0 to 255) or float; found {array.dtype}. {_HELP}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and _channels_last(array.shape, input_shape, source):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4:
        raise DatasetError(f"{source}: images have shape {array.shape}. {_HELP}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    with np.errstate(over="ignore"):  # values too large for float32 become infinite, which is refused by name
        return np.ascontiguousarray(array, dtype=np.float32)


def _channels_last(shape: tuple[int, ...], input_shape: tuple[int, ...] | None, source: Path) -> bool:
    """Tell whether images of this shape, ``(N, ?, ?, ?)``, have their channels in the last axis."""
    if input_shape is not None:
        if shape[1:] == tuple(input_shape):
            return False
        if (shape[3], shape[1], shape[2]) == tuple(input_shape):
            return True
    if shape[3] in (1, 3):
        return True
    if shape[1] in (1, 3) or (input_shape is not None and shape[1] == input_shape[0]):
        return False
    if input_shape is not None and shape[3] == input_shape[0]:
        return True
    raise DatasetError(f"{source}: images have shape {shape}; neither axis 1 nor axis 3 is 1 or 3 channels. {_HELP}")


def _as_labels(array: npt.NDArray[Any], source: Path) -> npt.NDArray[np.int64]:
    """Return `array` as ``(N,)`` int64 class indices; ``(N, 1)`` is accepted, as Keras writes it."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.size == 0:
        raise DatasetError(
            f"{source}: labels must be one integer per image, (N,); found shape {array.shape} of {array.dtype}. {_HELP}"
        )
    smallest, largest = int(array.min()), int(array.max())
    if smallest < 0 or largest >= MAX_CLASSES:
        raise DatasetError(
            f"{source}: labels must be class numbers from 0 to {MAX_CLASSES - 1}; found {smallest} to {largest}. "
            f"Number the classes from 0; remove images without a class."
        )
    return np.ascontiguousarray(array, dtype=np.int64)
