"""The baseline everybody must beat: one ratio for all groups."""

from collections.abc import Sequence

from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.searcher import InOrder, Proposal, Trial


class Uniform:
    """Proposes the smallest single ratio that holds the budget, and nothing else: one evaluation.

    What rounding to whole channels leaves over is given back to single groups by the projection.
    """

    name = "uniform"

    def __init__(self, problem: PruningProblem) -> None:
        """Find the ratio by bisection; no evaluation."""
        n = len(problem.groups)
        low, high = 0.0, 1.0 - 1e-9  # low breaks the budget, high holds it
        for _ in range(50):
            middle = (low + high) / 2
            if problem.fits(problem.kept(PruningPolicy.uniform(middle, n))):
                high = middle
            else:
                low = middle
        self._proposal = Proposal(problem.project(PruningPolicy.uniform(low, n)))
        self._done = False
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return the one proposal, then none."""
        return self._order.asked([] if self._done else [self._proposal])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trial."""
        self._order.told(trials)
        self._done = True
