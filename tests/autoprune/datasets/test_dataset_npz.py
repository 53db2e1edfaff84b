"""``.npz`` datasets: layouts, types, and every malformed file."""

import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from autoprune.datasets._archive import MIB, ArchiveLimits
from autoprune.datasets.npz import load_npz
from autoprune.errors import DatasetError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def written(tmp_path: Path, **arrays: npt.ArrayLike) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y")])
def test_channels_first_with_labels(tmp_path: Path, keys: tuple[str, str]) -> None:
    dataset = load_npz(written(tmp_path, **{keys[0]: IMAGES, keys[1]: LABELS[:, None].astype(np.uint8)}))
    assert (dataset.images.numpy() == IMAGES).all()
    assert dataset.labels is not None
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.name == "data"


@pytest.mark.parametrize("order", ["C", "F"])
def test_channels_last_in_both_memory_orders(tmp_path: Path, order: str) -> None:
    last = np.array(IMAGES.transpose(0, 2, 3, 1), order=order)  # type: ignore[call-overload]
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=last)
    dataset = load_npz(path)
    assert (dataset.images.numpy() == IMAGES).all()
    assert dataset.labels is None


def test_grey_floats_become_float32_and_stay_unscaled(tmp_path: Path) -> None:
    grey = np.linspace(-3, 3, 6 * 5 * 4).reshape(6, 5, 4)
    dataset = load_npz(written(tmp_path, images=grey, labels=LABELS))
    assert dataset.images.dtype == torch.float32
    assert (dataset.images.numpy()[:, 0] == grey.astype(np.float32)).all()


def test_the_network_settles_which_axis_holds_the_channels(tmp_path: Path) -> None:
    path = written(tmp_path, images=np.zeros((6, 3, 8, 3), dtype=np.uint8), labels=LABELS)
    assert load_npz(path).image_shape == (3, 3, 8)
    assert load_npz(path, input_shape=(3, 8, 3)).image_shape == (3, 8, 3)
    five = written(tmp_path, images=np.zeros((6, 8, 8, 5), dtype=np.uint8))
    assert load_npz(five, input_shape=(5, 8, 8)).image_shape == (5, 8, 8)
    with pytest.raises(DatasetError, match="neither axis 1 nor axis 3"):
        load_npz(five)


BAD_ARRAYS = {
    "no array 'images'": {"pictures": IMAGES},
    "expected one label per image, found 5 labels for 6 images": {"images": IMAGES, "labels": LABELS[:5]},
    "found -1 to 2": {"images": IMAGES, "labels": np.array([0, 1, 2, -1, 0, 1])},
    "found 0 to 18446744073709551615": {"images": IMAGES, "labels": np.array([0] * 5 + [2**64 - 1], dtype=np.uint64)},
    "labels must be one integer per image, .* float64": {"images": IMAGES, "labels": LABELS * 1.0},
    "labels must be one integer per image, .*\\(6, 3\\)": {"images": IMAGES, "labels": np.eye(3, dtype=int)[LABELS]},
    "found only class '1'": {"images": IMAGES, "labels": np.ones(6, dtype=int)},
    "images must be uint8": {"images": IMAGES.astype(np.int32)},
    "images have shape \\(6, 60\\)": {"images": IMAGES.reshape(6, -1)},
    "there are no images": {"images": IMAGES[:0]},
    "1 of 6 images hold NaN or infinite values, the first is number 4": {
        "images": np.where(np.arange(6)[:, None, None] == 4, np.nan, np.ones((6, 5, 4)))
    },
    "6 of 6 images hold NaN or infinite": {"images": np.full((6, 5, 4), 1e300)},
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_unusable_arrays_are_refused(tmp_path: Path, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_npz(written(tmp_path, **BAD_ARRAYS[message]))


class _Trap:
    """An object whose unpickling would be noticed."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the pickle was loaded",))


@pytest.mark.parametrize("key", ["images", "labels"])
def test_pickled_arrays_are_never_loaded(tmp_path: Path, key: str) -> None:
    arrays = {"images": IMAGES, "labels": LABELS, key: np.array([_Trap()] * 6, dtype=object)}
    with pytest.raises(DatasetError, match=rf"'{key}\.npy' is pickled"):
        load_npz(written(tmp_path, **arrays))


def test_a_header_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 3, 1000, 1000)}
    np.lib.format.write_array_header_1_0(stream, header)
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", stream.getvalue() + bytes(100))
    with pytest.raises(DatasetError, match=r"'images\.npy' is damaged: shape .* the file holds 100"):
        load_npz(path)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x93NUMPY\x03\x00", b"\x93NUMPY\x01\x00\x06\x00{1: 2}"])
def test_entries_that_are_no_arrays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(DatasetError, match=r"'images\.npy' is damaged"):
        load_npz(path)


def test_bombs_are_refused_from_the_headers(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=np.zeros((20, 1024, 1024), dtype=np.uint8))
    with pytest.raises(DatasetError, match="expands more than 100 times"):
        load_npz(path)
    with pytest.raises(DatasetError, match="would expand to"):
        load_npz(path, limits=ArchiveLimits(entries=9, entry_bytes=MIB, total_bytes=MIB))


@pytest.mark.parametrize("kept_share", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, kept_share: float) -> None:
    path = written(tmp_path, images=IMAGES, labels=LABELS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept_share)])
    with pytest.raises(DatasetError, match="damaged or truncated"):
        load_npz(path)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, images=IMAGES)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"'images\.npy' is damaged \(.*CRC"):
        load_npz(path)
