"""An image dataset in memory, and how its images become network inputs."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoprune.errors import DatasetError

MAX_CLASSES = 100_000
"""Largest number of classes that labels may imply; larger label values are almost surely not class indices."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageDataset:
    """Images of one size, with or without labels. Build it with :meth:`of`, which validates and hashes.

    Attributes:
        images: ``(N, C, H, W)``, uint8 in 0..255 or float32. May be memory-mapped from the cache: do not write to it.
        labels: ``(N,)`` int64 class indices, or None.
        class_names: Name of every class, by index; empty where there are no labels.
        name: What the user called it (file stem or ``"digits"``).
        sha256: Content hash of images and labels (:func:`content_hash`).

    """

    images: Tensor
    labels: Tensor | None
    class_names: tuple[str, ...]
    name: str
    sha256: str

    @classmethod
    def of(cls, images: Tensor, labels: Tensor | None, class_names: Sequence[str], name: str) -> "ImageDataset":
        """Return a validated dataset with its content hash.

        Args:
            images: ``(N, C, H, W)``, uint8 or float32.
            labels: ``(N,)`` int64 class indices below ``len(class_names)``, or None.
            class_names: Name of every class; ignored where `labels` is None.
            name: How messages call this dataset.

        Raises:
            DatasetError: No images, wrong shape or type, values not finite, labels of another length or range.

        """
        _check_image_tensor(images, name)
        if labels is not None:
            _check_label_tensor(labels, len(images), len(class_names), name)
        names = tuple(class_names) if labels is not None else ()
        return cls(images, labels, names, name, content_hash(images, labels))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(C, H, W)``."""
        return tuple(self.images.shape[1:])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64] | Tensor) -> "ImageDataset":
        """Return a copy of the images at `indices`, ``(n,)``, in that order.

        Raises:
            DatasetError: `indices` is empty.

        """
        chosen = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        labels = None if self.labels is None else self.labels[chosen]
        return ImageDataset.of(self.images[chosen], labels, self.class_names, self.name)


@dataclass(frozen=True, slots=True)
class Normalization:
    """Per-channel constants of ``(x - mean) / std``, applied to images scaled to 0..1.

    Attributes:
        mean: One number per channel; empty means "leave the scaled images as they are".
        std: One positive number per channel; as long as `mean`.

    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        if not self.mean:
            return "none"
        return "/".join(",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))

    def __post_init__(self) -> None:
        """Raise DatasetError where the numbers cannot be applied."""
        if len(self.mean) != len(self.std):
            raise DatasetError(
                f"normalization: expected as many means as standard deviations, one per channel; "
                f"found {len(self.mean)} and {len(self.std)}."
            )
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or any(value <= 0 for value in self.std):
            raise DatasetError(
                f"normalization needs finite means and positive standard deviations; "
                f"found mean {self.mean} and std {self.std}."
            )


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The constants nearly all published RGB networks were trained with (RGB / 255, ImageNet training images)."""

DIGITS = Normalization((0.3053,), (0.3760,))
"""Mean and standard deviation of all pixels of scikit-learn's digits, scaled to 0..1; fixed, never re-estimated."""

NONE = Normalization((), ())
"""Only the scaling to 0..1 of uint8 images; float images stay as they are."""


def default_normalization(dataset: ImageDataset) -> Normalization:
    """Return the constants used where the user names none.

    ``DIGITS`` for the built-in digits, ``IMAGENET`` for uint8 images of three channels, else ``NONE`` (float
    images are taken as already normalised).
    """
    if dataset.name == "digits" and dataset.image_shape == (1, 8, 8):
        return DIGITS
    if dataset.images.dtype == torch.uint8 and dataset.image_shape[0] == 3:
        return IMAGENET
    return NONE


def parse_normalization(text: str) -> Normalization:
    """Return the normalization a user wrote: ``none``, ``imagenet``, ``digits``, or ``means/stds``.

    Numbers are separated by commas, for example ``0.5,0.5,0.5/0.25,0.25,0.25``.

    Raises:
        DatasetError: Neither a known name nor numbers.

    """
    named = {"none": NONE, "imagenet": IMAGENET, "digits": DIGITS}
    if text.strip().lower() in named:
        return named[text.strip().lower()]
    mean, slash, std = text.partition("/")
    try:
        if not slash:
            raise ValueError
        return Normalization(tuple(map(float, mean.split(","))), tuple(map(float, std.split(","))))
    except ValueError:
        raise DatasetError(
            f"normalization: expected one of {', '.join(named)}, or means/standard deviations as in "
            f"'0.5,0.5,0.5/0.25,0.25,0.25'; found {text!r}"
        ) from None


def to_input(images: Tensor, normalization: Normalization) -> Tensor:
    """Return `images`, ``(N, C, H, W)``, as a new float32 tensor of the same shape, ready for the network.

    uint8 images are divided by 255 first; float images are taken to be scaled already.

    Raises:
        DatasetError: The normalization has another number of channels than the images.

    """
    inputs = images.to(torch.float32, copy=True)
    if images.dtype == torch.uint8:
        inputs /= 255.0
    if not normalization.mean:
        return inputs
    if len(normalization.mean) != images.shape[1]:
        raise DatasetError(
            f"normalization has {len(normalization.mean)} channel(s) but the images have {images.shape[1]}; "
            f"give one mean and one standard deviation per channel, or 'none'."
        )
    mean = torch.tensor(normalization.mean).view(1, -1, 1, 1)
    std = torch.tensor(normalization.std).view(1, -1, 1, 1)
    return inputs.sub_(mean).div_(std)


def content_hash(images: Tensor, labels: Tensor | None) -> str:
    """Return the sha256 of type, shape and values of images and labels, in hexadecimal."""
    digest = hashlib.sha256()
    for tensor in (images, labels):
        if tensor is None:
            digest.update(b"unlabelled")
            continue
        digest.update(repr((str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def check_class_count(labels: Tensor | None, class_names: Sequence[str], name: str) -> None:
    """Raise DatasetError where all images of a labelled dataset belong to one class: nothing could be scored."""
    if labels is not None and int(labels.min()) == int(labels.max()):
        only = class_names[int(labels[0])]
        raise DatasetError(
            f"{name}: expected images of at least two classes, found only class {only!r} ({len(labels)} images). "
            f"Add the other classes; to use the images without labels, put them directly at the top level "
            f"(folder, zip) or leave the labels out (npz)."
        )


def check_labels(dataset: ImageDataset, num_classes: int) -> None:
    """Raise DatasetError where a label lies outside the network's `num_classes` outputs."""
    if dataset.labels is None:
        return
    largest = int(dataset.labels.max())
    if largest >= num_classes:
        raise DatasetError(
            f"{dataset.name}: the network tells {num_classes} classes apart (labels 0 to {num_classes - 1}), but the "
            f"dataset has label {largest} ({dataset.class_names[largest]!r}) and {len(dataset.class_names)} classes. "
            f"Use the classes the network was trained on, or leave the labels out."
        )


def check_images(dataset: ImageDataset, input_shape: tuple[int, ...]) -> None:
    """Raise DatasetError where the images are not of the network's `input_shape`, ``(C, H, W)``."""
    if dataset.image_shape == tuple(input_shape):
        return
    if dataset.image_shape[0] != input_shape[0]:
        advice = f"The network needs {input_shape[0]} channel(s); convert the images"
    else:
        advice = "Resize the images"
    raise DatasetError(
        f"{dataset.name}: expected images of shape {_shape_text(input_shape)} (channels x height x width), the "
        f"network's input; found {_shape_text(dataset.image_shape)}. {advice} (image folders and zips are converted "
        f"and resized when loaded with the network's input shape)."
    )


def _shape_text(shape: tuple[int, ...]) -> str:
    """Return ``3x32x32`` for ``(3, 32, 32)``."""
    return "x".join(map(str, shape))


def _check_image_tensor(images: Tensor, name: str) -> None:
    """Raise DatasetError unless `images` is a non-empty, finite ``(N, C, H, W)`` tensor of uint8 or float32."""
    if images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise DatasetError(
            f"{name}: expected images (N, C, H, W) as uint8 or float32; "
            f"found shape {tuple(images.shape)} of {images.dtype}."
        )
    if images.numel() == 0:
        raise DatasetError(f"{name}: there are no images (shape {tuple(images.shape)}).")
    if images.dtype == torch.float32:
        bad = ~images.flatten(1).isfinite().all(dim=1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise DatasetError(
                f"{name}: {int(bad.sum())} of {len(images)} images hold NaN or infinite values, "
                f"the first is number {first}. Remove or repair them."
            )


def _check_label_tensor(labels: Tensor, n_images: int, n_classes: int, name: str) -> None:
    """Raise DatasetError unless `labels` is ``(n_images,)`` int64 within ``0..n_classes-1``."""
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise DatasetError(
            f"{name}: expected labels (N,) as int64; found shape {tuple(labels.shape)} of {labels.dtype}."
        )
    if len(labels) != n_images:
        raise DatasetError(
            f"{name}: expected one label per image, found {len(labels)} labels for {n_images} images. "
            f"Make both the same length."
        )
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest >= n_classes:
        raise DatasetError(
            f"{name}: expected labels from 0 to {n_classes - 1}, found {smallest} to {largest}. "
            f"Number the classes from 0; remove images without a class."
        )
