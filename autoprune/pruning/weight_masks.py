"""Pruning of single weights: every layer keeps its shape, and the least important of its weights become zero."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from autoprune.errors import PlanError
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, own_copy


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """How many single weights of every layer stay: those with the best scores of a criterion.

    Attributes:
        kept: Name of a convolution or linear layer -> weights that stay, at least 1; layers not named stay whole.
        model_sha256: Fingerprint of the network the plan was made for.

    """

    kept: Mapping[str, int]
    model_sha256: str

    def check(self, network: Network) -> None:
        """Make sure the plan fits `network`.

        Raises:
            PlanError: A layer without weights to prune, or not a number of its weights that are not zero.

        """
        sizes = nonzero_weights(network)
        for name, count in self.kept.items():
            if name not in sizes:
                raise PlanError(
                    f"plan names layer {name!r}, which in this network has no weights to prune; "
                    "was it made for another?"
                )
            if not 1 <= count <= sizes[name]:
                raise PlanError(f"plan: expected 1 to {sizes[name]} weights of layer {name!r}, found {count}")


def nonzero_weights(network: Network) -> dict[str, int]:
    """Return how many weights of every convolution and linear layer are not zero, by name, in execution order."""
    return {
        name: int(torch.count_nonzero(layer.weight))
        for name, layer in network.layers().items()
        if isinstance(layer, PRODUCERS)
    }


def best_mask(scores: Tensor, kept: int) -> Tensor:
    """Return which `kept` weights have the best scores, bool of the shape of `scores`; of equals, the first."""
    assert 1 <= kept <= scores.numel(), "a mask keeps at least one weight"
    flat = scores.detach().flatten()
    threshold = flat.kthvalue(flat.numel() - kept + 1).values
    mask = flat > threshold
    equal = (flat == threshold).nonzero().flatten()
    mask[equal[: kept - int(mask.sum())]] = True
    return mask.reshape(scores.shape)


def mask_weights(network: Network, plan: WeightPlan, scores: Mapping[str, Tensor]) -> fx.GraphModule:
    """Return a copy of the network with exactly `plan.kept` weights that are not zero in each of its layers.

    Biases and batch norms stay as they are.

    Args:
        network: The unpruned network.
        plan: How many weights of every layer stay.
        scores: Importance of every weight, by layer, each of the weight's shape, as of
            :func:`autoprune.criteria.weights.score_weights`; at least of the layers of the plan. Weights that are zero
            go first, whatever their score.

    Raises:
        PlanError: The plan does not fit the network.

    """
    plan.check(network)
    layers = {name: own_copy(layer) for name, layer in network.layers().items()}
    for name, kept in plan.kept.items():
        weight = layers[name].get_parameter("weight").detach()
        ranked = scores[name].to(weight.device).masked_fill(weight == 0, -torch.inf)
        weight.masked_fill_(~best_mask(ranked, kept), 0.0)
    return network.with_layers(layers)
