"""The gradient family against finite differences, plain autograd and what their papers say; all in float64."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.criteria.channels import score_units
from autoprune.criteria.data import CriterionData
from autoprune.criteria.differentiation import batch_gradients, mean_gradients
from autoprune.criteria.gradients import empirical_fisher, gates
from autoprune.criteria.members import Scores, sum_sides, weights_of
from autoprune.criteria.weights import score_weights
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Add, Reshape
from autoprune.network.network import Network, NetworkBuilder
from tests.oracles import randomise
from tests.search.small_problems import small_network

GENERATOR = torch.Generator().manual_seed(7)
DATA = CriterionData(torch.randn(10, 3, 8, 8, generator=GENERATOR), torch.arange(10) % 5, batch_size=4)
STEP = 1e-5


def chain(activation: Callable[[], nn.Module], *, bias: bool = False) -> Network:
    """Convolutions, one of them grouped, a pooling and two linear layers."""
    torch.manual_seed(2)
    b = NetworkBuilder("image", (3, 8, 8))
    x = b.add(activation(), b.add(nn.Conv2d(3, 8, 3, padding=1, bias=bias), b.input, name="conv1"), name="act1")
    x = b.add(activation(), b.add(nn.Conv2d(8, 12, 3, groups=2, bias=bias), x, name="conv2"), name="act2")
    x = b.add(Reshape((-1, 108)), b.add(nn.MaxPool2d(2), x, name="pool"), name="flat")
    x = b.add(activation(), b.add(nn.Linear(108, 16, bias=bias), x, name="hidden"), name="act3")
    return b.finish(b.add(nn.Linear(16, 5, bias=bias), x, name="head"))


def loss_of(module: nn.Module, images: slice = slice(None)) -> Tensor:
    assert DATA.images is not None
    assert DATA.labels is not None
    return F.cross_entropy(module(DATA.images[images].double()), DATA.labels[images])


def central(network: Network, layer: str, place: int, value: Callable[[nn.Module], Tensor]) -> float:
    """Differentiate a number by the factor of one weight, by central differences."""
    found = []
    for factor in (1 + STEP, 1 - STEP):
        module = copy.deepcopy(network.module).double()
        module.get_submodule(layer).get_parameter("weight").data.flatten()[place] *= factor
        found.append(float(value(module).detach()))
    return (found[0] - found[1]) / (2 * STEP)


def squared_gradient(module: nn.Module) -> Tensor:
    weights = [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]
    return sum((g.square().sum() for g in torch.autograd.grad(loss_of(module), weights)), torch.tensor(0.0))


def test_snip_is_the_derivative_by_a_mask_on_the_weight() -> None:
    network = chain(nn.Tanh)
    scores = score_weights(network, "snip", DATA)
    assert sum(float(values.sum()) for values in scores.values()) == pytest.approx(1.0)
    weights, gradients = weights_of(network), mean_gradients(network, DATA)
    total = sum(float((weights[name] * gradients[name]).abs().sum()) for name in weights)
    for layer, place in (("conv1", 5), ("conv2", 100), ("hidden", 77), ("head", 3)):
        expected = abs(central(network, layer, place, loss_of))
        assert float(scores[layer].flatten()[place]) * total == pytest.approx(expected, rel=1e-6)


def test_grasp_is_half_of_what_the_squared_gradient_loses_to_first_order() -> None:
    network = chain(nn.Tanh)
    scores = score_weights(network, "grasp", DATA)
    for layer, place in (("conv1", 5), ("conv2", 100), ("hidden", 77), ("head", 3)):
        expected = central(network, layer, place, squared_gradient) / 2
        assert float(scores[layer].flatten()[place]) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_fisher_is_the_mean_of_squared_gradients_of_single_images() -> None:
    network = chain(nn.ReLU, bias=True)
    module = copy.deepcopy(network.module).double()
    squares = {name: torch.zeros_like(weight) for name, weight in weights_of(network).items()}
    for image in range(10):
        module.zero_grad()
        loss_of(module, slice(image, image + 1)).backward()
        for name, total in squares.items():
            gradient = module.get_submodule(name).get_parameter("weight").grad
            assert gradient is not None
            total += gradient.square() / 10
    found, scores = empirical_fisher(network, DATA), score_weights(network, "fisher", DATA)
    for name, expected in squares.items():
        assert torch.allclose(found[name], expected, rtol=1e-10, atol=0)
        assert torch.allclose(scores[name], weights_of(network)[name] ** 2 * expected / 2, rtol=1e-10, atol=0)


def test_minibatches_count_by_their_images() -> None:
    network = chain(nn.ReLU, bias=True)
    module = copy.deepcopy(network.module).double()
    weight = module.get_submodule("conv2").get_parameter("weight")
    by_batch = []
    for images in (slice(0, 4), slice(4, 8), slice(8, 10)):
        (gradient,) = torch.autograd.grad(loss_of(module, images), weight)
        by_batch.append((gradient * weight.detach()).square())
    expected = 0.4 * by_batch[0] + 0.4 * by_batch[1] + 0.2 * by_batch[2]
    assert torch.allclose(score_weights(network, "taylor", DATA)["conv2"], expected, rtol=1e-10, atol=0)
    (whole,) = torch.autograd.grad(loss_of(module), weight)
    assert torch.allclose(score_weights(network, "gradient", DATA)["conv2"], whole.abs(), rtol=1e-9, atol=1e-15)


def test_a_gate_behind_batch_norm_is_its_scale_and_shift_together() -> None:
    network = randomise(small_network(), 3)
    groups = find_groups(network)
    assert gates(network, groups)[:3] == (
        "norm0",
        "norm1",
        "depthwise",
    )  # the last makes what norm2 lets through once more
    module = copy.deepcopy(network.module).double()
    norm = module.get_submodule("norm1")
    scale, shift = norm.get_parameter("weight"), norm.get_parameter("bias")
    expected = torch.zeros(24, dtype=torch.float64)
    for images, share in ((slice(0, 4), 0.4), (slice(4, 8), 0.4), (slice(8, 10), 0.2)):
        by_scale, by_shift = torch.autograd.grad(loss_of(module, images), [scale, shift])
        expected += share * (by_scale * scale + by_shift * shift).detach().square()
    (group,) = (group for group in groups.groups if group.name == "conv1")
    found = score_units(network, groups, "taylor-gate", DATA)[list(group.units)]
    assert np.allclose(found, expected.numpy(), rtol=1e-9)


def test_without_offsets_gates_and_members_say_the_same() -> None:
    """What makes a unit and what reads it have its gate's derivative each, so that members have it twice."""
    network = chain(nn.ReLU)
    groups = find_groups(network)
    gate, members = (score_units(network, groups, name, DATA) for name in ("taylor-gate", "group-taylor"))
    for group in groups.prunable():
        own = list(group.units)
        assert np.allclose(members[own], 4 * gate[own], rtol=1e-9)


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_unit_that_a_depthwise_layer_makes_again_has_one_gate(shortcut: bool) -> None:
    """Its two makers and its reader have the gate's derivative each; a shortcut around it is behind that gate too."""
    torch.manual_seed(4)
    b = NetworkBuilder("image", (3, 8, 8))
    inner = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 6, 1, bias=False), b.input, name="point"), name="act1")
    x = b.add(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), inner, name="depth")
    x = b.add(Add(), x, inner, name="sum") if shortcut else x
    x = b.add(nn.Conv2d(6, 5, 1, bias=False), b.add(nn.ReLU(), x, name="act2"), name="reader")
    network = b.finish(b.add(Reshape((-1, 5)), b.add(nn.AdaptiveAvgPool2d(1), x, name="pool"), name="flat"))
    groups = find_groups(network)
    assert gates(network, groups)[0] == ("point" if shortcut else "depth")
    (group,) = (each for each in groups.groups if each.name == "point")
    own = list(group.units)
    gate, members = (score_units(network, groups, name, DATA)[own] for name in ("taylor-gate", "group-taylor"))
    if not shortcut:
        assert np.allclose(members, 9 * gate, rtol=1e-9)
    by_weight = _by_reader(network, "reader")
    assert gate.any()
    assert np.allclose(gate, by_weight, rtol=1e-9)


