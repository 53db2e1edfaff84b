"""Every policy that searches freely finds the best of all policies, known from trying every one of them."""

from functools import cache
from itertools import product

import pytest

from autoprune.problem import PruningProblem
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from tests.search.small_problems import FormulaEvaluator, small_problem

WEIGHTS = (1, 3, 9)
EVALUATIONS = {"evolution": 80, "tpe": 80, "cmaes": 80, "nsga2": 80, "qmc": 80, "gp": 40}


@cache
def problem_and_optimum() -> tuple[PruningProblem, float]:
    problem = small_problem("macs=50%", round_to=2)
    evaluator = FormulaEvaluator(problem, WEIGHTS)
    within = [kept for kept in product(*(width.tolist() for width in problem.widths)) if problem.fits(kept)]
    assert len(within) > 1000
    return problem, max(evaluator.evaluate(problem.plan(problem.policy(kept))).objective for kept in within)


def best_of(name: str, seed: int) -> float:
    problem, _ = problem_and_optimum()
    evaluations = EVALUATIONS[name]
    searcher = make_searcher(name, problem, seed=seed, evaluations=evaluations)
    with Journal("sqlite://") as journal:
        return run_search(
            problem, FormulaEvaluator(problem, WEIGHTS), searcher, evaluations=evaluations, journal=journal, batch=16
        ).best.objective


@pytest.mark.parametrize("name", EVALUATIONS)
def test_the_optimum_is_found_by_one_of_three_seeds(name: str) -> None:
    _, optimum = problem_and_optimum()
    assert any(best_of(name, seed) == pytest.approx(optimum, abs=1e-12) for seed in (5, 6, 7))
