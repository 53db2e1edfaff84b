"""A directory of images packed as a zip is the same dataset."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.datasets.image_folder import load_image_folder
from autoprune.datasets.packing import pack_images
from autoprune.errors import DatasetError


def packed(root: Path) -> bytes:
    stream = io.BytesIO()
    pack_images(root, stream)
    return stream.getvalue()


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for number, name in enumerate(("dog/2.png", "cat/1.png", "dog/1.png", "cat/deep/3.png")):
        write_image(root / name, number)
    (root / "cat" / ".hidden.png").write_bytes(b"private")
    (root / "notes.txt").write_text("not an image")
    return root


def test_it_loads_as_the_directory_does_and_holds_nothing_else(pets: Path, tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(packed(pets))
    folder, archive = load_image_folder(pets), load_image_folder(path)
    assert archive.class_names == folder.class_names == ("cat", "dog")
    assert torch.equal(torch.as_tensor(archive.images), torch.as_tensor(folder.images))
    assert torch.equal(torch.as_tensor(archive.labels), torch.as_tensor(folder.labels))
    assert zipfile.ZipFile(path).namelist() == ["cat/1.png", "cat/deep/3.png", "dog/1.png", "dog/2.png"]


def test_equal_images_give_equal_bytes(pets: Path, tmp_path: Path) -> None:
    before = packed(pets)
    for path in sorted(pets.rglob("*.png"), reverse=True):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)  # another time
    assert packed(pets) == before
    write_image(pets / "dog" / "2.png", 9)
    assert packed(pets) != before


def test_what_is_no_dataset_is_refused(pets: Path, tmp_path: Path) -> None:
    write_image(pets / "stray.png", 5)
    with pytest.raises(DatasetError, match=r"outside the class folders, for example 'stray.png'"):
        packed(pets)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image files found"):
        packed(tmp_path / "empty")
    with pytest.raises(DatasetError, match="cannot be listed"):
        packed(tmp_path / "nowhere")
