"""The seam between walks through a network and what is decided on the way: channels of groups, or weights of layers."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.metrics import Scores
from autoprune.network.network import Network
from autoprune.pruning.policy import PruningPolicy

Counts = NDArray[np.int64]

PlanOut = TypeVar("PlanOut", covariant=True)
PlanIn = TypeVar("PlanIn", contravariant=True)


class LayerwiseProblem(Protocol[PlanOut]):
    """What can be decided one group after another, how much, and within which limits.

    :class:`autoprune.problem.PruningProblem` (a group is a channel group, its units are channels) and
    :class:`autoprune.pruning.weight_problem.WeightPruningProblem` (a group is a layer, its units are single weights)
    are of this form.

    Contract:
        * Everything is in the order of the groups, which is that in which the network runs.
        * The smallest widths of all groups hold the limits.
        * No cost but latency falls when a group keeps more.
    """

    @property
    def network(self) -> Network:
        """The unpruned network."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every group."""
        ...

    @property
    def producers(self) -> tuple[str, ...]:
        """The layer that every group is seen as: the first that it prunes."""
        ...

    @property
    def widths(self) -> Sequence[Counts]:
        """Per group, the units it may keep, ascending, the last one the whole group."""
        ...

    @property
    def limits(self) -> Mapping[str, int]:
        """Absolute limits, ``{quantity: largest allowed cost}``."""
        ...

    def smallest(self) -> Counts:
        """Return the fewest units each group may keep, ``(n_groups,)``."""
        ...

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return ``{quantity: cost}`` of kept units, ``(n_groups,)``."""
        ...

    def layer_costs(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        """Return what an agent is told of each layer's cost, by name, in the order in which the network runs."""
        ...

    def fits(self, kept: Sequence[int] | Counts) -> bool:
        """Tell whether kept units, ``(n_groups,)``, hold the limits."""
        ...

    def policy(self, kept: Sequence[int] | Counts) -> PruningPolicy:
        """Return the policy that keeps exactly these units, ``(n_groups,)``."""
        ...

    def plan(self, policy: PruningPolicy) -> PlanOut:
        """Return which units stay."""
        ...


class PlanScorer(Protocol[PlanIn]):
    """Scores plans of one problem: a pure function, as is that of :mod:`autoprune.evaluation.plan_evaluator`."""

    def evaluate(self, plan: PlanIn) -> Scores:
        """Return the scores of the network that `plan` leaves."""
        ...
