"""Small image files, folders and zips for the dataset tests."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, mode: str = "RGB", size: tuple[int, int] = (8, 8), file_format: str = "PNG") -> bytes:
    """Return one image file of random pixels; `size` is (width, height)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, file_format)
    return stream.getvalue()


def two_classes(per_class: int = 2) -> dict[str, bytes]:
    """Return file contents by name: classes ``cat`` and ``dog``, listed in the wrong order."""
    return {
        f"{name}/{index}.png": picture(index + 100 * number)
        for number, name in enumerate(("dog", "cat"))
        for index in range(per_class)
    }


def write_zip(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip with these files, in this order."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write these files below `root`."""
    for name, content in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return root
