"""A searcher that tries given policies before its own."""

from collections.abc import Sequence

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.allocation import Allocation
from autoprune.search.searcher import FrontSearcher, InOrder, Proposal, Searcher, Trial


class WarmStart:
    """Proposes `first`, then whatever `searcher` does; the first trials count like all others.

    The searcher itself is told its own trials only, so its own path stays what it was, with fewer evaluations left.
    """

    def __init__(self, searcher: Searcher, first: Sequence[PruningPolicy]) -> None:
        """Hand out `first` in that order."""
        self._searcher = searcher
        self._first = [Proposal(policy) for policy in first]
        self._own = False
        self._order = InOrder()

    @property
    def name(self) -> str:
        """Name of the searcher that goes on."""
        return self._searcher.name

    def front(self) -> tuple[Trial, ...]:
        """Return the front of the searcher that goes on, if it has one."""
        return self._searcher.front() if isinstance(self._searcher, FrontSearcher) else ()

    def ask(self, n: int) -> list[Proposal]:
        """Return the next given policies; after all of them what the searcher proposes."""
        self._order.may_ask(n)
        self._own = not self._first
        if self._own:
            return self._order.asked(self._searcher.ask(n))
        batch, self._first = self._first[:n], self._first[n:]
        return self._order.asked(batch)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; the searcher is told its own."""
        self._order.told(trials)
        if self._own:
            self._searcher.tell(trials)


def exact_policy(problem: PruningProblem) -> PruningPolicy:
    """Return the allocation with the least sum of reconstruction errors: a start that costs no evaluation.

    Raises:
        SearchError: The problem has no reconstruction errors.

    """
    if problem.errors is None:
        raise SearchError("a warm start needs reconstruction errors; set the problem up with Gram statistics")
    return problem.policy(Allocation(problem).kept(problem.errors))
