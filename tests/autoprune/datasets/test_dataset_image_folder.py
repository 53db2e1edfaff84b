"""ImageFolder directories and zips: classes, conversion, errors that name images, and the cache."""

import io
import os
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.datasets._decode import UnreadableImageError, decode_image
from autoprune.datasets.dataset import ImageDataset
from autoprune.datasets.image_folder import load_image_folder
from autoprune.errors import DatasetError
from tests.autoprune.datasets.image_corpus import picture, two_classes, write_folder, write_zip


def saved(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def load(path: Path, **options: object) -> ImageDataset:
    return load_image_folder(path, cache_dir=path.parent / "cache", **options)


def test_zip_and_directory_give_the_same_dataset(tmp_path: Path) -> None:
    files = two_classes()
    from_zip = load(write_zip(tmp_path / "pets.zip", files))
    from_folder = load(write_folder(tmp_path / "pets", files))
    assert from_zip.class_names == from_folder.class_names == ("cat", "dog")
    assert from_zip.labels is not None
    assert from_zip.labels.tolist() == [0, 0, 1, 1]
    assert from_zip.images.shape == (4, 3, 8, 8)
    assert from_zip.images.dtype == torch.uint8
    assert (from_zip.name, from_zip.sha256) == (from_folder.name, from_folder.sha256)
    expected = np.asarray(Image.open(io.BytesIO(files["cat/1.png"]))).transpose(2, 0, 1)
    assert (from_zip.images[1].numpy() == expected).all()


def test_one_folder_around_everything_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    files = {f"pets/{name}": content for name, content in two_classes().items()}
    noise = {"__MACOSX/pets/cat/._0.png": b"x", "pets/.DS_Store": b"x", "pets/cat/.hidden.png": b"x", "README.md": b"x"}
    dataset = load(write_zip(tmp_path / "a.zip", {**noise, **files}))
    assert dataset.class_names == ("cat", "dog")
    assert len(dataset) == 4


def test_flat_images_are_unlabelled(tmp_path: Path) -> None:
    dataset = load(write_folder(tmp_path / "flat", {f"{index}.png": picture(index) for index in range(3)}))
    assert dataset.labels is None
    assert dataset.class_names == ()
    assert len(dataset) == 3


def test_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found only class 'cat' \\(1 images\\)"):
        load(write_zip(tmp_path / "a.zip", {"cat/0.png": picture(0)}))


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"1 of 5 images lie outside the class folders, for example 'stray\.png'"):
        load(write_zip(tmp_path / "a.zip", {**two_classes(), "stray.png": picture(0)}))


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}])
def test_no_images_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(DatasetError, match="no image files found"):
        load(write_zip(tmp_path / "a.zip", files))


def test_unreadable_images_are_named_up_to_five_and_counted(tmp_path: Path) -> None:
    bad = {f"cat/bad{index}.png": b"not an image" for index in range(6)}
    with pytest.raises(DatasetError) as caught:
        load(write_zip(tmp_path / "a.zip", {**two_classes(), **bad, "dog/cut.png": picture(3)[:-60]}))
    message = str(caught.value)
    assert "7 of 11 images cannot be read: cat/bad0.png (not an image of a supported format); " in message
    assert "cat/bad4.png" in message
    assert "cat/bad5.png" not in message
    assert "and 2 more" in message
    assert [path.name for path in (tmp_path / "cache" / "datasets").iterdir()] == []


def test_all_images_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="2 of 2 images cannot be read"):
        load(write_folder(tmp_path / "pets", {"cat/a.png": b"", "dog/b.png": b""}))


def test_sizes_that_differ_need_an_input_shape(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {**two_classes(), "dog/wide.png": picture(1, size=(20, 10))})
    with pytest.raises(DatasetError, match=r"the first is 8x8, 'dog/wide\.png' is 10x20"):
        load(path)
    dataset = load(path, input_shape=(3, 8, 8))
    assert dataset.image_shape == (3, 8, 8)
    assert load(write_zip(tmp_path / "b.zip", two_classes())).images[0].equal(dataset.images[0])


def test_resizing_crops_the_centre() -> None:
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 255  # black, white, black: only the middle third is to remain
    content = saved(Image.fromarray(pixels))
    assert (decode_image(content, 3, (8, 8)) == 255).all()
    halved = decode_image(content, 1, (4, 4))
    assert (halved[:, :, 1:3] == 255).all()
    assert (halved > 200).all()  # smoothing lets a little of the neighbours in at the edges
    assert decode_image(saved(Image.new("RGB", (1, 3000))), 3, (32, 32)).shape == (3, 32, 32)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_modes_are_converted(mode: str) -> None:
    grey = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    content = saved(grey, "TIFF" if mode == "CMYK" else "PNG")
    for channels in (1, 3):
        pixels = decode_image(content, channels, None)
        assert pixels.shape == (channels, 4, 4)
        assert (pixels == 255).all()


def test_palette_with_transparency_and_sixteen_bits() -> None:
    palette = Image.new("RGB", (4, 4), (255, 0, 0)).convert("P")
    assert decode_image(saved(palette, transparency=bytes([0, 128])), 3, None).shape == (3, 4, 4)
    deep = Image.fromarray(np.full((4, 4), 0x80FF, dtype=np.uint16))
    assert (decode_image(saved(deep), 3, None) == 0x80).all()
    with pytest.raises(UnreadableImageError, match="32-bit"):
        decode_image(saved(Image.new("F", (4, 4)), "TIFF"), 3, None)


