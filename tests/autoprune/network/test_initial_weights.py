"""Weights drawn anew are those of a fresh network."""

import torch

from autoprune.network.initial_weights import reinitialised
from autoprune.training.weight_scores import weights_of
from tests.oracles import randomise
from tests.search.small_problems import small_network


def test_every_layer_is_as_if_it_had_just_been_made() -> None:
    trained = randomise(small_network(), 1)
    before, state = trained.fingerprint(), torch.get_rng_state()
    fresh = reinitialised(trained, 3)
    assert torch.equal(state, torch.get_rng_state())
    assert trained.fingerprint() == before
    assert reinitialised(trained, 3).fingerprint() == fresh.fingerprint()
    assert reinitialised(trained, 4).fingerprint() != fresh.fingerprint()
    for name, weight in weights_of(fresh).items():
        bound = weight[0].numel() ** -0.5  # PyTorch's default: uniform, by the number of inputs
        assert 0.9 * bound < weight.abs().max() <= bound, name
    norm = fresh.layers()["norm1"].state_dict()
    assert bool((norm["weight"] == 1).all())
    assert not any(bool(norm[each].any()) for each in ("bias", "running_mean"))