def _by_reader(network: Network, reader: str) -> Scores:
    """Return the squared sum of g w over what reads each channel, the mean over minibatches."""
    module = copy.deepcopy(network.module).double()
    weight = module.get_submodule(reader).get_parameter("weight")
    total = torch.zeros(weight.shape[1], dtype=torch.float64)
    for images, share in ((slice(0, 4), 0.4), (slice(4, 8), 0.4), (slice(8, 10), 0.2)):
        (gradient,) = torch.autograd.grad(loss_of(module, images), weight)
        total += share * (gradient * weight.detach()).sum((0, 2, 3)).square()
    return total.numpy()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_gradient_times_weight_is_conserved_in_every_unit_and_layer(activation: Callable[[], nn.Module]) -> None:
    """Tanaka et al. 2020, theorem 1, for networks without offsets."""
    network = chain(activation)
    groups = find_groups(network)
    for _, gradients in batch_gradients(network, DATA):
        products = {name: gradients[name] * weight for name, weight in weights_of(network).items()}
        made, read = sum_sides(network, groups, products)
        scale = max(float(values.abs().sum()) for values in products.values())
        for group in groups.prunable():
            assert np.allclose(made[list(group.units)], read[list(group.units)], rtol=1e-5, atol=1e-5 * scale)
        totals = [float(values.sum()) for values in products.values()]
        assert np.allclose(totals, totals[0], rtol=1e-5, atol=1e-5 * scale)
