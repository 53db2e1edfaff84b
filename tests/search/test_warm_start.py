"""A warm start tries given policies first and leaves the searcher's own path alone."""

import pytest

from autoprune.errors import SearchError
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.search.searcher import Searcher, Trial
from autoprune.search.warm_start import WarmStart, exact_policy
from tests.search.small_problems import FormulaEvaluator, small_problem

PROBLEM = small_problem()


def _run(searcher: Searcher, evaluations: int, batch: int = 1) -> tuple[Trial, ...]:
    with Journal("sqlite://") as journal:
        return run_search(
            PROBLEM, FormulaEvaluator(PROBLEM), searcher, evaluations=evaluations, journal=journal, batch=batch
        ).trials


@pytest.mark.parametrize("name", ["random", "sensitivity"])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_given_policy_comes_first_and_the_rest_is_the_searchers_own(name: str, batch: int) -> None:
    first = exact_policy(PROBLEM)
    warm = _run(WarmStart(make_searcher(name, PROBLEM, seed=1, evaluations=30), [first]), 31, batch)
    cold = _run(make_searcher(name, PROBLEM, seed=1, evaluations=30), 30)
    assert warm[0].policy == first
    assert PROBLEM.fits(warm[0].kept)
    assert [trial.kept for trial in warm[1:]] == [trial.kept for trial in cold]


def test_trials_of_other_proposals_are_refused() -> None:
    searcher = WarmStart(make_searcher("random", PROBLEM, seed=1, evaluations=5), [exact_policy(PROBLEM)])
    searcher.ask(1)
    with pytest.raises(SearchError, match="expected the trials of the 1 proposals"):
        searcher.tell([])


def test_a_problem_without_statistics_has_no_warm_start() -> None:
    with pytest.raises(SearchError, match="needs reconstruction errors"):
        exact_policy(small_problem(measured=False))
