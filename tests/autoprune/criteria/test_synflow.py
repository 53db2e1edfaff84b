"""SynFlow: its closed form for a chain of linear layers, and what it conserves."""

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.criteria.channels import score_units
from autoprune.criteria.members import sum_sides, weights_of
from autoprune.criteria.weights import score_weights
from autoprune.errors import NumericalError
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Constant, Div, Reshape, Sub
from autoprune.network.network import Network, NetworkBuilder
from tests.oracles import randomise
from tests.search.small_problems import small_network


def linear_chain() -> Network:
    torch.manual_seed(0)
    b = NetworkBuilder("image", (2, 2, 2))
    x = b.add(Reshape((-1, 8)), b.input, name="flat")
    for name, inputs, outputs in (("one", 8, 6), ("two", 6, 7), ("three", 7, 3)):
        x = b.add(nn.Linear(inputs, outputs), x, name=name)
    return b.finish(x)


def test_a_chain_of_linear_layers_has_a_closed_form() -> None:
    network = linear_chain()
    scores = score_weights(network, "synflow")
    one, two, three = (weight.abs() for weight in weights_of(network).values())
    behind, before = torch.ones(3, dtype=torch.float64) @ three, one @ torch.ones(8, dtype=torch.float64)
    assert torch.allclose(scores["one"], ((behind @ two)[:, None] * one), rtol=1e-12)
    assert torch.allclose(scores["two"], behind[:, None] * two * before[None], rtol=1e-12)
    assert torch.allclose(scores["three"], three * (two @ before)[None], rtol=1e-12)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_flow_is_conserved_in_every_unit_and_layer(share: float) -> None:
    """With trained batch norm, biases, strides and a depthwise layer, whole and masked."""
    network = randomise(small_network(), 1)
    groups = find_groups(network)
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(w.shape, generator=generator) < share for n, w in weights_of(network).items()}
    scores = score_weights(network, "synflow", masks=masks)
    for name, values in scores.items():
        assert bool((values >= 0).all())
        assert not values[~masks[name]].any()
    made, read = sum_sides(network, groups, scores)
    for group in groups.prunable():
        times = len(group.producers)  # a depthwise layer makes its channels once more
        assert np.allclose(made[list(group.units)], times * read[list(group.units)], rtol=1e-5)
    totals = [float(values.sum()) for values in scores.values()]
    assert np.allclose(totals, totals[0], rtol=1e-5)


def test_offsets_and_saturation_play_no_part() -> None:
    plain = randomise(small_network(), 1)
    other = randomise(small_network(), 1)
    other.module.get_submodule("norm0").get_parameter("bias").data.fill_(-100.0)
    other.module.get_submodule("head").get_parameter("bias").data.fill_(100.0)
    norm = other.module.get_submodule("norm1")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = torch.full_like(norm.bias, 50.0)
    groups = find_groups(plain)
    assert np.array_equal(score_units(plain, groups, "synflow"), score_units(other, groups, "synflow"))


def test_a_network_that_normalises_its_own_images_is_scored_as_without() -> None:
    """(x - mean) / std with a mean above the 1 of the image: a factor on all scores, and no change of sign."""
    torch.manual_seed(0)
    b = NetworkBuilder("image", (2, 2, 2))
    x = b.add(Sub(), b.input, b.add(Constant(torch.full((2, 1, 1), 5.0)), name="mean"), name="centred")
    x = b.add(Div(), x, b.add(Constant(torch.full((2, 1, 1), 0.5)), name="std"), name="scaled")
    x = b.add(Reshape((-1, 8)), x, name="flat")
    for name, inputs, outputs in (("one", 8, 6), ("two", 6, 7), ("three", 7, 3)):
        x = b.add(nn.Linear(inputs, outputs), x, name=name)
    expected = score_weights(linear_chain(), "synflow")
    for name, values in score_weights(b.finish(x), "synflow").items():
        assert torch.allclose(values, 2 * expected[name], rtol=1e-12)


def test_a_flow_whose_sign_is_turned_is_refused() -> None:
    b = NetworkBuilder("image", (1, 1, 1))
    x = b.add(Reshape((-1, 1)), b.input, name="flat")
    linear, norm = nn.Linear(1, 3), nn.LayerNorm(3)
    linear.weight.data = torch.tensor([[1.0], [2.0], [9.0]])
    norm.weight.data = torch.tensor([5.0, 1.0, 0.1])  # the smallest flows weigh most, and lie below the mean
    network = b.finish(b.add(norm, b.add(linear, x, name="one"), name="norm"))
    with pytest.raises(NumericalError, match="expected a positive flow"):
        score_weights(network, "synflow")
