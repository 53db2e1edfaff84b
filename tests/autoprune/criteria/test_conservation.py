"""What goes into hidden units comes out of them, for scores that say so, and the check finds those that do not."""

import pytest
import torch
from torch import nn

from autoprune.criteria.conservation import conservation, inevitable
from autoprune.criteria.data import CriterionData
from autoprune.criteria.gradients import sensitivities, snip
from autoprune.criteria.members import producers
from autoprune.criteria.weights import score_weights
from autoprune.groups.channel_group import find_groups
from autoprune.network.layers import Add, Reshape
from autoprune.network.network import Network, NetworkBuilder
from autoprune.network.tracer import trace
from autoprune.zoo.vgg import VGG
from tests.oracles import randomise
from tests.search.small_problems import small_network


def relu_network(*, bias: bool = False) -> Network:
    """Convolutions, one of them depthwise, a shortcut, both kinds of pools, two linear layers; no batch norm."""
    torch.manual_seed(0)
    b = NetworkBuilder("image", (3, 8, 8))
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(3, 6, 3, bias=bias), b.input, name="stem"), name="relu0")
    x = b.add(nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=bias), x, name="depthwise")
    x = stream = b.add(nn.ReLU(), x, name="relu1")
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(6, 5, 3, padding=1, bias=bias), x, name="inner"), name="relu2")
    x = b.add(Add(), b.add(nn.Conv2d(5, 6, 3, padding=1, bias=bias), x, name="back"), stream, name="add")
    x = b.add(nn.MaxPool2d(2), b.add(nn.ReLU(), x, name="relu3"), name="max")
    x = b.add(nn.ReLU(), b.add(nn.Conv2d(6, 7, 2, bias=bias), x, name="last"), name="relu4")
    x = b.add(Reshape((-1, 28)), x, name="flat")
    x = b.add(nn.ReLU(), b.add(nn.Linear(28, 9, bias=bias), x, name="fc"), name="relu5")
    return b.finish(b.add(nn.Linear(9, 4), x, name="head"))


def data() -> CriterionData:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, 8, 8, generator=generator)
    return CriterionData(images, torch.randint(0, 4, (12,), generator=generator), batch_size=5)


def test_layers_that_all_paths_go_through() -> None:
    assert inevitable(relu_network()) == ("stem", "depthwise", "last", "fc", "head")
    assert inevitable(small_network()) == tuple(name for name, _ in producers(small_network()))


@pytest.mark.parametrize("bias", [False, True])
def test_synflow_is_conserved_with_and_without_biases(bias: bool) -> None:
    for network in (relu_network(bias=bias), randomise(small_network(), 1)):
        found = conservation(network, find_groups(network), score_weights(network, "synflow"))
        assert found.worst < 1e-10
        assert len(found.units) >= 3


def test_scores_like_those_of_snip_are_conserved_without_biases() -> None:
    network = relu_network()
    groups = find_groups(network)
    assert {group.name for group in groups.prunable(include_residual=True)} == {"stem", "inner", "last", "fc"}
    assert conservation(network, groups, sensitivities(network, data())).worst < 1e-10
    assert conservation(network, groups, snip(network, data())).worst > 1e-3  # absolute values are not


def test_batch_norms_as_they_are_initialised_conserve() -> None:
    torch.manual_seed(0)
    network = trace(VGG((6, 0, 8, 0, 5), 4, (3, 8, 8)), (3, 8, 8))
    found = conservation(network, find_groups(network), sensitivities(network, data()))
    assert found.worst < 1e-10
    assert len(found.layers) == 4


def test_what_is_not_conserved_is_found() -> None:
    network = relu_network(bias=True)
    groups = find_groups(network)
    found = conservation(network, groups, sensitivities(network, data()))
    assert found.units["stem"] > 1e-3
    assert max(found.layers.values()) > 1e-3
    assert conservation(network, groups, score_weights(network, "l1")).worst > 0.1
