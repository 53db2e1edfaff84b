"""A search by a proxy: its winner alone competes, with the scores of the real evaluator."""

from autoprune.search.answers import Answers
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.evidence import known_trials
from autoprune.search.journal import Journal
from autoprune.search.pool import SerialPool
from autoprune.search.proxied import judged
from autoprune.search.random_search import RandomSearch
from autoprune.search.screening import Screening
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem()


def searched(journal: Journal, screening: Screening | None = None) -> tuple[SearchResult, SearchResult]:
    """Return what a proxy found, and the same judged."""
    proxy, real = FormulaEvaluator(PROBLEM, [9, 1, 0]), FormulaEvaluator(PROBLEM)
    found = run_search(
        PROBLEM,
        proxy,
        RandomSearch(PROBLEM, 0),
        evaluations=24,
        journal=journal,
        batch=8,
        screening=screening,
    )
    return found, judged(found, Answers(real, journal, SerialPool(), lambda: False))


def test_only_the_winner_competes_as_the_real_evaluator_scores_it() -> None:
    with Journal("sqlite://") as journal:
        found, result = searched(journal)
        again = searched(journal)[1]
    assert result.trials[:-1] != found.trials
    assert [trial.kept for trial in result.trials[:-1]] == [trial.kept for trial in found.trials]
    assert not any(trial.competes for trial in result.trials[:-1])
    assert result.best is result.trials[-1]
    assert result.best.competes
    assert (result.best.number, result.best.kept) == (25, found.best.kept)
    assert result.best.scores == FormulaEvaluator(PROBLEM).evaluate(PROBLEM.plan(found.best.policy))
    assert result.best.spent == found.trials[-1].spent + 1
    assert (result.evaluated, len(result.asked)) == (25, 25)
    assert (again.trials, again.best, again.evaluated) == (result.trials, result.best, 0)
    assert [known.objective for known in known_trials(result.trials, "metapruning", trained=False)] == [
        result.best.objective
    ]


def test_with_screening_it_costs_one_evaluation_more() -> None:
    with Journal("sqlite://") as journal:
        found, result = searched(journal, Screening(50))
    assert found.screening is not None
    assert result.screening is not None
    assert result.screening.full == found.screening.full + 1
