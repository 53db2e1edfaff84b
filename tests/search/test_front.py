"""The multi-objective search: a front over a range of costs, and what it is held to."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from autoprune.errors import SearchError
from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.front import CostRange, FrontSearch, pareto_front
from autoprune.search.journal import Journal
from autoprune.search.searcher import FrontSearcher, Proposal, Trial
from autoprune.search.warm_start import WarmStart, exact_policy
from tests.search.small_problems import FormulaEvaluator, small_problem

WEIGHTS = (1, 3, 9)
EVALUATIONS = 100

PROBLEMS = {
    "macs": (small_problem("macs=80%"), "macs=30%"),
    "params": (small_problem("params=70%"), "params=20%"),
    "not limited": (small_problem("params=70%"), "macs=40%"),
    "two limits": (small_problem("macs=80%,params=50%"), "macs=30%"),
    "multiples of 4": (small_problem("macs=80%", round_to=4), "macs=30%"),
}
on_every_problem = pytest.mark.parametrize(("problem", "least"), PROBLEMS.values(), ids=PROBLEMS)


def search(
    problem: PruningProblem, least: str, *, seed: int = 0, batch: int = 1, warm: bool = False, evaluations: int = 100
) -> SearchResult:
    searcher = FrontSearch(problem, seed, evaluations, CostRange.parse(least, problem), warm=warm)
    with Journal("sqlite://") as journal:
        return run_search(
            problem,
            FormulaEvaluator(problem, WEIGHTS),
            searcher,
            evaluations=evaluations,
            journal=journal,
            batch=batch,
        )


def hypervolume(points: list[tuple[float, float]], most: float, worst: float) -> float:
    """Return the area that ``(cost, objective)`` points dominate, up to the cost `most` and down from `worst`."""
    area, height = 0.0, 0.0
    for (cost, objective), following in pairwise([*sorted(points), (most, 0.0)]):
        height = max(height, objective - worst)
        area += height * (following[0] - cost)
    return area


@on_every_problem
def test_every_trial_lies_in_the_range(problem: PruningProblem, least: str) -> None:
    costs = CostRange.parse(least, problem)
    result = search(problem, least)
    assert len({trial.policy for trial in result.trials}) == len(result.trials) <= EVALUATIONS
    for trial in result.trials:
        assert problem.fits(trial.kept)
        assert trial.policy == trial.proposal.policy  # within budget before the driver looks
        if trial.cost[costs.quantity] < costs.least:  # filled: with one group a width wider it would be in the range
            for index, width in enumerate(problem.widths):
                wider = [count for count in width.tolist() if count > trial.kept[index]][:1]
                kept = [*trial.kept[:index], *wider, *trial.kept[index + 1 :]]
                assert not wider or problem.cost(kept)[costs.quantity] > costs.least or not problem.fits(kept)


@on_every_problem
def test_the_front_is_what_no_trial_beats(problem: PruningProblem, least: str) -> None:
    result = search(problem, least)
    quantity = CostRange.parse(least, problem).quantity
    front = [(trial.cost[quantity], trial.objective) for trial in result.front]
    assert all(cost > after and score > worse for (cost, score), (after, worse) in pairwise(front))
    for trial in result.trials:
        assert any(cost <= trial.cost[quantity] and score >= trial.objective for cost, score in front)
    assert all(trial in result.trials for trial in result.front)
    assert result.front[0].objective == result.best.objective


def test_it_covers_the_range_and_comes_close_to_the_true_front() -> None:
    problem, least = PROBLEMS["macs"]
    costs, evaluator = CostRange.parse(least, problem), FormulaEvaluator(problem, WEIGHTS)
    span, front = costs.most - costs.least, search(problem, least).front
    assert len({trial.kept for trial in front}) == len(front) >= 8
    assert front[0].cost["macs"] > costs.most - 0.05 * span
    assert front[-1].cost["macs"] < costs.least + 0.05 * span
    assert max(dear.cost["macs"] - cheap.cost["macs"] for dear, cheap in pairwise(front)) < 0.25 * span
    every = []
    for kept in product(*(width[::2].tolist() for width in problem.widths)):
        cost = problem.cost(kept)["macs"]
        if costs.least <= cost <= costs.most:
            every.append((cost, float(evaluator.weights @ np.sqrt(np.array(kept) / problem.costs.full()) / 13)))
    found = hypervolume([(trial.cost["macs"], trial.objective) for trial in front], costs.most, worst=0.7)
    assert found > 0.9 * hypervolume(every, costs.most, worst=0.7)


def test_what_lies_outside_is_reflected_at_the_end() -> None:
    costs = CostRange("macs", 30, 80)
    assert [costs.reflected(cost) for cost in (30, 57, 80, 29, 5, 81, 100, 0, 140)] == [
        30,
        57,
        80,
        31,
        55,
        79,
        60,
        60,
        30,
    ]
    assert CostRange("macs", 60, 80).reflected(5) == 80
    problem, least = PROBLEMS["macs"]
    trials, range_ = search(problem, least).trials, CostRange.parse(least, problem)
    near = 0.03 * (range_.most - range_.least)
    ends = [trial for trial in trials if not range_.least + near < trial.cost["macs"] < range_.most - near]
    assert len(ends) < 0.15 * len(trials)


def test_later_generations_improve_on_the_first() -> None:
    problem, least = PROBLEMS["macs"]
    trials = search(problem, least).trials
    most = problem.limits["macs"]
    areas = [
        hypervolume([(trial.cost["macs"], trial.objective) for trial in trials[:n]], most, worst=0.7)
        for n in (12, 40, 100)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_a_warm_one_starts_with_exact_allocations() -> None:
    problem, least = PROBLEMS["macs"]
    costs = CostRange.parse(least, problem)
    trials = search(problem, least, warm=True, evaluations=80).trials[:10]
    shares = np.linspace(1, 0, 10).tolist()
    assert [trial.policy for trial in trials] == [exact_policy(costs.limited(problem, costs.at(s))) for s in shares]
    with pytest.raises(SearchError, match="needs reconstruction errors"):
        FrontSearch(small_problem("macs=80%", measured=False), 0, 10, costs, warm=True)


@pytest.mark.parametrize("batch", [3, 16, 1000])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    problem, least = PROBLEMS["macs"]
    assert search(problem, least, batch=batch).trials == search(problem, least).trials


def test_the_seed_determines_everything() -> None:
    problem, least = PROBLEMS["macs"]
    first, again, other = (search(problem, least, seed=seed, evaluations=40) for seed in (1, 1, 2))
    assert (first.trials, first.front) == (again.trials, again.front)
    assert first.trials != other.trials
    with pytest.raises(SearchError, match="seed of at least 0"):
        search(problem, least, seed=-1)


def test_a_search_that_goes_on_after_given_policies_has_the_same_front() -> None:
    problem, least = PROBLEMS["macs"]
    inner = FrontSearch(problem, 0, 20, CostRange.parse(least, problem))
    searcher = WarmStart(inner, [PruningPolicy.uniform(0.5, 3)])
    assert isinstance(searcher, FrontSearcher)
    with Journal("sqlite://") as journal:
        result = run_search(problem, FormulaEvaluator(problem), searcher, evaluations=20, journal=journal)
    assert result.front == inner.front() != ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("macs", "cannot read"),
        ("speed=3", "unknown budget quantity"),
        ("macs=1%", "smallest reachable"),
        ("macs=80%", "not below the budget"),
        ("macs=30%,params=30%", "expected one quantity"),
        ("latency=3ms", "latency table"),
    ],
)
def test_a_lower_end_that_is_none_is_refused(text: str, found: str) -> None:
    with pytest.raises(SearchError, match=f"lower end of the front: .*{found}"):
        CostRange.parse(text, small_problem("macs=80%"))


def test_equals_and_candidates_outside_the_competition() -> None:
    def trial(number: int, cost: int, objective: float, loss: float = 1.0, *, probe: bool = False) -> Trial:
        policy = PruningPolicy.uniform(number / 100, 3)
        scores = Scores(objective, None, loss, None, None, 100)
        return Trial(number, Proposal(policy, probe=probe), policy, (), {"macs": cost}, scores)

    trials = [
        trial(1, 50, 0.8),
        trial(2, 40, 0.8),  # as good for less
        trial(3, 30, 0.7, 1.0),
        trial(4, 30, 0.7, 0.5),  # equal, with a lower loss
        trial(5, 30, 0.7, 0.5),
        trial(6, 60, 0.9, probe=True),
        replace(trial(7, 10, 0.9), screened_out=True),
        trial(8, 45, 0.75),
    ]
    assert [each.number for each in pareto_front(trials, "macs")] == [2, 4]
    assert pareto_front([], "macs") == ()
