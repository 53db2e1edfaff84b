"""Three hold-out splits that no image shares: fit (statistics, fine-tuning), search (scores), report (the end).

Nothing counts how often the report split is used. Whoever searches is simply never given it: search code receives
:class:`SearchSplits`, made by :meth:`Splits.for_search`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from autoprune.datasets.dataset import ImageDataset, Normalization, default_normalization, to_input
from autoprune.errors import DatasetError

Indices = npt.NDArray[np.int64]

FRACTIONS = {"fit": 0.70, "search": 0.15, "report": 0.15}
"""Shares of the splits whose size the user leaves open."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images as the network takes them.

    Attributes:
        inputs: ``(N, C, H, W)`` float32, normalised.
        labels: ``(N,)`` int64, or None.
        name: ``"fit"``, ``"search"`` or ``"report"``.
        sha256: Hash of the images (before normalisation), their order, the labels and the normalisation.

    """

    inputs: Tensor
    labels: Tensor | None
    name: str
    sha256: str

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class SearchSplits:
    """What a search may see: no report split.

    Attributes:
        fit: For statistics (reconstruction, batch normalisation) and fine-tuning.
        search: For the scores that choose among policies.

    """

    fit: Split
    search: Split


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The three splits of one job.

    Attributes:
        fit: For statistics (reconstruction, batch normalisation) and fine-tuning.
        search: For the scores that choose among policies.
        report: For the figures in the report; used once, at the end.

    """

    fit: Split
    search: Split
    report: Split

    def for_search(self) -> SearchSplits:
        """Return the two splits a search may see."""
        return SearchSplits(self.fit, self.search)


def make_splits(
    dataset: ImageDataset,
    *,
    report_dataset: ImageDataset | None = None,
    fit_images: int | None = None,
    search_images: int | None = None,
    report_images: int | None = None,
    seed: int = 0,
    normalization: Normalization | None = None,
) -> Splits:
    """Deal the images out: disjoint, stratified by class where there are labels, the same for the same seed.

    Sizes left open (None) share what remains in the proportion 70 : 15 : 15. Fit and search images are in random
    order, so that the first batches are a fair sample; report images keep the order of their dataset.

    Args:
        dataset: Where fit and search (and without `report_dataset`, report) images come from.
        report_dataset: Images for the report alone, for example the published test set: all of them, or the
            first `report_images` of them (the first of each class in proportion), whatever the seed.
        fit_images: Size of the fit split.
        search_images: Size of the search split.
        report_images: Size of the report split.
        seed: Of the generator that deals the images out; independent of torch.
        normalization: None for :func:`autoprune.datasets.dataset.default_normalization`.

    Raises:
        DatasetError: Too few images, sizes below 1, a report dataset that does not match, or a normalization that does
            not fit the images.

    """
    rng = np.random.default_rng(seed)
    constants = default_normalization(dataset) if normalization is None else normalization
    asked = {"fit": fit_images, "search": search_images, "report": report_images}
    if report_dataset is None:
        fit, search, report = _deal(dataset, split_sizes(asked, len(dataset), dataset.name), rng)
        report_source, report = dataset, np.sort(report)
    else:
        _check_match(dataset, report_dataset)
        own = {name: size for name, size in asked.items() if name != "report"}
        fit, search = _deal(dataset, split_sizes(own, len(dataset), dataset.name), rng)
        report_source, report = report_dataset, _first_stratified(report_dataset, report_images)
    return Splits(
        _split(dataset, fit, "fit", constants),
        _split(dataset, search, "search", constants),
        _split(report_source, report, "report", constants),
    )


def split_sizes(asked: dict[str, int | None], available: int, source: str) -> list[int]:
    """Return the size of each split in `asked`, filling in the ones left open.

    Args:
        asked: Wanted size by name of the split, in the order of :data:`FRACTIONS`; None where it is left open.
        available: Number of images.
        source: How messages call the images.

    Raises:
        DatasetError: Too few images, or sizes below 1.

    """
    for name, size in asked.items():
        if size is not None and size < 1:
            raise DatasetError(f"{source}: the {name} split needs at least 1 image, {size} were asked for.")
    left_open = [name for name, size in asked.items() if size is None]
    remaining = available - sum(size for size in asked.values() if size is not None)
    if remaining < len(left_open):
        wanted = ", ".join(f"{name} {size or 'at least 1'}" for name, size in asked.items())
        raise DatasetError(
            f"{source}: too few images: {available} for the splits {wanted}. Add images or ask for smaller splits."
        )
    shares = np.array([FRACTIONS[name] for name in left_open])
    spare = remaining - len(left_open)  # every open split gets one image, then its share of the rest
    extra = _apportion(spare, shares / shares.sum() * spare) if left_open else np.zeros(0, dtype=np.int64)
    filled = {name: 1 + int(more) for name, more in zip(left_open, extra, strict=True)}
    return [filled[name] if size is None else size for name, size in asked.items()]


