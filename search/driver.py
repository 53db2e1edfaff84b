"""Runs a search: what any policy proposes, within its evaluations, with a journal; and who wins."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.problem import PruningProblem
from autoprune.search._loop import Loop, ProgressCallback
from autoprune.search.answers import Answers
from autoprune.search.journal import Journal
from autoprune.search.pool import EvaluationPool, SerialPool, ShouldStop, never
from autoprune.search.screening import Screening, ScreeningRecord
from autoprune.search.searcher import FrontSearcher, Searcher, Trial


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The competing trial with the highest objective; of equals the lower loss, then the earlier.
        trials: All trials, in order.
        evaluated: Trials for which something had to be evaluated now; the others came from the journal alone.
        seconds: Wall time.
        screening: What screening did; None without screening.
        front: Plans of several costs, the dearest first, of policies that look for such a front.
        asked: Keys of the evaluations that the trials rest on, as they stand in the journal; each counts once.

    """

    best: Trial
    trials: tuple[Trial, ...]
    evaluated: int
    seconds: float
    screening: ScreeningRecord | None = None
    front: tuple[Trial, ...] = ()
    asked: frozenset[tuple[str, str]] = frozenset()

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
    pool: EvaluationPool | None = None,
    screening: Screening | None = None,
    thought_s: float = 0.0,
    progress: ProgressCallback | None = None,
    should_stop: ShouldStop = never,
) -> SearchResult:
    """Run `searcher` until `evaluations` are spent, or until it has nothing more to propose.

    Every trial costs one evaluation; with screening a cheap score costs its share of the images, so there may be more
    trials. Trials count whether they are evaluated or answered by the journal, so a search that is run again, or beside
    others on the same journal, or with other workers, takes the same path and ends with the same result.

    Args:
        problem: What policies are projected onto.
        evaluator: Scores plans of this problem.
        searcher: Proposes policies; fresh, of this problem.
        evaluations: What may be spent, in evaluations on all search images, probes included; at least 1.
        journal: Answers and remembers evaluations.
        batch: Most proposals asked for at a time: what a pool's workers share, and what screening chooses from.
        pool: Where plans are evaluated; in this process if None.
        screening: Score proposals on fewer images first; None: all on all images.
        thought_s: What making the searcher took, for the seconds of the trials.
        progress: Called after every trial.
        should_stop: Asked before every evaluation and trial, and several times a second while waiting for a pool.

    Raises:
        SearchError: Bad numbers, another problem's evaluator, a broken searcher, or no trial within budget.
        PoolError: A worker was lost; run the search again to go on.
        Cancelled: `should_stop` said so.

    """
    if evaluations < 1 or batch < 1:
        raise SearchError(
            f"expected at least one evaluation and a batch of at least 1, found {evaluations} and {batch}"
        )
    if evaluator.problem.network is not problem.network:
        raise SearchError("the evaluator scores another network than the problem's; make both from the same one")
    if screening is not None:
        screening.check(evaluator.search_images, batch)
    started = time.monotonic()
    answers = Answers(evaluator, journal, pool or SerialPool(), should_stop)
    loop = Loop(problem, searcher, answers, screening, evaluations, thought_s)
    try:
        loop.run(batch, progress)
    except Cancelled as error:
        raise Cancelled(
            f"the search was stopped after {loop.spent} of {evaluations} evaluations; their scores are in the journal, "
            "run it again to go on"
        ) from error
    best = best_trial(loop.trials)
    if best is None:
        raise SearchError(
            f"policy {searcher.name!r} proposed nothing within budget in {len(loop.trials)} trials, {evaluations} were "
            "allowed; allow more"
        )
    seconds = time.monotonic() - started
    front = searcher.front() if isinstance(searcher, FrontSearcher) else ()
    return SearchResult(
        best, tuple(loop.trials), loop.evaluated, seconds, loop.screening_record(), front, answers.asked
    )


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the competing trial with the highest objective, of equals the lower loss, then the earlier; None if none.

    Whatever competes is within budget: the driver projects it.
    """
    competing = [trial for trial in trials if trial.competes]
    return min(competing, key=lambda trial: (-trial.objective, trial.scores.regret, trial.number), default=None)
