"""Scores of single weights: masks, and one ranking over all layers."""

import pytest
import torch

from autoprune.criteria.members import weights_of
from autoprune.criteria.weights import global_kept, score_weights
from autoprune.errors import CriterionError, PlanError
from autoprune.network.masked import masked
from tests.search.small_problems import small_network

NETWORK = small_network()


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.01])
def test_one_ranking_keeps_an_exact_number_and_the_best_of_every_layer(share: float) -> None:
    scores = score_weights(NETWORK, "l1")
    kept = global_kept(scores, share)
    total = sum(values.numel() for values in scores.values())
    assert sum(kept.values()) == round(share * total)
    assert list(kept) == list(scores)
    assert min(kept.values()) >= 1
    chosen = [values.flatten().sort(descending=True).values[: kept[name]] for name, values in scores.items()]
    worst = min(float(values[-1]) for values, name in zip(chosen, kept, strict=True) if kept[name] > 1)
    for name, values in scores.items():
        assert kept[name] == max(1, int((values >= worst).sum()))


def test_shares_that_cannot_be_are_refused() -> None:
    scores = score_weights(NETWORK, "l1")
    for share in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(CriterionError, match="above 0 and at most 1"):
            global_kept(scores, share)
    with pytest.raises(CriterionError, match="less than one for each of 5 layers; keep at least"):
        global_kept(scores, 1e-4)


def test_a_masked_network_is_scored_without_the_masked_weights() -> None:
    before = NETWORK.fingerprint()
    masks = {"conv1": torch.rand(24, 16, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5}
    scores = score_weights(NETWORK, "l1", masks=masks)
    expected = weights_of(NETWORK)["conv1"].abs() * masks["conv1"]
    assert torch.equal(scores["conv1"], expected)
    assert torch.equal(scores["conv0"], score_weights(NETWORK, "l1")["conv0"])
    assert NETWORK.fingerprint() == before


def test_masks_that_fit_nothing_are_refused() -> None:
    with pytest.raises(PlanError, match=r"'conv0': expected a mask for weights of shape \(16, 3, 3, 3\), found \(3,\)"):
        masked(NETWORK, {"conv0": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(PlanError, match=r"'norm0': expected a mask for weights of shape none"):
        masked(NETWORK, {"norm0": torch.ones(16, dtype=torch.bool)})
