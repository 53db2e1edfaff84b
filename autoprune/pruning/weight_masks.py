"""Pruning of single weights: every layer keeps its shape, and the smallest of its weights become zero."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from autoprune.errors import PlanError
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, own_copy


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """How many single weights of every layer stay: those of the largest magnitude.

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


def magnitude_mask(weight: Tensor, kept: int) -> Tensor:
    """Return which `kept` weights are the largest in magnitude, bool of the shape of `weight`; of equals, the first.

    Han et al. 2015 (arXiv 1506.02626), the criterion of AMC's fine-grained pruning.
    """
    assert 1 <= kept <= weight.numel(), "a mask keeps at least one weight"
    magnitude = weight.detach().abs().flatten()
    threshold = magnitude.kthvalue(magnitude.numel() - kept + 1).values
    mask = magnitude > threshold
    equal = (magnitude == threshold).nonzero().flatten()
    mask[equal[: kept - int(mask.sum())]] = True
    return mask.reshape(weight.shape)


def mask_weights(network: Network, plan: WeightPlan) -> fx.GraphModule:
    """Return a copy of the network with exactly `plan.kept` weights that are not zero in each of its layers.

    Biases and batch norms stay as they are.

    Raises:
        PlanError: The plan does not fit the network.

    """
    plan.check(network)
    return network.with_layers({name: _masked(layer, plan.kept.get(name)) for name, layer in network.layers().items()})


def _masked(layer: nn.Module, kept: int | None) -> nn.Module:
    """Return a copy of `layer`, all but `kept` of its weights zero; all kept where that is None."""
    clone = own_copy(layer)
    if kept is not None:
        assert isinstance(clone, PRODUCERS), "checked"
        with torch.no_grad():
            clone.weight.masked_fill_(~magnitude_mask(clone.weight, kept), 0.0)
    return clone
