"""Scores of single weights: what a round of pruning ranks them by. Higher scores stay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.criteria.weights import score_weights
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network

#: Makes of a network a score per weight, by name of the convolution or linear layer, each of the shape of its weights.
WeightScore = Callable[[Network], Mapping[str, Tensor]]


def weights_of(network: Network) -> dict[str, Tensor]:
    """Return the weights of every convolution and linear layer, by name, in execution order; not copies."""
    return {name: layer.weight.detach() for name, layer in network.layers().items() if isinstance(layer, PRODUCERS)}


def magnitude(network: Network) -> dict[str, Tensor]:
    """Score weights by their magnitude (Han et al. 2015, 1506.02626)."""
    return {name: weight.abs() for name, weight in weights_of(network).items()}


@dataclass(frozen=True, slots=True)
class ByCriterion:
    """Scores weights by any criterion that knows single weights; what is gone is scored as zero weights.

    Attributes:
        criterion: A name of :data:`autoprune.criteria.catalog.CRITERIA`.
        data: Images of the fit split, for criteria that need them.

    """

    criterion: str
    data: CriterionData = NO_DATA

    def __call__(self, network: Network) -> Mapping[str, Tensor]:
        """Score the weights of `network`; errors as of :func:`autoprune.criteria.weights.score_weights`."""
        return score_weights(network, self.criterion, self.data)
