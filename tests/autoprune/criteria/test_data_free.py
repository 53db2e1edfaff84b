"""Criteria that look at weights alone, against slow and plain computations."""

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.criteria.channels import score_units
from autoprune.criteria.data import CriterionData, criterion_data
from autoprune.criteria.members import filters
from autoprune.criteria.weights import score_weights
from autoprune.datasets.splits import Split
from autoprune.errors import CriterionError, DatasetError, NumericalError, UnknownNameError
from autoprune.groups.channel_group import find_groups
from autoprune.network.batchnorm import insert_batchnorm
from autoprune.network.layers import Add, Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.training.slimming import gamma_scores
from tests.search.small_problems import real_splits, small_network


def residual() -> Network:
    """Two convolutions, one transposed, whose outputs are added, and one that reads the sum."""
    torch.manual_seed(1)
    b = NetworkBuilder("image", (3, 6, 6))
    one = b.add(nn.Conv2d(3, 6, 3, padding=1), b.input, name="one")
    two = b.add(nn.ConvTranspose2d(3, 6, 3, padding=1), b.input, name="two")
    return b.finish(b.add(nn.Conv2d(6, 2, 1), b.add(Add(), one, two, name="add"), name="read"))


def weight(network: Network, name: str) -> torch.Tensor:
    return network.module.get_submodule(name).get_parameter("weight").detach().double()


def test_magnitudes_are_summed_over_all_members() -> None:
    network = residual()
    groups = find_groups(network)
    (group,) = groups.prunable(include_residual=True)
    one, two, read = (weight(network, name) for name in ("one", "two", "read"))
    for power, criterion in ((1, "l1"), (2, "l2")):
        expected = [
            sum(float(part.abs().pow(power).sum()) for part in (one[i], two[:, i], read[:, i])) for i in range(6)
        ]
        scores = score_units(network, groups, criterion)[list(group.units)]
        assert np.allclose(scores, np.array(expected) ** (1 / power), rtol=1e-12)


def test_the_filter_nearest_to_all_others_goes_first() -> None:
    network = residual()
    groups = find_groups(network)
    (group,) = groups.prunable(include_residual=True)
    one, two = weight(network, "one"), weight(network, "two")
    rows = [torch.cat([one[i].flatten(), two[:, i].flatten()]) for i in range(6)]
    assert torch.equal(filters(network, groups, group), torch.stack(rows))
    expected = [sum(float((a - b).norm()) for b in rows) for a in rows]
    assert np.allclose(score_units(network, groups, "fpgm")[list(group.units)], expected, rtol=1e-12)


def test_readers_share_out_one_among_their_inputs() -> None:
    network = small_network()
    groups = find_groups(network)
    scores = score_units(network, groups, "next-layer")
    for group in groups.prunable():
        assert scores[list(group.units)].sum() == pytest.approx(1.0)  # each has one reader besides depthwise ones
    first = groups.groups[0]
    shares = weight(network, "conv1").abs().sum((0, 2, 3)) / weight(network, "conv1").abs().sum()
    assert np.allclose(scores[list(first.units)], shares.numpy())


def test_lamp_is_the_share_of_what_is_no_smaller() -> None:
    network = small_network()
    scores = score_weights(network, "lamp")
    for name, values in scores.items():
        squares = weight(network, name).flatten().square()
        for place in (0, 7, len(squares) - 1):
            expected = float(squares[place] / squares[squares >= squares[place]].sum())
            assert float(values.flatten()[place]) == pytest.approx(expected)
        assert float(values.max()) == 1.0
    groups = find_groups(network)
    norms, units = score_units(network, groups, "l2"), score_units(network, groups, "lamp")
    for group in groups.prunable():
        own = list(group.units)
        assert np.array_equal(np.argsort(norms[own]), np.argsort(units[own]))
        assert units[own].max() == 1.0


