"""Random policies that use the budget up: a baseline that is hard to beat (Li et al., CVPR 2022)."""

from collections.abc import Sequence

import numpy as np

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.searcher import InOrder, Proposal, Trial

#: Draws without a new policy after which everything within reach counts as proposed.
MAX_REDRAWS = 50


class RandomSearch:
    """Proposes different random policies, each of which fills the budget.

    Distribution: a level c and a spread s are drawn from U(0, 1), then for every group g, with u_g from U(0, 1),
    ``ratio_g = largest_g * ((1 - s) * c + s * u_g)``, where largest_g is the most that may be removed of it. So
    policies range from nearly uniform (s near 0) to independent groups (s near 1). Filling moves the draw along a
    straight line towards the unpruned or the smallest network until the budget is met: proportions between groups stay
    diverse, while the cost does not.

    What was proposed before is drawn again; after `MAX_REDRAWS` draws without a new policy the searcher is done.
    Deterministic from the seed; the same for every batch size.
    """

    name = "random"

    def __init__(self, problem: PruningProblem, seed: int) -> None:
        """Use a generator of its own, seeded with `seed`.

        Raises:
            SearchError: A seed below 0.

        """
        if seed < 0:
            raise SearchError(f"expected a seed of at least 0, found {seed}")
        self._problem = problem
        self._generator = np.random.default_rng(seed)
        self._seen: set[PruningPolicy] = set()
        self._exhausted = False
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return `n` new policies; fewer, in the end none, when no more are found."""
        self._order.may_ask(n)
        proposals: list[Proposal] = []
        while len(proposals) < n and not self._exhausted:
            policy = self._new()
            if policy is None:
                self._exhausted = True
            else:
                proposals.append(Proposal(policy))
        return self._order.asked(proposals)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; nothing is learned from them."""
        self._order.told(trials)

    def _new(self) -> PruningPolicy | None:
        """Return a policy that was not proposed before, or None."""
        for _ in range(MAX_REDRAWS):
            policy = self._problem.project(random_policy(self._problem, self._generator), fill=True)
            if policy not in self._seen:
                self._seen.add(policy)
                return policy
        return None


def random_policy(problem: PruningProblem, generator: np.random.Generator) -> PruningPolicy:
    """Draw one policy, in or out of budget; see :class:`RandomSearch` for the distribution."""
    largest = 1 - problem.smallest() / problem.costs.full()
    level, spread = generator.random(2)
    each = generator.random(len(largest))
    return PruningPolicy.of(largest * ((1 - spread) * level + spread * each))
