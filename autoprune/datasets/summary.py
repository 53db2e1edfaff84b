"""What is in a dataset file, found without decoding all of it: enough to accept or refuse an upload."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoprune.datasets._archive import IMAGE_LIMITS, opened_archive
from autoprune.datasets._decode import UnreadableImageError, decode_image
from autoprune.datasets._image_files import archive_files, arranged, read_image_file
from autoprune.datasets.dataset import ImageDataset, check_class_count
from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.npz import load_npz
from autoprune.errors import DatasetError


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What is in a dataset.

    Attributes:
        images: Number of images.
        class_names: Name of each class; None where there are no labels.
        image_shape: ``(C, H, W)`` of arrays, which are never resized; None for image files, which are.
        dtype: ``"uint8"`` or ``"float32"``, what one value is read as.

    """

    images: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, ...] | None
    dtype: str


def summarize(source: str | Path) -> DatasetSummary:
    """Look into ``"digits"``, a ``.zip`` of images or a ``.npz``.

    Arrays are read and checked whole. Of a zip, every entry's name and size and the first image are checked; another
    image that cannot be decoded shows only when the dataset is loaded.

    Raises:
        DatasetError: Not such a file, unsafe, damaged, or without usable images.

    """
    if str(source) == "digits":
        return _of(load_digits_dataset())
    path = Path(source)
    if path.suffix.lower() == ".zip":
        return _of_zip(path)
    if path.suffix.lower() == ".npz":
        return _of(load_npz(path))
    raise DatasetError(f"{path}: expected a .zip of images or a .npz of arrays, found the ending {path.suffix!r}")


def _of(dataset: ImageDataset) -> DatasetSummary:
    """Summarize arrays."""
    return DatasetSummary(
        images=len(dataset),
        class_names=dataset.class_names if dataset.labels is not None else None,
        image_shape=dataset.image_shape,
        dtype=str(dataset.images.dtype).removeprefix("torch."),
    )


def _of_zip(path: Path) -> DatasetSummary:
    """Summarize a zip of images."""
    with opened_archive(path, IMAGE_LIMITS) as (archive, entries):
        layout = arranged(archive_files(archive, entries), str(path))
        labels = None if layout.labels is None else torch.from_numpy(np.asarray(layout.labels, dtype=np.int64))
        check_class_count(labels, layout.class_names, str(path))
        first = layout.files[0]
        content = read_image_file(first)
        try:
            if isinstance(content, str):
                raise UnreadableImageError(content)
            decode_image(content, 3, None)
        except UnreadableImageError as error:
            raise DatasetError(
                f"{path}: image {first.name!r} cannot be read ({error}). Replace or remove it."
            ) from error
    names = None if labels is None else layout.class_names
    return DatasetSummary(images=len(layout.files), class_names=names, image_shape=None, dtype="uint8")
