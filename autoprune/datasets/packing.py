"""A directory of images as one zip, to be sent elsewhere."""

import zipfile
from pathlib import Path
from typing import BinaryIO

from autoprune.datasets._archive import IMAGE_LIMITS
from autoprune.datasets._image_files import arranged, directory_files, read_image_file
from autoprune.errors import DatasetError


def pack_images(root: Path, target: BinaryIO) -> None:
    """Write the image files below `root` as a zip that loads as the directory does; equal images give equal bytes.

    Hidden files and files that are no images stay out. Nothing is compressed: images are already.

    Raises:
        DatasetError: No images, some outside the class folders, or files that cannot be read.

    """
    files, _ = directory_files(root, IMAGE_LIMITS)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in arranged(files, str(root)).files:
            content = read_image_file(file)
            if isinstance(content, str):
                raise DatasetError(f"{root}: {file.name} cannot be read ({content}). Replace or remove it.")
            archive.writestr(zipfile.ZipInfo(file.name), content)  # its date is that of no file
