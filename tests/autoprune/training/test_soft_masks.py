"""Soft masks: one factor per channel, the penalty's proximal step, and cuts that change nothing."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.errors import SearchError
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.pruning.surgery import prune
from autoprune.training.slimming import usual_strength
from autoprune.training.soft_masks import SoftMask, soft_threshold, train_soft_masks, with_factors, without_factors
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, accuracy, digits_network, digits_splits
from tests.corpus import NETWORKS, images, input_shape


def test_the_proximal_step_minimises_what_it_should() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, dtype=torch.float64, generator=generator)
    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    objective = (grid[None] - values[:, None]).square() / 2 + 0.3 * grid.abs()
    assert torch.allclose(soft_threshold(values, 0.3), grid[objective.argmin(1)], atol=1e-4)
    assert bool((soft_threshold(values, 0.3)[values.abs() < 0.3] == 0).all())


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_factors_multiplied_into_layers_are_the_same_function(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    groups = find_groups(network)
    chosen = groups.prunable(include_residual=True)
    soft = with_factors(network, groups, chosen)
    x = images(name, 2).double()
    soft.module.double().eval()
    whole = without_factors(soft).module
    with torch.no_grad():
        assert torch.allclose(whole(x), network.module.double()(x), atol=1e-12)
        if not chosen:
            return
        factors = next(layer.factors for layer in soft.module.modules() if isinstance(layer, SoftMask))
        factors.copy_(torch.rand(len(factors), dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        assert torch.allclose(without_factors(soft).module(x), soft.module(x), rtol=1e-10, atol=1e-10)


def test_factors_of_trained_masks_are_zero_and_their_channels_can_be_cut_as_they_are() -> None:
    fit = digits_splits().fit
    assert fit.labels is not None
    settings = replace(FROM_SCRATCH, epochs=10)
    strength = usual_strength(settings, len(fit))
    found = train_soft_masks(digits_network(), fit.inputs, fit.labels, settings, strength, device=CPU)
    factors = np.concatenate(list(found.factors.values()))
    assert 0.2 < np.mean(factors == 0) < 0.95
    cut = prune(found.network, found.groups, found.plan())
    assert accuracy(cut) == accuracy(found.network.module) > 0.93
    x = digits_splits().search.inputs[:50]
    torch.testing.assert_close(cut(x), found.network.module(x), rtol=1e-4, atol=1e-4)
    for share, kept in ((0.5, 60), (1 - 0.9, 108)):
        assert sum(len(indices) for indices in found.plan(share).kept.values()) == kept
    with pytest.raises(SearchError, match="from 0 to below 1, found 1"):
        found.plan(1.0)


def test_at_the_minimum_gradients_balance_the_penalty() -> None:
    """D L / d m = -strength * sign(m) where m is not 0, and at most as large where it is."""
    b = NetworkBuilder("image", (6, 1, 1))
    x = b.add(nn.Linear(6, 8), b.add(Reshape((-1, 6)), b.input, name="flat"), name="one")
    network = b.finish(b.add(nn.Linear(8, 3), b.add(nn.ReLU(), x, name="relu"), name="two"))
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, 1, 1, generator=generator)
    labels = torch.randint(0, 3, (64,), generator=generator)
    strength = 0.02
    training = replace(FROM_SCRATCH, epochs=1500, batch_size=64, learning_rate=0.1, weight_decay=0.01)
    found = train_soft_masks(network, inputs, labels, training, strength, device=CPU)
    factors = found.factors["one"]
    groups = find_groups(network)
    soft = with_factors(_unfolded(found.network, factors), groups, groups.prunable())
    parameter = next(layer.factors for layer in soft.module.modules() if isinstance(layer, SoftMask))
    units = list(groups.prunable()[0].units)
    with torch.no_grad():
        parameter[units] = torch.from_numpy(factors).float()
    slope = torch.autograd.grad(nn.functional.cross_entropy(soft.module(inputs), labels), parameter)[0][units].numpy()
    alive = factors != 0
    assert 0 < alive.sum() < len(factors)
    np.testing.assert_allclose(slope[alive], -strength * np.sign(factors[alive]), atol=0.1 * strength)


def _unfolded(network: Network, factors: NDArray[np.float64]) -> Network:
    """Take the factors out of the first layer again; nothing can be said of what was multiplied by 0."""
    module = copy.deepcopy(network.module)
    layer = module.get_submodule("one")
    assert isinstance(layer, nn.Linear)
    scale = torch.from_numpy(np.where(factors == 0, 1.0, factors)).float()
    with torch.no_grad():
        layer.weight /= scale[:, None]
        layer.bias /= scale
    return Network(module, network.input_shape, network.shapes)


def test_what_does_not_fit_is_refused() -> None:
    fit = digits_splits().fit
    assert fit.labels is not None
    adam = replace(FROM_SCRATCH, optimizer="adamw")
    with pytest.raises(SearchError, match="need optimizer 'sgd'"):
        train_soft_masks(digits_network(), fit.inputs, fit.labels, adam, 0.1)
