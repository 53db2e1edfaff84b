"""The loop of every search: ask, project, evaluate, record, tell."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.plan_evaluator import PathPlan
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.answers import Answer, Answers
from autoprune.search.screening import Screener, Screening, ScreeningRecord
from autoprune.search.searcher import Proposal, Searcher, Trial

#: Called after every trial with the evaluations spent (whole ones; without screening the trials done), those allowed
#: (a search may end earlier), and the trial.
ProgressCallback = Callable[[int, int, Trial], None]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A proposal, what is evaluated for it, and the plan that does so."""

    proposal: Proposal
    policy: PruningPolicy
    kept: tuple[int, ...]
    plan: Plan


class Loop:
    """One search on its way.

    Attributes:
        trials: All trials so far.
        evaluated: Trials for which something had to be evaluated.

    """

    def __init__(
        self,
        problem: PruningProblem,
        searcher: Searcher,
        answers: Answers,
        screening: Screening | None,
        evaluations: int,
        thought_s: float,
    ) -> None:
        self.trials: list[Trial] = []
        self.evaluated = 0
        self._problem = problem
        self._searcher = searcher
        self._answers = answers
        self._evaluations = evaluations
        self._unit = 1 if screening is None else answers.evaluator.search_images  # what one evaluation costs
        self._left = evaluations * self._unit
        self._screener = Screener(screening, self._unit)
        self._thought_s = thought_s  # what the searcher took
        self._waited_s: float | None = 0.0  # what its evaluations took, one after the other; None: not known

    @property
    def spent(self) -> int:
        """Evaluations spent, whole ones."""
        return self._evaluations - -(-self._left // self._unit)

    def run(self, batch: int, progress: ProgressCallback | None) -> None:
        """Ask, try and tell until nothing is left to spend or to propose."""
        while (n := self._screener.affordable(batch, self._left)) > 0:
            started = time.monotonic()
            proposals = _ask(self._searcher, n)
            affordable = self._affordable(proposals)
            first = len(self.trials)
            candidates = [self._project(proposal) for proposal in affordable]
            self._thought_s += time.monotonic() - started
            for trial in self._try(candidates):
                self.trials.append(trial)
                if progress is not None:
                    progress(self.spent, self._evaluations, trial)
            if not proposals or len(affordable) < len(proposals):
                return
            started = time.monotonic()
            self._searcher.tell(self.trials[first:])
            self._thought_s += time.monotonic() - started

    def screening_record(self) -> ScreeningRecord | None:
        """Return what screening did."""
        screened_out = sum(trial.screened_out for trial in self.trials)
        return self._screener.record(screened_out, len(self.trials) - screened_out)

    def _affordable(self, proposals: Sequence[Proposal]) -> Sequence[Proposal]:
        """Return as many of the first proposals as can be paid for; among screened ones, probes are dear."""
        for n in range(len(proposals), 0, -1):
            probes = sum(proposal.probe for proposal in proposals[:n])
            if self._screener.cost(n - probes, probes) <= self._left:
                return proposals[:n]
        return []

    def _project(self, proposal: Proposal) -> _Candidate:
        """Bring a proposal within the budget, unless it is a probe."""
        problem, asked = self._problem, proposal.policy
        policy = problem.policy(problem.kept(asked)) if proposal.probe else problem.project(asked)
        kept = problem.kept(policy)
        assert proposal.probe or problem.fits(kept), "projection broke the budget"
        plan = problem.plan(policy)
        if proposal.parents and self._answers.evaluator.follows_path:
            plan = PathPlan.of(plan, [problem.plan(parent) for parent in proposal.parents])
        return _Candidate(proposal, policy, tuple(kept.tolist()), plan)

    def _try(self, candidates: Sequence[_Candidate]) -> Generator[Trial]:
        """Yield the trials of a batch, in order, as soon as each is known."""
        cheap = self._cheap(candidates)
        full = _promoted(self._screener, cheap)
        plans = [candidate.plan for candidate, promoted in zip(candidates, full, strict=True) if promoted]
        with closing(self._answers.of(plans)) as arriving:
            for candidate, first, promoted in zip(candidates, cheap, full, strict=True):
                self._check_stop()
                second = next(arriving) if promoted else None
                if second is not None:
                    self._left -= self._unit
                    if first is not None:
                        self._screener.learn(first.scores, second.scores)
                yield self._trial(candidate, first, second)

    def _cheap(self, candidates: Sequence[_Candidate]) -> list[Answer | None]:
        """Return the cheap scores of a batch; None for probes, and for all where nothing is screened."""
        images = self._screener.images
        competing = [candidate.plan for candidate in candidates if not candidate.proposal.probe]
        if images is None or not self._screener.screens(len(competing)):
            return [None] * len(candidates)
        cheap: list[Answer | None] = []
        with closing(self._answers.of(competing, images=images)) as arriving:
            for candidate in candidates:
                if candidate.proposal.probe:
                    cheap.append(None)
                    continue
                self._check_stop()
                cheap.append(next(arriving))
                self._left -= images
        return cheap

    def _trial(self, candidate: _Candidate, cheap: Answer | None, full: Answer | None) -> Trial:
        """Make the next trial of what is known of a candidate."""
        answer = full or cheap
        assert answer is not None, "every candidate is scored"
        self.evaluated += (cheap is not None and cheap.fresh) or (full is not None and full.fresh)
        for each in (cheap, full):
            if each is not None and self._waited_s is not None:
                self._waited_s = None if each.seconds is None else self._waited_s + each.seconds
        return Trial(
            len(self.trials) + 1,
            candidate.proposal,
            candidate.policy,
            candidate.kept,
            self._problem.cost(candidate.kept),
            answer.scores,
            screened_out=full is None,
            spent=self._evaluations - self._left / self._unit,
            seconds=None if self._waited_s is None else self._thought_s + self._waited_s,
        )

    def _check_stop(self) -> None:
        """Raise Cancelled where the owner of the search asked for it."""
        if self._answers.should_stop():
            raise Cancelled("the search was stopped")


def _promoted(screener: Screener, cheap: Sequence[Answer | None]) -> list[bool]:
    """Tell which of a batch are scored on all images: the best, and whatever has no cheap score."""
    best = iter(screener.best([answer.scores for answer in cheap if answer is not None]))
    return [True if answer is None else next(best) for answer in cheap]


def _ask(searcher: Searcher, n: int) -> list[Proposal]:
    """Return what the searcher proposes, which may not be more than was asked for."""
    proposals = searcher.ask(n)
    if len(proposals) > n:
        raise SearchError(f"policy {searcher.name!r} made {len(proposals)} proposals, asked for at most {n}")
    return proposals
