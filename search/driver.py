"""The loop of every search: ask, project, evaluate, record, tell."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.search.journal import Journal
from autoprune.search.searcher import Proposal, Searcher, Trial


class PlanEvaluator(Protocol):
    """What the driver needs of an evaluator; see :class:`autoprune.evaluation.evaluator.Evaluator`."""

    settings_key: str

    def evaluate(self, plan: Plan) -> Scores:
        """Return the scores of a plan: a pure function of `settings_key` and `plan`."""
        ...


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The trial within budget with the highest objective; of equals the lower loss, then the earlier.
        trials: All trials, in order.
        evaluated: How many plans were evaluated now; the rest came from the journal.
        seconds: Wall time.

    """

    best: Trial
    trials: tuple[Trial, ...]
    evaluated: int
    seconds: float

    @property
    def cached(self) -> int:
        """Trials that the journal answered."""
        return len(self.trials) - self.evaluated


def run_search(  # noqa: PLR0913 - one keyword per thing the caller owns
    problem: PruningProblem,
    evaluator: PlanEvaluator,
    searcher: Searcher,
    *,
    evaluations: int,
    journal: Journal,
    batch: int = 1,
    progress: Callable[[int, int, Trial], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Run `searcher` for at most `evaluations` trials.

    Trials count whether they are evaluated or answered by the journal, so a search that is run again, or beside others
    on the same journal, takes the same path and ends with the same result.

    Args:
        problem: What policies are projected onto.
        evaluator: Scores plans.
        searcher: Proposes policies; fresh, of this problem.
        evaluations: Most trials, probes included; at least 1.
        journal: Answers and remembers evaluations.
        batch: Proposals asked for at a time.
        progress: Called after every trial with trials done, trials at most, and the trial.
        should_stop: Asked before every evaluation.

    Raises:
        SearchError: Bad numbers, a broken searcher, or no trial within budget.
        Cancelled: `should_stop` said so.

    """
    if evaluations < 1 or batch < 1:
        raise SearchError(
            f"expected at least one evaluation and a batch of at least 1, found {evaluations} and {batch}"
        )
    started = time.monotonic()
    trials: list[Trial] = []
    evaluated = 0
    while len(trials) < evaluations:
        proposals = searcher.ask(min(batch, evaluations - len(trials)))
        if not proposals:
            break
        answered: list[Trial] = []
        for proposal in proposals:
            if should_stop():
                raise Cancelled(f"the search was stopped after {len(trials) + len(answered)} trials")
            trial, fresh = _try(problem, evaluator, journal, proposal, len(trials) + len(answered))
            evaluated += fresh
            answered.append(trial)
            if progress is not None:
                progress(len(trials) + len(answered), evaluations, trial)
        searcher.tell(answered)
        trials += answered
    competing = [trial for trial in trials if not trial.probe]
    if not competing:
        raise SearchError(f"policy {searcher.name!r} proposed nothing within {evaluations} evaluations; allow more")
    best = min(competing, key=lambda trial: (-trial.objective, trial.scores.regret, trial.number))
    return SearchResult(best, tuple(trials), evaluated, time.monotonic() - started)


def _try(
    problem: PruningProblem, evaluator: PlanEvaluator, journal: Journal, proposal: Proposal, number: int
) -> tuple[Trial, bool]:
    """Project, look up or evaluate and record; tell whether it had to be evaluated."""
    asked = proposal.policy
    policy = problem.policy(problem.kept(asked)) if proposal.probe else problem.project(asked)
    kept = problem.kept(policy)
    assert proposal.probe or problem.fits(kept), "projection broke the budget"
    plan = problem.plan(policy)
    scores = journal.get(evaluator.settings_key, plan)
    fresh = scores is None
    if scores is None:
        scores = evaluator.evaluate(plan)
        journal.put(evaluator.settings_key, plan, scores)
    return Trial(number, proposal, policy, tuple(kept.tolist()), problem.cost(kept), scores), fresh
