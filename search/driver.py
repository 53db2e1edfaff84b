"""The loop of every search: ask, project, evaluate, record, tell."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.problem import PruningProblem
from autoprune.search.journal import Journal
from autoprune.search.searcher import Proposal, Searcher, Trial

#: Called after every trial with trials done, trials at most (a search may end earlier), and the trial.
ProgressCallback = Callable[[int, int, Trial], None]


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


def run_search(
    problem: PruningProblem,
    evaluator: PlanEvaluator,
    searcher: Searcher,
    *,
    evaluations: int,
    journal: Journal,
    batch: int = 1,
    progress: ProgressCallback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SearchResult:
    """Run `searcher` for at most `evaluations` trials, or until it has nothing more to propose.

    Trials count whether they are evaluated or answered by the journal, so a search that is run again, or beside others
    on the same journal, takes the same path and ends with the same result.

    Args:
        problem: What policies are projected onto.
        evaluator: Scores plans of this problem.
        searcher: Proposes policies; fresh, of this problem.
        evaluations: Most trials, probes included; at least 1.
        journal: Answers and remembers evaluations.
        batch: Most proposals asked for at a time.
        progress: Called after every trial.
        should_stop: Asked before every trial.

    Raises:
        SearchError: Bad numbers, another problem's evaluator, a broken searcher, or no trial within budget.
        Cancelled: `should_stop` said so.

    """
    if evaluations < 1 or batch < 1:
        raise SearchError(
            f"expected at least one evaluation and a batch of at least 1, found {evaluations} and {batch}"
        )
    if evaluator.problem.network is not problem.network:
        raise SearchError("the evaluator scores another network than the problem's; make both from the same one")
    started = time.monotonic()
    trials: list[Trial] = []
    evaluated = 0
    while len(trials) < evaluations:
        proposals = _ask(searcher, min(batch, evaluations - len(trials)))
        if not proposals:
            break
        first = len(trials)
        for proposal in proposals:
            if should_stop():
                raise Cancelled(
                    f"the search was stopped after {len(trials)} of {evaluations} trials; their scores are in the "
                    "journal, run it again to go on"
                )
            trial, fresh = _try(problem, evaluator, journal, proposal, len(trials) + 1)
            evaluated += fresh
            trials.append(trial)
            if progress is not None:
                progress(len(trials), evaluations, trial)
        searcher.tell(trials[first:])
    best = best_trial(trials)
    if best is None:
        raise SearchError(
            f"policy {searcher.name!r} proposed nothing within budget in {len(trials)} trials, {evaluations} were "
            "allowed; allow more"
        )
    return SearchResult(best, tuple(trials), evaluated, time.monotonic() - started)


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest objective, of equals the lower loss, then the earlier; None if all are probes.

    Whatever is no probe is within budget: the driver projects it.
    """
    competing = [trial for trial in trials if not trial.probe]
    return min(competing, key=lambda trial: (-trial.objective, trial.scores.regret, trial.number), default=None)


def _ask(searcher: Searcher, n: int) -> list[Proposal]:
    """Return what the searcher proposes, which may not be more than was asked for."""
    proposals = searcher.ask(n)
    if len(proposals) > n:
        raise SearchError(f"policy {searcher.name!r} made {len(proposals)} proposals, asked for at most {n}")
    return proposals


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
        scores = journal.put(evaluator.settings_key, plan, evaluator.evaluate(plan))
    return Trial(number, proposal, policy, tuple(kept.tolist()), problem.cost(kept), scores), fresh
