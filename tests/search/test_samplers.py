"""Optuna's samplers behind ask and tell: what they are told, what they may cost, and that they find an optimum."""

import itertools
from collections.abc import Sequence

import pytest

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.samplers import SAMPLERS, SamplerSearch
from autoprune.search.searcher import Trial
from tests.search.small_problems import FormulaEvaluator, small_problem

WEIGHTS = (1.0, 3.0, 9.0)

#: So few policies that all can be tried.
SMALL = small_problem("macs=50%", round_to=4)

#: Evaluations within which the best of them is found; a Gaussian process thinks for long and needs few.
ENOUGH = {"gp": 16}


def search(name: str, problem: PruningProblem, evaluations: int) -> SearchResult:
    with Journal("sqlite://") as journal:
        return run_search(
            problem,
            FormulaEvaluator(problem, WEIGHTS),
            SamplerSearch(problem, 0, evaluations, name),
            evaluations=evaluations,
            journal=journal,
        )


def optimum(problem: PruningProblem) -> float:
    """The best score within the budget, by trying everything."""
    evaluator = FormulaEvaluator(problem, WEIGHTS)
    return max(
        evaluator.evaluate(problem.plan(problem.policy(kept))).objective
        for kept in itertools.product(*(width.tolist() for width in problem.widths))
        if problem.fits(kept)
    )


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"qmc"}))
def test_the_optimum_of_a_small_problem_is_found(name: str) -> None:
    result = search(name, SMALL, ENOUGH.get(name, 60))
    assert result.best.objective == pytest.approx(optimum(SMALL))


def test_a_sequence_that_learns_nothing_comes_close() -> None:
    assert search("qmc", SMALL, 60).best.objective > 0.98 * optimum(SMALL)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"gp"}))
def test_nothing_is_proposed_twice_and_a_search_that_knows_everything_ends(name: str) -> None:
    few = small_problem("macs=50%", round_to=8)
    result = search(name, few, 200)
    assert len({trial.kept for trial in result.trials}) == len(result.trials) < 200
    assert result.best.objective == pytest.approx(optimum(few))


def test_a_sampler_that_models_scores_learns_what_was_evaluated() -> None:
    searcher, evaluator = SamplerSearch(SMALL, 0, 40, "tpe"), FormulaEvaluator(SMALL, WEIGHTS)
    told: dict[tuple[float, ...], float] = {}
    for _ in range(3):
        trials = [
            Trial(1, proposal, proposal.policy, (), {}, evaluator.evaluate(SMALL.plan(proposal.policy)))
            for proposal in searcher.ask(100)
        ]
        searcher.tell(trials)
        told |= {trial.policy.ratios: trial.objective for trial in trials}
    complete = [trial for trial in searcher._study._study.trials if trial.values is not None]
    assert len(told) >= 8
    for ratios, objective in told.items():
        assert any(
            trial.value == objective and distance(ratios, [trial.params[name] for name in SMALL.names]) < 1e-9
            for trial in complete
        )


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest difference of two policies."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(SearchError, match="seed of at least 0"):
        SamplerSearch(SMALL, -1, 10, "tpe")
