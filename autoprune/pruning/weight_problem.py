"""Pruning of single weights as a problem: how many of each layer stay, within a budget of non-zero parameters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from autoprune.costs.budget import Budget, holds
from autoprune.costs.cost_model import cost_model
from autoprune.costs.quantities import NONZERO
from autoprune.criteria.data import NO_DATA, CriterionData
from autoprune.criteria.weights import score_weights
from autoprune.errors import BudgetError, ModelError, SearchError
from autoprune.groups.channel_group import find_groups
from autoprune.network.network import Network
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.weight_masks import WeightPlan, nonzero_weights

Counts = NDArray[np.int64]

#: Most that may be removed of the weights of one layer unless something else is asked for.
MAX_WEIGHT_RATIO = 0.98

#: Most counts that a layer can choose among, evenly spaced: steps of a thousandth of its weights.
MOST_WIDTHS = 1001


@dataclass(frozen=True, slots=True)
class WeightPruningProblem:
    """What a search needs to know about a network whose single weights are pruned, layer by layer.

    A group is a layer, a convolution or a linear one; its units are those of its weights that are not zero in the
    trained network. The only cost is ``nonzero``: parameters of the deployed network (as in
    :mod:`autoprune.costs.cost_model`) less the weights that are zero. It is exact: biases and what batch norms become
    count as not zero, weights that were zero before count as zero.

    Attributes:
        network: The unpruned network.
        names: The layers; policies and kept counts are in this order, that in which the network runs.
        limits: ``{"nonzero": most parameters that may be other than zero}``; hard.
        widths: Per layer, the numbers of weights it may keep, ascending, the last one all that are not zero.
        other_params: Parameters that are not weights of these layers.
        scores: Importance of every weight, by layer; those with the best scores stay.
        model_sha256: Fingerprint of the network as loaded, written into every plan.

    """

    network: Network
    names: tuple[str, ...]
    limits: Mapping[str, int]
    widths: tuple[Counts, ...]
    other_params: int
    scores: Mapping[str, Tensor]
    model_sha256: str

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers themselves."""
        return self.names

    def full(self) -> Counts:
        """Return the weights of each layer that are not zero before pruning, ``(n_layers,)``."""
        return np.array([width[-1] for width in self.widths], dtype=np.int64)

    def smallest(self) -> Counts:
        """Return the fewest weights each layer may keep, ``(n_layers,)``."""
        return np.array([width[0] for width in self.widths], dtype=np.int64)

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return ``{"nonzero": parameters other than zero}`` for kept weights, ``(n_layers,)``."""
        assert len(kept) == len(self.names), f"expected {len(self.names)} kept counts, found {len(kept)}"
        return {NONZERO: int(np.sum(kept)) + self.other_params}

    def layer_costs(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return the weights other than zero of each layer, in execution order, for kept weights, ``(n_layers,)``."""
        return {name: int(count) for name, count in zip(self.names, kept, strict=True)}

    def fits(self, kept: Sequence[int] | Counts) -> bool:
        """Tell whether kept weights, ``(n_layers,)``, hold the budget."""
        return holds(self.cost(kept), self.limits)

    def policy(self, kept: Sequence[int] | Counts) -> PruningPolicy:
        """Return the policy that keeps exactly these numbers of weights, ``(n_layers,)``."""
        return PruningPolicy.of(1 - int(k) / int(width[-1]) for k, width in zip(kept, self.widths, strict=True))

    def kept(self, policy: PruningPolicy) -> Counts:
        """Return the allowed counts nearest to what `policy` asks for, ``(n_layers,)``; may exceed the budget.

        Raises:
            SearchError: The policy is for another number of layers.

        """
        if len(policy.ratios) != len(self.names):
            raise SearchError(f"a policy for this problem has {len(self.names)} ratios, found {len(policy.ratios)}")
        pairs = zip(policy.ratios, self.widths, strict=True)
        return np.array([width[np.argmin(np.abs(width - (1 - r) * width[-1]))] for r, width in pairs], dtype=np.int64)

    def plan(self, policy: PruningPolicy) -> WeightPlan:
        """Return the plan that keeps the most important weights of every layer."""
        return WeightPlan(dict(zip(self.names, self.kept(policy).tolist(), strict=True)), self.model_sha256)


def weight_pruning_problem(
    network: Network,
    budget: Budget,
    *,
    criterion: str = "l1",
    data: CriterionData = NO_DATA,
    max_ratio: float = MAX_WEIGHT_RATIO,
    model_sha256: str | None = None,
) -> WeightPruningProblem:
    """Set up a problem over the single weights of all convolution and linear layers.

    Args:
        network: The unpruned network.
        budget: A limit of ``nonzero``, for example ``nonzero=30%``.
        criterion: What ranks the weights of a layer; a name of :data:`autoprune.criteria.catalog.CRITERIA` for weights.
        data: Images of the fit split and a seed, for criteria that need them.
        max_ratio: Most that may be removed of one layer's weights.
        model_sha256: Fingerprint of the network as a user can load it again; that of `network` if None.

    Raises:
        ModelError: No layer has two weights that are not zero.
        BudgetError: `max_ratio` out of range, or a budget of something else, or one the network already holds.
        InfeasibleBudgetError: A budget below the smallest reachable number.
        AutopruneError: The criterion cannot score; see :func:`autoprune.criteria.weights.score_weights`.

    """
    if not 0 < max_ratio < 1:
        raise BudgetError(f"max_ratio must lie between 0 and 1, found {max_ratio}")
    sizes = nonzero_weights(network)
    pruned = {name: size for name, size in sizes.items() if size > 1}
    if not pruned:
        raise ModelError("this network has no convolution or linear layer with weights that could be pruned")
    params = cost_model(network, find_groups(network), ()).cost(())["params"]
    all_weights = sum(network.layers()[name].get_parameter("weight").numel() for name in sizes)
    zeros_apart = params - all_weights + sum(sizes[name] for name in sizes.keys() - pruned.keys())
    widths = tuple(_allowed(size, max_ratio) for size in pruned.values())
    problem = WeightPruningProblem(
        network, tuple(pruned), {}, widths, zeros_apart, {}, model_sha256 or network.fingerprint()
    )
    limits = budget.resolve(problem.cost(problem.full()), problem.cost(problem.smallest()))
    return replace(problem, limits=limits, scores=score_weights(network, criterion, data, chosen=problem.names))


def _allowed(size: int, max_ratio: float) -> Counts:
    """Return the numbers of weights that a layer with `size` of them may keep."""
    floor = max(1, math.ceil(round((1 - max_ratio) * size, 9)))
    steps = min(MOST_WIDTHS, size - floor + 1)
    return np.rint(np.linspace(floor, size, steps)).astype(np.int64)
