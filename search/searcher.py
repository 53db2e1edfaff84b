"""The seam between a policy and the driver: ask for proposals, tell what became of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.pruning.policy import PruningPolicy


@dataclass(frozen=True, slots=True)
class Proposal:
    """A policy to evaluate.

    Attributes:
        policy: What is proposed; the driver projects it onto the budget.
        probe: Evaluated as it is, over budget or not, to learn from; a probe never wins a search.
        parents: Policies accepted before it, from the first to the last, for an evaluator that trains a candidate on
            from the weights of the last one; all others take no notice.

    """

    policy: PruningPolicy
    probe: bool = False
    parents: tuple[PruningPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal that was evaluated.

    Attributes:
        number: Position in the search; the first trial is 1.
        proposal: What the searcher proposed.
        policy: What was evaluated: the proposal, projected onto the budget unless it is a probe.
        kept: Units kept per decision group, ``(n_groups,)``.
        cost: Cost of the policy, ``{quantity: cost}``.
        scores: Quality on the search split.
        screened_out: Scored on the first search images only and left out by :mod:`autoprune.search.screening`; such a
            trial never wins a search, and ``scores.images`` tells on how many images it was scored.
        proxied: Scored by a proxy, which ranks the candidates of one search; its scores do not compare with others, and
            such a trial never wins (:mod:`autoprune.search.proxied`).
        spent: What the search had spent when this was known, in evaluations on all search images.
        seconds: The same in seconds: what the searcher took so far, and all evaluations one after the other, each with
            the time that it took when it was evaluated, also where the journal answered. None where a journal does not
            say. No two runs take equally long, so this does not count when trials are compared.

    """

    number: int
    proposal: Proposal
    policy: PruningPolicy
    kept: tuple[int, ...]
    cost: Mapping[str, int]
    scores: Scores
    screened_out: bool = False
    proxied: bool = False
    spent: float = 0.0
    seconds: float | None = field(default=None, compare=False)

    @property
    def objective(self) -> float:
        """What the search maximises."""
        return self.scores.objective

    @property
    def probe(self) -> bool:
        """Whether the trial was outside the competition."""
        return self.proposal.probe

    @property
    def competes(self) -> bool:
        """Whether the trial can win: no probe, and scored on all search images, not by a proxy."""
        return not (self.probe or self.screened_out or self.proxied)


class Searcher(Protocol):
    """A policy that proposes ratios. Every implementation passes ``tests/conformance``.

    Contract:
        * **Order.** ``ask`` and ``tell`` take turns: every ``ask`` that returned something is followed by exactly one
          ``tell``, unless the search ends there, with one trial per proposal in the order proposed. Anything else
          (asking again too early, trials missing, added, swapped or of other proposals) raises SearchError and changes
          nothing.
        * **Determinism.** Proposals depend on the constructor's arguments (seed included) and on what was told, on
          nothing else: that is why a search that was killed can be replayed from its journal.
        * **Budget.** A searcher need not know the budget: the driver projects what it proposes. Probes are exempt.
        * **Fidelity.** With screening some trials are told with scores on fewer images, ``trial.screened_out``.
        * **End.** An empty answer is final: there is nothing more to propose. Fewer than `n` proposals are not.
        * **Ownership.** A searcher belongs to one search and one thread, evaluates nothing itself, and keeps no
          reference to files, processes or global random state. Proposals and trials are values that nobody changes.
    """

    @property
    def name(self) -> str:
        """Name of the policy, as in :data:`autoprune.search.policies.POLICIES`."""
        ...

    def ask(self, n: int) -> list[Proposal]:
        """Return up to `n` >= 1 proposals, each with one ratio per decision group; none when the searcher is done.

        Raises:
            SearchError: The last proposals were not told yet, or `n` is below 1.

        """
        ...

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials of the last proposals, in order.

        Raises:
            SearchError: Not the proposals last asked for, or not in their order.

        """
        ...


@runtime_checkable
class FrontSearcher(Protocol):
    """A searcher that ends with plans of several costs: the more one costs, the better it should score."""

    def front(self) -> tuple[Trial, ...]:
        """Return the trials of the front so far, the dearest first; none where the searcher has no front after all."""
        ...


class InOrder:
    """Holds ``tell`` to ``ask``; a searcher owns one and passes everything through it."""

    def __init__(self) -> None:
        self._open: list[Proposal] = []

    def may_ask(self, n: int) -> None:
        """Make sure that `n` proposals may be asked for now; called before the searcher changes anything.

        Raises:
            SearchError: The last proposals were not told yet, or `n` is below 1.

        """
        if self._open:
            raise SearchError(f"{len(self._open)} proposals were asked for and not told; tell their trials first")
        if n < 1:
            raise SearchError(f"expected to be asked for at least 1 proposal, found {n}")

    def asked(self, proposals: Sequence[Proposal]) -> list[Proposal]:
        """Remember what is handed out, and hand it out."""
        self._open = list(proposals)
        return list(proposals)

    def told(self, trials: Sequence[Trial]) -> None:
        """Check that `trials` answer what was handed out; called before the searcher changes anything.

        Raises:
            SearchError: They do not, or not in the order asked.

        """
        if [trial.proposal for trial in trials] != self._open:
            raise SearchError(
                f"expected the trials of the {len(self._open)} proposals last asked for, in that order; found "
                f"{len(trials)} trials that do not match"
            )
        self._open = []
