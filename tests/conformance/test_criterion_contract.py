"""What every criterion must do, on many kinds of networks."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from autoprune.criteria import channels, weights
from autoprune.criteria.catalog import CRITERIA, OBS, criterion_names
from autoprune.criteria.channels import ranking, score_units
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.criteria.members import Scores, weights_of
from autoprune.criteria.weights import score_weights
from autoprune.errors import AutopruneError, CriterionError, NumericalError
from autoprune.groups.channel_group import ChannelGroups, find_groups
from autoprune.network.network import Network
from autoprune.network.tracer import trace
from autoprune.pruning.plan import Plan
from autoprune.pruning.verify import masked_error
from tests.corpus import NETWORKS, images, input_shape
from tests.permuted import permuted

CHANNEL_CRITERIA = [name for name in criterion_names("channel") if name != OBS]

#: Networks without labels: their output is an image.
_DENSE = {"unet", "upsampler"}

#: Where a prunable group has none of what a criterion looks at.
_WITHOUT = {
    "batch norm": {"vgg", "lenet", "se_conv", "se_linear", "unet", "irregular", "vit_token", "vit_mean", "convnext"},
    "relu": {"lenet", "mobilenet_v2", "unet", "irregular", "vit_token", "vit_mean", "upsampler", "convnext"},
    "labels": _DENSE,
}

#: Networks with a group that no image passes: who asks the loss or watches activations cannot rank it.
_DEAD = {"inception": "2.one.0"}

on_every_network = pytest.mark.parametrize("name", sorted(NETWORKS))
by_channel = pytest.mark.parametrize("criterion", CHANNEL_CRITERIA)
by_weight = pytest.mark.parametrize("criterion", criterion_names("weight"))


@cache
def network_of(name: str) -> tuple[Network, ChannelGroups]:
    network = trace(NETWORKS[name](), input_shape(name))
    return network, find_groups(network)


def data_of(name: str) -> CriterionData:
    """Eight images with labels, in two minibatches and a rest; without labels where the output is an image."""
    network, _ = network_of(name)
    labels = None if name in _DENSE else torch.arange(8) % network.output_shape[0]
    return CriterionData(images(name, 8), labels, seed=3, batch_size=3)


def applies(criterion: str, name: str) -> bool:
    return not any(name in _WITHOUT.get(need, ()) for need in CRITERIA[criterion].needs) and not dead(criterion, name)


def dead(criterion: str, name: str) -> bool:
    return CRITERIA[criterion].measured and name in _DEAD


def refusal(criterion: str, name: str) -> "pytest.RaisesExc[AutopruneError]":
    """Expect what is said of a network that a criterion cannot score."""
    if dead(criterion, name):
        return pytest.raises(NumericalError, match=f"'{criterion}': all scores of .* '{_DEAD[name]}' are 0.*choose")
    return pytest.raises(CriterionError, match=f"criterion '{criterion}' needs .*choose")


def state(network: Network) -> list[object]:
    """Return all that must not change."""
    parameters = network.module.named_parameters()
    flags = [(key, parameter.grad is None, parameter.requires_grad) for key, parameter in parameters]
    hooks = [len(layer._forward_hooks) for layer in network.module.modules()]
    return [network.fingerprint(), flags, hooks, [layer.training for layer in network.module.modules()]]


@cache
def scores_of(criterion: str, name: str) -> Scores:
    network, groups = network_of(name)
    return score_units(network, groups, criterion, data_of(name))


def test_the_catalog_names_what_there_is() -> None:
    assert set(channels.FORMULAS) == set(CHANNEL_CRITERIA)
    assert set(weights.FORMULAS) == set(criterion_names("weight"))
    for criterion in CRITERIA.values():
        assert criterion.meaning
        assert criterion.paper
        assert "labels" not in criterion.needs or {"images", "gradients"} <= set(criterion.needs)


@on_every_network
@by_channel
def test_units_are_scored_or_it_is_said_why_not(criterion: str, name: str) -> None:
    network, groups = network_of(name)
    before = state(network)
    if not applies(criterion, name):
        with refusal(criterion, name):
            scores_of(criterion, name)
        return
    scores = scores_of(criterion, name)
    assert scores.shape == (groups.n_units,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, score_units(network, groups, criterion, data_of(name)))
    assert state(network) == before


@on_every_network
@by_channel
def test_all_members_of_a_group_go_by_one_ranking(criterion: str, name: str) -> None:
    """What a ranking removes can be removed: masked and pruned networks agree."""
    if not applies(criterion, name):
        return
    network, groups = network_of(name)
    scores = scores_of(criterion, name)
    kept = {}
    for group in groups.prunable(include_residual=True):
        order = ranking(group, scores)
        assert sorted(order) == list(range(len(group)))
        assert (np.diff(scores[list(group.units)][list(order)]) <= 0).all()
        kept[group.name] = tuple(sorted(order[: len(group) // 2]))
    assert masked_error(network, groups, Plan(kept, ""), images(name)) <= 1e-5


@on_every_network
@by_channel
def test_scores_follow_their_channels(criterion: str, name: str) -> None:
    if not applies(criterion, name) or criterion == "random":  # which draws for places, not for channels
        return
    network, groups = network_of(name)
    scores = scores_of(criterion, name)
    group = max(groups.prunable(include_residual=True), key=lambda group: len(group.members))
    order = np.random.default_rng(5).permutation(len(group)).tolist()
    moved = permuted(network, groups, group, order)
    with torch.no_grad():
        assert torch.allclose(moved.module(images(name)), network.module(images(name)), atol=1e-4)
    again = score_units(moved, groups, criterion, data_of(name))
    expected = scores.copy()
    expected[list(group.units)] = scores[list(group.units)][order]
    assert np.allclose(again, expected, rtol=1e-6, atol=1e-9 * np.abs(scores).max())


@on_every_network
@by_weight
def test_weights_are_scored_or_it_is_said_why_not(criterion: str, name: str) -> None:
    network, _ = network_of(name)
    before = state(network)
    if not applies(criterion, name):
        with refusal(criterion, name):
            score_weights(network, criterion, data_of(name))
        return
    scores = score_weights(network, criterion, data_of(name))
    again = score_weights(network, criterion, data_of(name))
    shapes = {layer: weight.shape for layer, weight in weights_of(network).items()}
    assert {layer: values.shape for layer, values in scores.items()} == shapes
    for layer, values in scores.items():
        assert values.dtype == torch.float64
        assert bool(torch.isfinite(values).all())
        assert torch.equal(values, again[layer])
    assert state(network) == before


@pytest.mark.parametrize("criterion", [name for name, entry in CRITERIA.items() if entry.needs and name != OBS])
def test_missing_data_is_named(criterion: str) -> None:
    network, groups = network_of("resnet_padded")
    entry, data = CRITERIA[criterion], data_of("resnet_padded")
    if entry.measured:
        with pytest.raises(CriterionError, match=r"images of the fit split, found none; give images, or choose"):
            score_units(network, groups, criterion, NO_DATA)
    if "labels" in entry.needs:
        with pytest.raises(CriterionError, match=r"needs labels, the images have none; give images in one folder"):
            score_units(network, groups, criterion, replace(data, labels=None))
