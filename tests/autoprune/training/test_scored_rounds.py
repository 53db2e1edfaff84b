"""Rounds of scores alone: SynFlow keeps a path down to one weight per layer, others do not."""

import pytest
import torch

from autoprune.criteria.weights import score_weights
from autoprune.errors import Cancelled, PlanError, SearchError
from autoprune.training.layer_collapse import check_collapse, find_collapse, maximal_critical_compression
from autoprune.training.masks import full_masks, kept_weights, smaller_masks
from autoprune.training.rounds import exponential, kept_count
from autoprune.training.scored_rounds import prune_by_scores
from autoprune.training.weight_scores import ByCriterion, magnitude
from tests.autoprune.training.digits import digits_network
from tests.search.small_problems import small_network

SYNFLOW = ByCriterion("synflow")


def test_every_round_scores_what_the_one_before_left() -> None:
    network, seen = small_network(), []
    shares = exponential(0.05, 4)
    masks = prune_by_scores(network, shares, SYNFLOW, progress=lambda *told: seen.append(told))
    expected = full_masks(network)
    for share in shares:
        expected = smaller_masks(expected, score_weights(network, "synflow", masks=expected), share)
    assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
    total = sum(mask.numel() for mask in masks.values())
    assert [told[:2] for told in seen] == [(number, 4) for number in (1, 2, 3, 4)]
    assert f"{kept_count(total, 0.05):,} weights left" in seen[-1][2]
    assert kept_weights(masks) == kept_count(total, 0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synflow_reaches_the_maximal_critical_compression(seed: int) -> None:
    network = digits_network(seed)
    most = maximal_critical_compression(network)
    masks = prune_by_scores(network, exponential(1 / most, 100), SYNFLOW)
    assert [int(mask.sum()) for mask in masks.values()] == [1] * len(masks)
    check_collapse(network, masks)


def test_others_collapse_before_and_the_layer_is_named() -> None:
    network = digits_network()
    most = maximal_critical_compression(network)
    with pytest.raises(PlanError, match=r"layer collapse: '\w+'.* at [\d,]+ of [\d,]+ weights"):
        prune_by_scores(network, exponential(2 / most, 20), magnitude)
    with pytest.raises(PlanError, match="layer collapse"):
        prune_by_scores(network, (1 / most,), SYNFLOW)  # at once
    per_layer = prune_by_scores(network, (0.01,), magnitude, scope="layer")
    assert find_collapse(network, per_layer).empty == ()


def test_less_than_one_weight_per_layer_is_refused_before_anything_is_scored() -> None:
    def never(_: object) -> dict[str, torch.Tensor]:
        raise AssertionError

    network = digits_network()
    with pytest.raises(PlanError, match=r"leaves 2 for 5 layers.*maximal critical compression"):
        prune_by_scores(network, (2 / 22000,), never)
    with pytest.raises(SearchError, match="must not rise"):
        prune_by_scores(network, (0.2, 0.3), never)


def test_a_run_can_be_stopped() -> None:
    def stop(done: int, total: int, text: str) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        prune_by_scores(small_network(), (0.5, 0.4), magnitude, progress=stop)
