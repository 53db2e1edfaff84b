"""ImageDataset, normalisation, the built-in digits and the one loading entry."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune.datasets.dataset import (
    DIGITS,
    IMAGENET,
    NONE,
    ImageDataset,
    Normalization,
    check_images,
    check_labels,
    default_normalization,
    parse_normalization,
    to_input,
)
from autoprune.datasets.load import load_dataset
from autoprune.errors import DatasetError
from tests.autoprune.datasets.image_corpus import picture, two_classes, write_zip

PIXELS = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)


def test_digits() -> None:
    dataset = load_dataset("digits")
    assert dataset.images.shape == (1797, 1, 8, 8)
    assert dataset.class_names == tuple("0123456789")
    assert (float(dataset.images.min()), float(dataset.images.max())) == (0.0, 1.0)
    assert default_normalization(dataset) == DIGITS
    inputs = to_input(dataset.images, DIGITS)
    assert abs(float(inputs.mean())) < 1e-3
    assert abs(float(inputs.std()) - 1) < 1e-3


def test_imagenet_normalisation_is_the_published_formula() -> None:
    inputs = to_input(PIXELS, IMAGENET)
    assert inputs.dtype == torch.float32
    expected = (int(PIXELS[1, 2, 3, 0]) / 255 - 0.406) / 0.225
    assert float(inputs[1, 2, 3, 0]) == pytest.approx(expected, abs=1e-6)


def test_to_input_scales_bytes_but_not_floats_and_never_writes_to_its_argument() -> None:
    floats = torch.full((1, 1, 2, 2), 0.5)
    assert float(to_input(floats, Normalization((0.25,), (0.5,))).max()) == 0.5
    assert float(to_input(floats, NONE).max()) == 0.5
    assert float(floats.max()) == 0.5
    assert float(to_input(torch.full((1, 1, 2, 2), 255, dtype=torch.uint8), NONE).max()) == 1.0


def test_normalisations_a_user_can_write() -> None:
    assert parse_normalization("ImageNet") == IMAGENET
    assert parse_normalization("none") == NONE
    assert parse_normalization("0.5, 0.4,0.3 / 0.2,0.2,0.1") == Normalization((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", "expected one of none, imagenet, digits, or means"),
        ("0.5,x/1,1", "expected one of"),
        ("0.5,0.5/1", "as many means as standard deviations"),
        ("0.5/0", "positive standard deviations"),
        ("nan/1", "finite means"),
    ],
)
def test_normalisations_a_user_cannot_write(text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        parse_normalization(text)


def test_normalisation_for_other_channels_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"1 channel\(s\) but the images have 3"):
        to_input(PIXELS, DIGITS)


def test_the_hash_depends_on_images_and_labels_alone() -> None:
    labels = torch.tensor([0, 1])
    one = ImageDataset.of(PIXELS, labels, ("a", "b"), "one")
    assert one.sha256 == ImageDataset.of(PIXELS.clone(), labels.clone(), ("c", "d"), "two").sha256
    different = [
        ImageDataset.of(PIXELS, None, (), "one"),
        ImageDataset.of(PIXELS, labels.flip(0), ("a", "b"), "one"),
        ImageDataset.of(PIXELS.flip(0), labels, ("a", "b"), "one"),
        ImageDataset.of(PIXELS.reshape(2, 3, 2, 8), labels, ("a", "b"), "one"),
        one.subset([0]),
    ]
    assert len({dataset.sha256 for dataset in different} | {one.sha256}) == 6


def test_subset_keeps_the_order_asked_for() -> None:
    dataset = load_dataset("digits")
    chosen = dataset.subset(np.array([5, 3]))
    assert dataset.labels is not None
    assert chosen.labels is not None
    assert chosen.images.equal(dataset.images[[5, 3]])
    assert chosen.labels.tolist() == dataset.labels[[5, 3]].tolist()


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"expected images \(N, C, H, W\)"):
        ImageDataset.of(PIXELS.to(torch.int32), None, (), "x")
    with pytest.raises(DatasetError, match="expected labels from 0 to 1, found 0 to 2"):
        ImageDataset.of(PIXELS, torch.tensor([0, 2]), ("a", "b"), "x")
    with pytest.raises(DatasetError, match="as int64"):
        ImageDataset.of(PIXELS, torch.tensor([0.0, 1.0]), ("a", "b"), "x")


def test_labels_and_images_must_fit_the_network() -> None:
    dataset = load_dataset("digits")
    check_labels(dataset, 10)
    check_labels(ImageDataset.of(PIXELS, None, (), "x"), 1)
    check_images(dataset, (1, 8, 8))
    with pytest.raises(DatasetError, match=r"labels 0 to 8.*has label 9"):
        check_labels(dataset, 9)
    with pytest.raises(DatasetError, match=r"expected images of shape 3x8x8 .* found 1x8x8\. The network needs 3"):
        check_images(dataset, (3, 8, 8))
    with pytest.raises(DatasetError, match=r"found 1x8x8\. Resize"):
        check_images(dataset, (1, 32, 32))


@pytest.mark.parametrize("name", ["digit", "missing.zip", "notes.txt"])
def test_unknown_sources_list_what_is_supported(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"Expected 'digits' \(built in\), a directory or \.zip"):
        load_dataset(tmp_path / name)


def test_sources_are_told_apart(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    archive = write_zip(tmp_path / "PETS.ZIP", two_classes())
    assert load_dataset(str(archive), input_shape=(1, 6, 6), cache_dir=cache).image_shape == (1, 6, 6)
    np.savez(tmp_path / "a.npz", images=PIXELS.numpy())
    assert load_dataset(tmp_path / "a.npz").image_shape == (3, 4, 4)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(picture(0))
    assert len(load_dataset(tmp_path / "flat", cache_dir=cache)) == 1
