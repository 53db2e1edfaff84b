"""Criteria that watch activations, against activations computed by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoprune.criteria.channels import score_units
from autoprune.criteria.data import CriterionData
from autoprune.errors import CriterionError
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Add, Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from tests.corpus import NETWORKS, images, input_shape
from tests.oracles import randomise
from tests.search.small_problems import small_network

DATA = CriterionData(torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(7)), batch_size=4)


def first_activations(network: Network) -> torch.Tensor:
    assert DATA.images is not None
    conv, norm = (network.module.get_submodule(name) for name in ("conv0", "norm0"))
    return F.relu(norm(conv(DATA.images))).detach()


def test_scores_are_means_over_images_and_positions() -> None:
    network = randomise(small_network(), 1)
    groups = find_groups(network)
    passed = first_activations(network)
    own = list(groups.groups[0].units)
    alive = (passed > 0).double().mean((0, 2, 3)).numpy()
    assert np.allclose(score_units(network, groups, "apoz", DATA)[own], alive)
    means = passed.mean((0, 2, 3)).numpy()
    assert np.allclose(score_units(network, groups, "mean-activation", DATA)[own], means, rtol=1e-5)


def test_all_relus_of_a_residual_stream_count() -> None:
    torch.manual_seed(3)
    b = NetworkBuilder("image", (3, 8, 8))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 6, 3), b.input, name="one"), name="relu1")
    y = b.add(Add(), x, b.add(nn.Conv2d(6, 6, 3, padding=1), x, name="two"), name="add")
    y = b.add(nn.AdaptiveAvgPool2d(1), b.add(nn.ReLU(), y, name="relu2"), name="pool")
    network = b.finish(b.add(nn.Linear(6, 2), b.add(Reshape((-1, 6)), y, name="flat"), name="head"))
    one, two = (network.module.get_submodule(name) for name in ("one", "two"))
    assert DATA.images is not None
    first = F.relu(one(DATA.images))
    expected = torch.stack([first, F.relu(first + two(first))]).mean((0, 1, 3, 4)).detach()
    groups = find_groups(network)
    (stream,) = groups.prunable(include_residual=True)
    found = score_units(network, groups, "mean-activation", DATA)[list(stream.units)]
    assert np.allclose(found, expected.numpy(), rtol=1e-5)


def test_a_group_without_a_relu_is_named() -> None:
    network = trace(NETWORKS["mobilenet_v2"](), input_shape("mobilenet_v2"))
    with pytest.raises(CriterionError, match=r"'apoz' needs a ReLU behind every pruned group; group '.*' has none;"):
        score_units(network, find_groups(network), "apoz", CriterionData(images("mobilenet_v2")))
