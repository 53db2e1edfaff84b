"""Masks that leave no path from image to output are found before they are applied, and the layer is named."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.errors import PlanError
from autoprune.network.layers import Add, Constant, Mul, Reshape
from autoprune.network.masked import masked
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.training.layer_collapse import check_collapse, find_collapse, maximal_critical_compression
from autoprune.training.masks import full_masks, smaller_masks
from autoprune.training.weight_scores import magnitude, weights_of
from tests.corpus import NETWORKS, images, input_shape
from tests.search.small_problems import small_network


@cache
def perceptron() -> Network:
    """Three linear layers."""
    b = NetworkBuilder("image", (4, 1, 1))
    x = b.add(Reshape((-1, 4)), b.input, name="flat")
    for number, (into, out) in enumerate(((4, 5), (5, 3), (3, 2))):
        x = b.add(nn.ReLU(), b.add(nn.Linear(into, out), x, name=f"fc{number}"), name=f"relu{number}")
    return b.finish(x)


def residual() -> Network:
    """A convolution, a block around which there is a shortcut, and a head."""
    b = NetworkBuilder("image", (3, 4, 4))
    stem = b.add(nn.Conv2d(3, 4, 3, padding=1), b.input, name="stem")
    inner = b.add(nn.BatchNorm2d(4), b.add(nn.Conv2d(4, 4, 3, padding=1), stem, name="inner"), name="norm")
    joined = b.add(Add(), inner, stem, name="add")
    flat = b.add(Reshape((-1, 4)), b.add(nn.AdaptiveAvgPool2d(1), joined, name="pool"), name="flat")
    return b.finish(b.add(nn.Linear(4, 2), flat, name="head"))


@given(st.floats(0.05, 0.6), st.integers(0, 10_000))
def test_a_path_is_there_exactly_where_the_product_of_the_masks_is_not_zero(density: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.rand(w.shape, generator=generator) < density for name, w in weights_of(perceptron()).items()}
    reached = np.ones(4, dtype=bool)
    cut = None
    for name, mask in masks.items():
        following = (mask.numpy() & reached).any(1)
        if cut is None and not following.any():
            cut = name
        reached = following
    found = find_collapse(perceptron(), masks)
    assert found.cut == (() if cut is None else (cut,))
    assert found.empty == tuple(name for name, mask in masks.items() if not mask.any())


def test_a_layer_that_hears_only_dead_channels_cuts_the_network() -> None:
    network = small_network()
    masks = full_masks(network)
    masks["conv0"][3:] = False
    masks["conv1"][:, :3] = False
    with pytest.raises(PlanError, match="layer collapse: 'conv1' would let nothing of the image through"):
        check_collapse(network, masks)
    masks["conv1"][7, 2] = True
    check_collapse(network, masks)


def test_channels_with_a_gamma_of_zero_are_closed() -> None:
    network = small_network()
    with torch.no_grad():
        network.layers()["norm1"].get_parameter("weight").zero_()
    assert find_collapse(network, {}).cut == ("norm1",)


def test_an_empty_block_beside_a_shortcut_is_named_and_cuts_nothing() -> None:
    network = residual()
    masks = full_masks(network)
    masks["inner"][:] = False
    found = find_collapse(network, masks)
    assert (found.empty, found.cut) == (("inner",), ())
    with pytest.raises(PlanError, match="'inner' would be left without a weight"):
        check_collapse(network, masks)


def test_global_magnitude_collapses_a_layer_of_small_weights_and_shares_per_layer_do_not() -> None:
    network = small_network()
    with torch.no_grad():
        network.layers()["conv2"].get_parameter("weight").mul_(1e-4)
    share = 0.3
    with pytest.raises(PlanError, match="layer collapse: 'conv2'"):
        check_collapse(network, smaller_masks(full_masks(network), magnitude(network), share))
    check_collapse(network, smaller_masks(full_masks(network), magnitude(network), share, "layer"))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_networks_of_every_kind_have_paths_until_their_weights_are_gone(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    full = full_masks(network)
    assert find_collapse(network, full).cut == ()
    first = next(iter(full))
    nothing: dict[str, Tensor] = {layer: torch.zeros_like(mask) for layer, mask in full.items()}
    assert first in find_collapse(network, nothing).cut
    one = full | {first: nothing[first]}
    if find_collapse(network, one).cut:  # what is cut does not depend on the image
        module = masked(network, one).module
        a, b = images(name, 2).split(1)
        assert torch.allclose(module(a), module(b), atol=1e-6)


def test_maximal_critical_compression_is_one_weight_per_layer() -> None:
    network = perceptron()
    assert maximal_critical_compression(network) == (20 + 15 + 6) / 3
    one_each = {name: torch.zeros_like(mask) for name, mask in full_masks(network).items()}
    for mask in one_each.values():
        mask[0, 0] = True
    check_collapse(network, one_each)


def gated(gate: type[nn.Module]) -> Network:
    """Two branches of one image multiplied, one behind an activation, and the product scaled by a constant."""
    b = NetworkBuilder("image", (3, 4, 4))
    main = b.add(nn.Conv2d(3, 4, 1, bias=False), b.input, name="main")
    factor = b.add(gate(), b.add(nn.Conv2d(3, 4, 1, bias=False), b.input, name="gate"), name="act")
    x = b.add(Mul(), main, factor, name="product")
    x = b.add(Mul(), x, b.add(Constant(torch.tensor(2.0)), name="two"), name="scaled")
    return b.finish(b.add(Reshape((-1, 4)), b.add(nn.AdaptiveAvgPool2d(1), x, name="pool"), name="flat"))


@pytest.mark.parametrize("gate", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Hardsigmoid])
@pytest.mark.parametrize("closed", ["main", "gate", ""])
def test_a_product_is_cut_exactly_where_its_output_no_longer_depends_on_the_image(
    gate: type[nn.Module], closed: str
) -> None:
    network = gated(gate)
    masks = dict(full_masks(network))
    if closed:
        masks[closed] = torch.zeros_like(masks[closed])
    module = masked(network, masks).module
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        constant = torch.unique(module(images), dim=0).shape[0] == 1
    assert bool(find_collapse(network, masks).cut) == constant
