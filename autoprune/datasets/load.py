"""One entry for every kind of dataset."""

from pathlib import Path

from autoprune.datasets.dataset import ImageDataset
from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.image_folder import Progress, load_image_folder
from autoprune.datasets.npz import load_npz
from autoprune.errors import DatasetError

SUPPORTED = (
    "'digits' (built in), a directory or .zip of images (class/name.jpg, or no folders when unlabelled), "
    "or a .npz with 'images' and 'labels'"
)


def load_dataset(
    source: str | Path,
    *,
    input_shape: tuple[int, ...] | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> ImageDataset:
    """Load the dataset a user named.

    Args:
        source: ``"digits"``, a directory, a ``.zip`` or a ``.npz`` (a directory of that name is ``./digits``).
        input_shape: ``(C, H, W)`` of the network; image files are converted to it. Check the result with
            :func:`autoprune.datasets.dataset.check_images`: arrays are never resized.
        cache_dir: Where decoded images go; None for ``$AUTOPRUNE_CACHE`` or ``~/.cache/autoprune``.
        progress: Called with (images done, images in all) while images are decoded.

    Raises:
        DatasetError: The source does not exist, is of no supported kind, or its content cannot be used.

    """
    if str(source) == "digits":
        return load_digits_dataset()
    path = Path(source)
    suffix = path.suffix.lower()
    if path.is_dir() or (path.is_file() and suffix == ".zip"):
        return load_image_folder(path, input_shape=input_shape, cache_dir=cache_dir, progress=progress)
    if path.is_file() and suffix == ".npz":
        return load_npz(path, input_shape=input_shape)
    found = "a file of another kind" if path.is_file() else "nothing of that name"
    raise DatasetError(f"dataset {str(source)!r}: found {found}. Expected {SUPPORTED}.")
