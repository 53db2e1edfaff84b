"""Masks keep exactly the share they are asked for, only ever shrink, and hold while a network is trained."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autoprune.errors import NumericalError, PlanError
from autoprune.network.masked import masked
from autoprune.network.network import Network
from autoprune.recovery.finetune import FinetuneSettings, finetune
from autoprune.training.masks import MaskKeeper, Scope, deviation_masks, full_masks, kept_weights, smaller_masks
from autoprune.training.rounds import kept_count
from autoprune.training.weight_scores import magnitude, weights_of
from tests.search.small_problems import small_network

NETWORK = small_network()
SIZES = {name: weight.numel() for name, weight in weights_of(NETWORK).items()}


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=4), st.sampled_from(["global", "layer"]))
def test_masks_shrink_to_exactly_the_share(shares: list[float], scope: Scope) -> None:
    masks = full_masks(NETWORK)
    for share in sorted(shares, reverse=True):
        smaller = smaller_masks(masks, magnitude(NETWORK), share, scope)
        assert all(not (smaller[name] & ~mask).any() for name, mask in masks.items())
        if scope == "layer":
            assert {n: int(m.sum()) for n, m in smaller.items()} == {n: kept_count(s, share) for n, s in SIZES.items()}
        else:
            assert kept_weights(smaller) == kept_count(sum(SIZES.values()), share)
        masks = smaller


def test_the_largest_of_all_weights_stay() -> None:
    masks = smaller_masks(full_masks(NETWORK), magnitude(NETWORK), 0.3)
    weights = weights_of(NETWORK)
    kept = torch.cat([weights[name][mask].abs() for name, mask in masks.items()])
    gone = torch.cat([weights[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= gone.max()


def test_what_is_gone_never_comes_back_whatever_its_score() -> None:
    masks = smaller_masks(full_masks(NETWORK), magnitude(NETWORK), 0.5)
    inverse = {name: -score for name, score in magnitude(NETWORK).items()}
    for scope in ("global", "layer"):
        smaller = smaller_masks(masks, inverse, 0.4, scope)
        assert all(not (smaller[name] & ~mask).any() for name, mask in masks.items())
    assert kept_weights(smaller_masks(masks, inverse, 0.9)) == kept_weights(masks)


def test_masked_networks_share_nothing_and_keep_the_rest() -> None:
    before = NETWORK.fingerprint()
    masks = smaller_masks(full_masks(NETWORK), magnitude(NETWORK), 0.3)
    pruned = weights_of(masked(NETWORK, masks))
    for name, weight in weights_of(NETWORK).items():
        assert torch.equal(pruned[name], weight * masks[name])
    assert NETWORK.fingerprint() == before
    again = full_masks(masked(NETWORK, masks))
    assert all(torch.equal(again[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "relative-adamw"])
def test_pruned_weights_stay_zero_in_training(optimizer: str) -> None:
    masks = smaller_masks(full_masks(NETWORK), magnitude(NETWORK), 0.3)
    images = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(48) % 5
    settings = FinetuneSettings(epochs=2, optimizer=optimizer, batch_size=16, freeze_batchnorm=False)  # type: ignore[arg-type]
    start = masked(NETWORK, masks)
    module = finetune(
        start.module, images, labels, settings, after_step=MaskKeeper(masks), device=torch.device("cpu")
    ).module
    trained = weights_of(Network(module, NETWORK.input_shape, NETWORK.shapes))
    for name, mask in masks.items():
        assert not trained[name][~mask].any()
        assert not torch.equal(trained[name], weights_of(start)[name])


@pytest.mark.parametrize("wrong", [{}, {name: torch.zeros(3) for name in SIZES}])
def test_scores_of_another_network_are_refused(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(PlanError, match="layer 'conv0': expected weights or scores of shape"):
        smaller_masks(full_masks(NETWORK), wrong, 0.5)


def test_scores_that_are_nan_are_refused() -> None:
    scores = magnitude(NETWORK) | {"head": torch.full((5, 32), torch.nan)}
    with pytest.raises(NumericalError, match="layer 'head'"):
        smaller_masks(full_masks(NETWORK), scores, 0.5)


def test_thresholds_are_standard_deviations_of_each_layer() -> None:
    network = masked(NETWORK, smaller_masks(full_masks(NETWORK), magnitude(NETWORK), 0.8))
    masks = deviation_masks(network, 0.7)
    for name, weight in weights_of(network).items():
        values = weight[weight != 0].double().numpy()
        assert int(masks[name].sum()) == int((abs(values) > 0.7 * values.std()).sum())
        assert bool(weight[masks[name]].abs().min() > weight[~masks[name]].abs().max())
    assert kept_weights(deviation_masks(network, 0)) == kept_weights(full_masks(network))
    with pytest.raises(PlanError, match="has no weight above 9 standard deviations"):
        deviation_masks(network, 9)
    with pytest.raises(PlanError, match="at least 0, found -1"):
        deviation_masks(network, -1)