@pytest.mark.parametrize("width", [9_000, 12_000, 20_000])
def test_pixel_bombs_are_refused_before_their_pixels_are_decoded(width: int) -> None:
    header_only = saved(Image.new("1", (width, 9_000)))[:60]
    with pytest.raises(UnreadableImageError, match="more than 64000000"):
        decode_image(header_only, 3, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(UnreadableImageError, match="more than 64000000"):
            decode_image(header_only, 3, None)


def test_networks_with_other_channels_need_npz(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"\.npz instead"):
        load(write_zip(tmp_path / "a.zip", two_classes()), input_shape=(4, 8, 8))


def test_large_files_are_decoded_by_threads_in_order(tmp_path: Path) -> None:
    files = {f"{name}/{index:03}.png": picture(index, size=(80, 80)) for name in "ab" for index in range(80)}
    calls: list[tuple[int, int]] = []
    dataset = load(write_folder(tmp_path / "big", files), progress=lambda done, total: calls.append((done, total)))
    assert dataset.images[:80].equal(dataset.images[80:])
    assert calls == [(64, 160), (128, 160), (160, 160)]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", two_classes())
    outside = write_folder(tmp_path / "elsewhere", {"0.png": picture(7)})
    (root / "eel").symlink_to(outside)
    (root / "dog" / "loop").symlink_to(root)
    dataset = load(root)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert len(dataset) == 5


def test_a_second_load_comes_from_the_cache(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    first = load(path)
    calls: list[int] = []
    second = load(path, progress=lambda done, _: calls.append(done))
    assert calls == []
    assert (first.sha256, first.class_names) == (second.sha256, second.class_names)
    renamed = path.rename(tmp_path / "renamed.zip")
    assert load(renamed, progress=lambda done, _: calls.append(done)).name == "renamed"
    assert calls == []
    load(renamed, input_shape=(1, 8, 8), progress=lambda done, _: calls.append(done))
    assert calls == [4]


def test_a_changed_directory_is_decoded_again(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", two_classes())
    before = load(root)
    (root / "cat" / "0.png").write_bytes(picture(77))
    os.utime(root / "cat" / "0.png", ns=(1, 1))
    assert load(root).sha256 != before.sha256


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "json", "other"])
def test_a_damaged_cache_is_rebuilt(tmp_path: Path, damage: str) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    sha256 = load(path).sha256
    (entry,) = (tmp_path / "cache" / "datasets").iterdir()
    images = entry / "images.npy"
    content = images.read_bytes()
    if damage == "flip":
        images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        images.write_bytes(content[:-10])
    elif damage == "missing":
        (entry / "labels.npy").unlink()
    elif damage == "json":
        (entry / "dataset.json").write_text("{")
    else:
        np.save(images, np.array([object()]), allow_pickle=True)
    assert load(path).sha256 == sha256
    assert [found.name for found in (tmp_path / "cache" / "datasets").iterdir()] == [entry.name]
    assert load(path).sha256 == sha256


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    monkeypatch.setenv("AUTOPRUNE_CACHE", str(tmp_path / "chosen"))
    load_image_folder(path)
    assert len(list((tmp_path / "chosen" / "datasets").iterdir())) == 1
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(DatasetError, match="set AUTOPRUNE_CACHE to a writable folder"):
        load_image_folder(path, cache_dir=tmp_path / "a file")


def test_whoever_builds_first_is_kept(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", two_classes())
    entries: list[int] = []

    def build_meanwhile(done: int, total: int) -> None:
        """Stand in for another process that finishes while this one decodes."""
        load(path)
        (entry,) = (folder for folder in (tmp_path / "cache" / "datasets").iterdir() if folder.name[0] != ".")
        entries.append(entry.stat().st_ino)

    slower = load(path, progress=build_meanwhile)
    assert slower.sha256 == load(path).sha256
    (entry,) = (tmp_path / "cache" / "datasets").iterdir()
    assert entries == [entry.stat().st_ino]


def test_what_a_killed_builder_left_is_removed_a_day_later(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "datasets"
    for name, age_s in (("old", 100_000), ("new", 1_000)):
        left = write_folder(folder / f".building-{name}", {"entry/images.npy": b"half"})
        os.utime(left, (time.time() - age_s,) * 2)
    load(write_zip(tmp_path / "a.zip", two_classes()))
    assert sorted(path.name for path in folder.iterdir() if path.name[0] == ".") == [".building-new"]


def test_cifar_test_images(shared: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.zip"
    with (
        zipfile.ZipFile(shared / "data" / "cifar10_jpeg_test.zip") as whole,
        zipfile.ZipFile(part, "w") as few,
    ):
        names = [name for name in whole.namelist() if not name.endswith("/")]
        for name in names[::10]:
            few.writestr(name, whole.read(name))
    assert len(names) == 10_000
    dataset = load(part)
    assert dataset.images.shape == (1_000, 3, 32, 32)
    assert dataset.class_names[0] == "airplane"
    assert dataset.class_names[-1] == "truck"
    assert dataset.labels is not None
    assert torch.bincount(dataset.labels).tolist() == [100] * 10