def test_random_scores_follow_the_seed() -> None:
    network = small_network()
    groups = find_groups(network)
    first, again, other = (score_units(network, groups, "random", CriterionData(seed=seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    one, two = (score_weights(network, "random", CriterionData(seed=seed))["head"] for seed in (0, 1))
    assert not torch.equal(one, two)


def test_gammas_of_trained_batch_norms_count_and_no_others() -> None:
    network = small_network((8, 8))
    groups = find_groups(network)
    gammas = torch.linspace(-2, 2, 8)
    network.module.get_submodule("norm0").get_parameter("weight").data.copy_(gammas)
    assert np.allclose(score_units(network, groups, "bn-gamma")[list(groups.groups[0].units)], gammas.abs())
    restored = insert_batchnorm(residual())
    with pytest.raises(CriterionError, match=r"group 'one' has none; one that was put back .* is none; choose another"):
        score_units(restored, find_groups(restored), "bn-gamma")


def test_scores_that_say_nothing_are_refused() -> None:
    for value, message in ((float("nan"), "a score of group 'conv0' is not finite"), (0.0, "all scores of group")):
        network = small_network()
        groups = find_groups(network)
        for name in ("conv0", "conv1"):
            network.module.get_submodule(name).get_parameter("weight").data.fill_(value)
        with pytest.raises(NumericalError, match=f"criterion 'l1': {message}.*choose criterion 'l2'"):
            score_units(network, groups, "l1")
        layer = message.replace("group", "layer")
        with pytest.raises(NumericalError, match=f"criterion 'l1': {layer}"):
            score_weights(network, "l1")


def test_unknown_criteria_are_refused() -> None:
    network = small_network()
    groups = find_groups(network)
    with pytest.raises(UnknownNameError, match=r"unknown criterion 'l3'\. .*Known: apoz, bn-gamma, "):
        score_units(network, groups, "l3")
    with pytest.raises(UnknownNameError, match="unknown weight criterion 'fpgm'"):
        score_weights(network, "fpgm")
    with pytest.raises(UnknownNameError, match="unknown criterion that scores single channels 'obs'"):
        score_units(network, groups, "obs")


def test_data_is_a_bounded_draw_from_the_fit_split() -> None:
    splits = real_splits()
    data = criterion_data(splits.fit, images=10, seed=4)
    assert data.images is not None
    assert data.labels is not None
    pairs = {(image.sum().item(), int(label)) for image, label in zip(data.images, data.labels, strict=True)}
    whole = zip(splits.fit.inputs, splits.fit.labels if splits.fit.labels is not None else (), strict=True)
    assert pairs < {(image.sum().item(), int(label)) for image, label in whole}
    assert len(pairs) == 10
    again = criterion_data(splits.fit, images=10, seed=4).images
    assert again is not None
    assert torch.equal(data.images, again)
    everything = criterion_data(Split(splits.fit.inputs, None, "fit", "sha"))
    assert everything.images is not None
    assert everything.labels is None
    assert len(everything.images) == len(splits.fit)
    with pytest.raises(DatasetError, match="fit split, found the search split"):
        criterion_data(splits.search)
    with pytest.raises(DatasetError, match="at least 1 image, found 0"):
        criterion_data(splits.fit, images=0)


def test_gammas_of_batch_norms_in_a_row_are_averaged_as_slimming_does() -> None:
    """Channels behind two batch norms compare with those behind one."""
    b = NetworkBuilder("image", (3, 4, 4))
    x = b.add(nn.BatchNorm2d(6), b.add(nn.Conv2d(3, 6, 1), b.input, name="point"), name="norm1")
    x = b.add(nn.BatchNorm2d(6), b.add(nn.Conv2d(6, 6, 3, groups=6), x, name="depth"), name="norm2")
    x = b.add(nn.AdaptiveAvgPool2d(1), b.add(nn.Conv2d(6, 5, 1), x, name="reader"), name="pool")
    network = b.finish(b.add(Reshape((-1, 5)), x, name="flat"))
    network.module.get_submodule("norm2").get_parameter("weight").data.fill_(-0.5)
    groups = find_groups(network)
    (group,) = groups.prunable()
    own = list(group.units)
    found = score_units(network, groups, "bn-gamma")[own]
    assert found.tolist() == [0.75] * 6 == gamma_scores(network, groups)[own].tolist()
