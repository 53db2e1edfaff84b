"""Random policies that use the budget up: a baseline that is hard to beat (Li et al., CVPR 2022)."""

from collections.abc import Sequence

import numpy as np

from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.searcher import InOrder, Proposal, Trial


class RandomSearch:
    """Draws every group's ratio independently and uniformly from 0 to the group's largest, then fills the budget.

    Filling moves the draw along a straight line towards the unpruned or the smallest network until the budget is met,
    so the proportions between groups stay diverse while the cost does not.
    """

    name = "random"

    def __init__(self, problem: PruningProblem, seed: int) -> None:
        """Use a generator of its own, seeded with `seed`."""
        self._problem = problem
        self._generator = np.random.default_rng(seed)
        self._largest = np.array([1 - w[0] / len(g) for w, g in zip(problem.widths, problem.groups, strict=True)])
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return `n` fresh draws; the same sequence however it is cut into batches."""
        draws = [self._generator.uniform(0, self._largest) for _ in range(n)]
        return self._order.asked([Proposal(self._problem.project(PruningPolicy.of(d), fill=True)) for d in draws])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; nothing is learned from them."""
        self._order.told(trials)
