"""What searchers of a single network have in common."""

from collections.abc import Sequence

from autoprune.pruning.policy import PruningPolicy
from autoprune.search.searcher import InOrder, Proposal, Trial


class OneProposal:
    """Proposes one network, and nothing else."""

    def __init__(self, policy: PruningPolicy) -> None:
        """Propose `policy`."""
        self._proposals = [Proposal(policy)]
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return the one proposal, then none."""
        self._order.may_ask(n)
        return self._order.asked(self._proposals)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trial; nothing is learned from it."""
        self._order.told(trials)
        self._proposals = []
