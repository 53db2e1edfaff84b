"""The seam between a policy and the driver: ask for proposals, tell what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.policy import PruningPolicy


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy to evaluate.

    Attributes:
        policy: What is proposed; the driver projects it onto the budget.
        probe: Evaluated as it is, over budget or not, to learn from; a probe never wins a search.

    """

    policy: PruningPolicy
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal that was evaluated.

    Attributes:
        number: Position in the search, from 0.
        proposal: What the searcher proposed.
        policy: What was evaluated: the proposal, projected onto the budget unless it is a probe.
        kept: Units kept per decision group, ``(n_groups,)``.
        cost: Cost of the policy, ``{quantity: cost}``.
        scores: Quality on the search split.

    """

    number: int
    proposal: Proposal
    policy: PruningPolicy
    kept: tuple[int, ...]
    cost: Mapping[str, int]
    scores: Scores

    @property
    def objective(self) -> float:
        """What the search maximises."""
        return self.scores.objective

    @property
    def probe(self) -> bool:
        """Whether the trial was outside the competition."""
        return self.proposal.probe


class Searcher(Protocol):
    """A policy that proposes ratios. Every implementation passes ``tests/conformance``.

    Contract:
        * The driver calls ``ask`` and ``tell`` in turn, from one thread; a searcher belongs to one search.
        * ``ask(n)`` returns 1 to `n` proposals, or none when there is nothing more to propose. Each has one ratio per
          decision group. Further ``ask`` before ``tell`` is an error of the caller.
        * ``tell`` gets one trial per proposal of the last ``ask``, in that order; anything else raises SearchError.
        * Proposals depend on the constructor's arguments (seed included) and on what was told, on nothing else: that is
          why a search that was killed can be replayed from its journal.
        * A searcher keeps no reference to files, processes or global random state.
    """

    name: str

    def ask(self, n: int) -> list[Proposal]:
        """Return up to `n` proposals; none when the searcher is done."""
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials of the last proposals, in order.

        Raises:
            SearchError: Not the proposals last asked for, or not in their order.

        """
        ...


class InOrder:
    """Holds ``tell`` to ``ask``; a searcher owns one and passes everything through it."""

    def __init__(self) -> None:
        self._open: list[Proposal] | None = None

    def asked(self, proposals: list[Proposal]) -> list[Proposal]:
        """Remember what was handed out, and hand it out.

        Raises:
            SearchError: The last proposals were not told yet.

        """
        if self._open:
            raise SearchError(f"{len(self._open)} proposals were asked for and not told; tell their trials first")
        self._open = list(proposals)
        return proposals

    def told(self, trials: Sequence[Trial]) -> None:
        """Check that `trials` answer what was handed out.

        Raises:
            SearchError: They do not, or not in the order asked.

        """
        expected = self._open or []
        if [trial.proposal for trial in trials] != expected:
            raise SearchError(
                f"expected the trials of the {len(expected)} proposals last asked for, in that order; "
                f"found {len(trials)} trials that do not match"
            )
        self._open = None
