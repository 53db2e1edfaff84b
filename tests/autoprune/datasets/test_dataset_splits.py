"""Three splits: disjoint, stratified, deterministic, and no report split for whoever searches."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.datasets.dataset import NONE, ImageDataset, Normalization
from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.splits import Split, make_splits, overlap
from autoprune.errors import DatasetError


def numbered(n_images: int, n_classes: int = 3, *, labelled: bool = True, offset: int = 0) -> ImageDataset:
    """Return float images whose only pixel is their number, so that splits can be traced back."""
    images = torch.arange(offset, offset + n_images, dtype=torch.float32).view(-1, 1, 1, 1)
    labels = torch.arange(n_images) % n_classes if labelled else None
    return ImageDataset.of(images, labels, [str(index) for index in range(n_classes)], "numbered")


def numbers(split: Split) -> list[int]:
    """Return the numbers of the images in a split."""
    return [int(value) for value in split.inputs.flatten()]


sizes = st.one_of(st.none(), st.integers(1, 15))


@settings(max_examples=150, deadline=None)
@given(
    n_images=st.integers(45, 120),
    n_classes=st.integers(2, 11),
    labelled=st.booleans(),
    wanted=st.tuples(sizes, sizes, sizes),
    seed=st.integers(0, 2**32),
)
def test_splits_are_disjoint_stratified_and_repeatable(
    n_images: int, n_classes: int, labelled: bool, wanted: tuple[int | None, ...], seed: int
) -> None:
    dataset = numbered(n_images, n_classes, labelled=labelled)
    fit_images, search_images, report_images = wanted
    asked = {"fit_images": fit_images, "search_images": search_images, "report_images": report_images}
    splits = make_splits(dataset, **asked, seed=seed)
    again = make_splits(dataset, **asked, seed=seed)
    parts = (splits.fit, splits.search, splits.report)
    dealt = [number for part in parts for number in numbers(part)]
    assert len(set(dealt)) == len(dealt)
    assert all(size in (None, len(part)) for size, part in zip(wanted, parts, strict=True))
    assert len(dealt) == n_images or None not in wanted
    for part, same in zip(parts, (again.fit, again.search, again.report), strict=True):
        assert part.sha256 == same.sha256
        assert part.inputs.equal(same.inputs)
        assert (part.labels is not None) == labelled
        if part.labels is not None:
            assert part.labels.tolist() == [number % n_classes for number in numbers(part)]
            assert int(torch.bincount(part.labels, minlength=n_classes).max()) <= -(-len(part) // n_classes) + 1


def test_default_shares_and_balance() -> None:
    splits = make_splits(load_digits_dataset(), seed=1)
    assert [len(splits.fit), len(splits.search), len(splits.report)] == [1257, 270, 270]
    assert splits.search.labels is not None
    assert (
        24 <= int(torch.bincount(splits.search.labels).min()) <= int(torch.bincount(splits.search.labels).max()) <= 30
    )
    assert [splits.fit.name, splits.search.name, splits.report.name] == ["fit", "search", "report"]
    assert abs(float(splits.fit.inputs.mean())) < 0.05  # the default for digits is to normalise


def test_proportions_follow_the_classes() -> None:
    labels = torch.tensor([0] * 80 + [1] * 20)
    dataset = ImageDataset.of(torch.rand(100, 1, 1, 1), labels, ("a", "b"), "skewed")
    splits = make_splits(dataset, fit_images=50, search_images=10, report_images=20)
    for split, expected in ((splits.fit, [40, 10]), (splits.search, [8, 2]), (splits.report, [16, 4])):
        assert split.labels is not None
        assert torch.bincount(split.labels).tolist() == expected


def test_the_seed_decides_and_torch_does_not() -> None:
    dataset = numbered(60)
    torch.manual_seed(1)
    one = make_splits(dataset, seed=5)
    torch.manual_seed(2)
    assert make_splits(dataset, seed=5).fit.sha256 == one.fit.sha256
    assert make_splits(dataset, seed=6).fit.sha256 != one.fit.sha256
    assert numbers(one.fit) != sorted(numbers(one.fit))
    assert numbers(one.report) == sorted(numbers(one.report))


def test_a_report_dataset_of_its_own_is_the_same_for_every_seed() -> None:
    dataset, test_images = numbered(60), numbered(30, offset=1000)
    whole = make_splits(dataset, report_dataset=test_images)
    assert numbers(whole.report) == list(range(1000, 1030))
    assert len(whole.fit) + len(whole.search) == 60
    few = [make_splits(dataset, report_dataset=test_images, report_images=6, seed=seed).report for seed in (1, 2)]
    assert numbers(few[0]) == numbers(few[1]) == list(range(1000, 1006))


def test_search_code_gets_no_report_split() -> None:
    splits = make_splits(numbered(60))
    seen = splits.for_search()
    assert {field.name for field in fields(seen)} == {"fit", "search"}
    assert seen.fit is splits.fit
    assert seen.search is splits.search


def test_normalisation_is_applied_and_part_of_the_hash() -> None:
    dataset = numbered(60)
    plain = make_splits(dataset, normalization=NONE)
    scaled = make_splits(dataset, normalization=Normalization((1.0,), (2.0,)))
    assert scaled.search.inputs.equal((plain.search.inputs - 1) / 2)
    assert scaled.search.sha256 != plain.search.sha256


def test_overlap_counts_the_same_picture_in_two_splits() -> None:
    splits = make_splits(numbered(60), fit_images=30, search_images=15, report_images=15)
    assert overlap(splits.search, splits.report) == 0
    assert overlap(splits.search, splits.search) == 15
    doubled = ImageDataset.of(torch.zeros(20, 1, 2, 2), None, (), "doubled")
    twins = make_splits(doubled, fit_images=10, search_images=6, report_images=4)
    assert overlap(twins.search, twins.report) == 4


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fit_images": 50, "search_images": 10, "report_images": 1}, "too few images: 60 for the splits fit 50"),
        ({"fit_images": 58, "search_images": 1}, None),
        ({"fit_images": 59, "search_images": 1}, "report at least 1"),
        ({"search_images": 0}, "search split needs at least 1 image, 0 were"),
        ({"report_images": -3}, "report split needs at least 1"),
    ],
)
def test_sizes_that_cannot_be_had(asked: dict[str, int], message: str | None) -> None:
    if message is None:
        assert len(make_splits(numbered(60), **asked).report) == 1
        return
    with pytest.raises(DatasetError, match=message):
        make_splits(numbered(60), **asked)


def test_report_datasets_that_do_not_match() -> None:
    dataset = numbered(60)
    other_shape = ImageDataset.of(torch.zeros(4, 1, 2, 2), torch.arange(4) % 3, ("0", "1", "2"), "other")
    other_names = ImageDataset.of(dataset.images, dataset.labels, ("0", "b", "c"), "other")
    for report_dataset, message in (
        (other_shape, "expected images like those of numbered"),
        (other_names, "has classes 0, b, c, numbered has 0, 1, 2"),
        (numbered(9, labelled=False), "has no labels"),
    ):
        with pytest.raises(DatasetError, match=message):
            make_splits(dataset, report_dataset=report_dataset)
    with pytest.raises(DatasetError, match="99 report images were asked for; it has 9"):
        make_splits(dataset, report_dataset=numbered(9), report_images=99)
    assert len(make_splits(dataset, report_dataset=numbered(9, n_classes=2)).report) == 9
