"""NetAdapt: shrink one group at a time, a little, always the one that costs least accuracy (Yang et al. 2018)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from autoprune.errors import SearchError
from autoprune.problem import Counts, PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search._descent import Descent, narrower, schedule_for
from autoprune.search.searcher import InOrder, Proposal, Trial

#: How the best proposal of an iteration is chosen: ``"paper"``, the highest accuracy; ``"official"`` (the authors'
#: code), the least accuracy lost per resource saved, which savings beyond the target of an iteration can win.
Rule = Literal["paper", "official"]

#: Evaluations besides the iterations: the unpruned network, and the last proposal.
FRAME = 2

#: Times that a target is halved because no group meets it alone, before the path ends.
HALVINGS = 30


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """A proposal, the counts it keeps, ``(n_groups,)``, and how far down it is."""

    proposal: Proposal
    kept: Counts
    progress: float


class NetAdapt:
    """Goes from the whole network down to the budget, and keeps the path (1804.03230, algorithm 1).

    1. **Iteration** t lowers the resource by dR_t (:class:`autoprune.search._descent.Schedule` derives dR_0 and decay
       from the budget and the evaluations allowed). Every group alone is set to its largest width that meets the
       target; a group without one proposes nothing. Where no group has one, the step is halved.
    2. **Choice**: all proposals are scored, the best by `rule` is where the next iteration starts. Equal accuracies,
       which few images often give, are told apart by the loss.
    3. **End**: once an accepted network holds the budget, the best network within it is filled up where something is
       left. Where the evaluations end before that, what was reached is projected onto the budget.

    The resource is whatever the problem limits; with several limits all shrink in step (:class:`Descent`). Where the
    evaluations do not suffice for every group in every iteration, those groups propose whose reconstruction errors rise
    least (without statistics: those that lose the smallest share of their channels).

    Proposals above the budget are probes; those within it compete. Each names the accepted policies before it
    (:attr:`Proposal.parents`), so that an evaluator may train it from the weights of the last one. Deterministic
    without a seed; the same for every batch size.
    """

    name = "netadapt"

    def __init__(self, problem: PruningProblem, evaluations: int, *, rule: Rule = "official") -> None:
        """Derive the schedule for at most `evaluations` trials; no evaluation.

        Raises:
            SearchError: Fewer than three evaluations, or an unknown rule.

        """
        if evaluations <= FRAME:
            raise SearchError(
                f"policy 'netadapt' needs at least {FRAME + 1} evaluations (a dozen per group are a good start), found "
                f"{evaluations}; allow more"
            )
        if rule not in get_args(Rule):
            raise SearchError(f"netadapt chooses by the rules {', '.join(get_args(Rule))}; found {rule!r}")
        self._problem, self._rule = problem, rule
        self._descent = Descent.of(problem)
        self._schedule = schedule_for(problem, self._descent, evaluations - FRAME)
        self._left = evaluations - FRAME  # proposals that iterations may still make
        self._iteration = 0
        self._ended = False
        self._kept, self._progress = problem.costs.full(), 0.0
        self._accepted: list[Trial] = []
        self._best: tuple[Counts, Trial] | None = None
        self._told: list[tuple[_Draft, Trial]] = []
        self._open: list[_Draft] = []
        self._order = InOrder()
        self._queue = [_Draft(Proposal(problem.policy(self._kept), probe=True), self._kept, 0.0), *self._iterate()]

    def front(self) -> tuple[Trial, ...]:
        """Return the whole network, the accepted steps above the budget, and the best trial within it: a Pareto front.

        The resource falls from each to the next. Grows with the search; the last trial may change until the end.
        """
        above = [trial for trial in self._accepted if trial.probe]
        return (*above, *([] if self._best is None else [self._best[1]]))

    def ask(self, n: int) -> list[Proposal]:
        """Return the next proposals of the iteration; none at the end of the path."""
        self._order.may_ask(n)
        self._open, self._queue = self._queue[:n], self._queue[n:]
        return self._order.asked([draft.proposal for draft in self._open])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; with the last of an iteration the best is accepted and the next one is ready."""
        self._order.told(trials)
        for draft, trial in zip(self._open, trials, strict=True):
            self._told.append((draft, trial))
            if trial.competes and (self._best is None or _rank(trial) < _rank(self._best[1])):
                self._best = (draft.kept, trial)
        self._open = []
        if not self._queue and not self._ended:
            self._accept()
            self._queue = ([] if self._progress >= 1 else self._iterate()) or self._end()

    def _accept(self) -> None:
        """Go on from the best proposal of the iteration; the very first round holds the whole network too."""
        told, self._told = self._told, []
        if not self._accepted:
            self._accepted.append(told.pop(0)[1])
        candidates = [(draft, trial) for draft, trial in told if not trial.screened_out]
        if candidates:
            draft, trial = min(candidates, key=lambda candidate: self._loss(*candidate))
            self._accepted.append(trial)
            self._kept, self._progress = draft.kept, draft.progress

    def _loss(self, draft: _Draft, trial: Trial) -> tuple[float, float, float]:
        """Return what a proposal costs by the rule, lower is better, of equals the larger saving; then the earlier."""
        before = self._accepted[-1]
        saved = self._saved(draft.progress)
        per = saved if self._rule == "official" else 1.0
        lost, regret = before.objective - trial.objective, trial.scores.regret - before.scores.regret
        return lost / per, regret / per, -saved

    def _saved(self, progress: float) -> float:
        """Return the progress from the current network; what is saved below the budget is worth nothing."""
        return min(1.0, progress) - self._progress

    def _iterate(self) -> list[_Draft]:
        """Return the next iteration: every group alone, shrunk until the target is met; nothing where none can."""
        self._iteration += 1
        most = max(1, self._left // self._ahead())
        if self._left < 1:
            return []
        step = self._schedule.progress(self._iteration)
        for halvings in range(HALVINGS):
            target = self._descent.target(min(1.0, self._progress + step / 2**halvings))
            found = [narrower(self._problem, self._kept, g, target) for g in range(len(self._problem.groups))]
            drafts = [self._draft(kept) for kept in found if kept is not None]
            drafts = [draft for draft in drafts if draft.progress > self._progress]
            if drafts:
                chosen = drafts if len(drafts) <= most else self._promising(drafts, most)
                self._left -= len(chosen)
                return chosen
        return []

    def _ahead(self) -> int:
        """Return how many iterations are still to come, this one included: as planned, or fewer at the pace so far.

        Coarse widths overshoot their targets; what evaluations that leaves goes to more proposals per iteration.
        """
        planned = self._schedule.steps - self._iteration + 1
        if self._iteration > 1 and self._progress > 0:
            planned = min(planned, math.ceil((1 - self._progress) * (self._iteration - 1) / self._progress))
        return max(1, planned)

    def _draft(self, kept: Counts) -> _Draft:
        """Propose counts: above the budget a probe."""
        cost = self._problem.cost(kept)
        policy = self._problem.policy(kept)
        parents = tuple(trial.policy for trial in self._accepted[1:])
        return _Draft(
            Proposal(policy, probe=not self._problem.fits(kept), parents=parents), kept, self._descent.progress(cost)
        )

    def _promising(self, drafts: Sequence[_Draft], most: int) -> list[_Draft]:
        """Return the `most` drafts whose errors rise least, by the rule, in the order of the groups."""
        rises = [self._rise(draft.kept) for draft in drafts]
        if self._rule == "official":
            rises = [rise / self._saved(draft.progress) for rise, draft in zip(rises, drafts, strict=True)]
        best = np.argsort(rises, kind="stable")[:most]
        return [drafts[index] for index in sorted(best.tolist())]

    def _rise(self, kept: Counts) -> float:
        """Return by how much the reconstruction errors rise at `kept`; without them, the share of channels that go."""
        errors = self._problem.errors
        if errors is None:
            return float((1 - kept / self._kept).sum())
        places = [
            (np.searchsorted(width, now), np.searchsorted(width, then))
            for width, now, then in zip(self._problem.widths, self._kept, kept, strict=True)
        ]
        return float(sum(error[then] - error[now] for error, (now, then) in zip(errors, places, strict=True)))

    def _end(self) -> list[_Draft]:
        """Return the last proposal: the best network within budget, or else the current one, fitted and filled up."""
        self._ended = True
        kept = self._kept if self._best is None else self._best[0]
        policy: PruningPolicy = self._problem.project(self._problem.policy(kept), fill=True)
        last = self._problem.kept(policy)
        return [] if self._best is not None and bool((last == kept).all()) else [self._draft(last)]


def _rank(trial: Trial) -> tuple[float, float]:
    """Return the order among trials within budget, lower is better: that of the driver."""
    return -trial.objective, trial.scores.regret
