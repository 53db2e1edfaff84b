"""Gradual pruning follows its schedule step by step, and what is gone stays gone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from autoprune.errors import PlanError, SearchError
from autoprune.network.network import Network
from autoprune.training.gradual_pruning import GraduallyPruned, prune_gradually
from autoprune.training.gradual_schedule import GradualSchedule
from autoprune.training.masks import Scope
from autoprune.training.rounds import kept_count
from autoprune.training.weight_scores import weights_of
from tests.autoprune.training.digits import CPU, FROM_SCRATCH, accuracy, digits_network, digits_splits

#: Of one epoch.
STEPS = 39
SIZES = {name: weight.numel() for name, weight in weights_of(digits_network()).items()}


def pruned(schedule: GradualSchedule, epochs: int, scope: Scope = "layer") -> tuple[GraduallyPruned, list[float]]:
    """Return what is left, and the share of the weights that were gone when scores were asked for."""
    fit, seen = digits_splits().fit, []

    def score(network: Network) -> dict[str, Tensor]:
        weights = weights_of(network)
        seen.append(1 - sum(int(weight.count_nonzero()) for weight in weights.values()) / sum(SIZES.values()))
        return {name: weight.abs() for name, weight in weights.items()}

    training = replace(FROM_SCRATCH, epochs=epochs)
    return prune_gradually(
        digits_network(), fit.inputs, fit.labels, training, schedule, scope=scope, score=score, device=CPU
    ), seen


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_weights_go_along_the_cubic(scope: Scope) -> None:
    schedule = GradualSchedule(0.8, begin=4, interval=3, prunings=5, initial=0.1)
    found, seen = pruned(schedule, 1, scope)
    expected = [0.0, *(schedule.sparsity(4 + 3 * number) for number in range(5))]
    assert seen == pytest.approx(expected, abs=1e-3)
    kept = {name: int(mask.sum()) for name, mask in found.masks.items()}
    if scope == "layer":
        assert kept == {name: kept_count(size, 0.2) for name, size in SIZES.items()}
    assert sum(kept.values()) == pytest.approx(0.2 * sum(SIZES.values()), abs=3)
    for name, weight in weights_of(found.network).items():
        assert torch.equal(weight != 0, found.masks[name])


def test_a_network_is_trained_and_pruned_in_one_go() -> None:
    found, _ = pruned(GradualSchedule(0.9, begin=STEPS, interval=10, prunings=12), 8)
    assert accuracy(found.network.module) > 0.95
    assert len(found.losses) == 8


def test_pruning_may_begin_before_the_first_step() -> None:
    _, seen = pruned(GradualSchedule(0.5, begin=0, interval=30, prunings=1, initial=0.5), 1)
    assert seen == pytest.approx([0, 0.5], abs=1e-3)


def test_what_training_cannot_follow_is_refused() -> None:
    with pytest.raises(SearchError, match=f"ends at step {STEPS}, the training at step {STEPS}"):
        pruned(GradualSchedule(0.5, begin=0, interval=STEPS, prunings=1), 1)
    with pytest.raises(PlanError, match="layer collapse"):
        pruned(GradualSchedule(0.9999, begin=0, interval=10, prunings=1), 1, "global")