def overlap(a: Split, b: Split) -> int:
    """Return how many images of `b` also occur, pixel for pixel, in `a`.

    Splits never share an *image file*; a dataset that holds the same picture twice can still leak. Worth a warning.
    """
    known = set(_image_hashes(a.inputs))
    return sum(digest in known for digest in _image_hashes(b.inputs))


def _image_hashes(inputs: Tensor) -> Iterable[bytes]:
    """Yield a hash of each image's pixels."""
    for image in inputs.contiguous().numpy():
        yield hashlib.blake2b(image, digest_size=16).digest()


def _split(dataset: ImageDataset, indices: Indices, name: str, normalization: Normalization) -> Split:
    """Return the normalised images at `indices`."""
    chosen = dataset.subset(indices)
    identity = repr((chosen.sha256, normalization.mean, normalization.std))
    inputs = to_input(chosen.images, normalization)
    return Split(inputs, chosen.labels, name, hashlib.sha256(identity.encode()).hexdigest())


def _apportion(total: int, quotas: npt.NDArray[np.float64], priority: Indices | None = None) -> Indices:
    """Round `quotas`, which sum to `total`, to integers that do (largest remainders; ties by lowest priority)."""
    whole = np.floor(quotas + 1e-9).astype(np.int64)
    remainders = np.round(quotas - whole, 9)
    order = np.lexsort((np.arange(len(quotas)) if priority is None else priority, -remainders))
    whole[order[: total - int(whole.sum())]] += 1
    return whole


def _deal(dataset: ImageDataset, sizes: list[int], rng: np.random.Generator) -> list[Indices]:
    """Return disjoint, shuffled indices, ``(size,)`` for each size, with each class in proportion."""
    piles = [rng.permutation(pile) for pile in _piles(dataset)]
    dealt: list[Indices] = []
    for size in sizes:
        counts = np.array([len(pile) for pile in piles])
        takes = _apportion(size, counts * (size / counts.sum()), rng.permutation(len(piles)))
        hand = np.concatenate([pile[:take] for pile, take in zip(piles, takes, strict=True)])
        piles = [pile[take:] for pile, take in zip(piles, takes, strict=True)]
        dealt.append(rng.permutation(hand))
    return dealt


def _first_stratified(dataset: ImageDataset, size: int | None) -> Indices:
    """Return the first `size` indices, ``(size,)``, in file order, with each class in proportion; None for all."""
    if size is None:
        return np.arange(len(dataset))
    if not 1 <= size <= len(dataset):
        raise DatasetError(
            f"{dataset.name}: {size} report images were asked for; it has {len(dataset)}. Ask for 1 to {len(dataset)}."
        )
    piles = _piles(dataset)
    counts = np.array([len(pile) for pile in piles])
    takes = _apportion(size, counts * (size / counts.sum()))
    return np.sort(np.concatenate([pile[:take] for pile, take in zip(piles, takes, strict=True)]))


def _piles(dataset: ImageDataset) -> list[Indices]:
    """Return the indices of each class's images in file order; one pile where there are no labels."""
    if dataset.labels is None:
        return [np.arange(len(dataset))]
    labels = dataset.labels.numpy()
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _check_match(dataset: ImageDataset, report_dataset: ImageDataset) -> None:
    """Raise DatasetError where figures on `report_dataset` would say nothing about `dataset`."""
    if (report_dataset.image_shape, report_dataset.images.dtype) != (dataset.image_shape, dataset.images.dtype):
        raise DatasetError(
            f"report dataset {report_dataset.name}: expected images like those of {dataset.name}, "
            f"{dataset.image_shape} of {dataset.images.dtype}; found {report_dataset.image_shape} of "
            f"{report_dataset.images.dtype}. Prepare both the same way."
        )
    if dataset.labels is None:
        return
    if report_dataset.labels is None:
        raise DatasetError(
            f"report dataset {report_dataset.name} has no labels, {dataset.name} has. Add them, or leave both without."
        )
    shared = min(len(dataset.class_names), len(report_dataset.class_names))
    if dataset.class_names[:shared] != report_dataset.class_names[:shared]:
        raise DatasetError(
            f"report dataset {report_dataset.name} has classes {_listed(report_dataset.class_names)}, "
            f"{dataset.name} has {_listed(dataset.class_names)}. Both must have the same classes in the same order."
        )


def _listed(names: tuple[str, ...]) -> str:
    """Return at most twelve names, separated by commas."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
