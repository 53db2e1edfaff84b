"""The path of NetAdapt: what each step keeps to, what it finds, and that it is the same however it was walked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from autoprune.errors import SearchError
from autoprune.problem import Counts, PruningProblem
from autoprune.search._descent import Descent, Schedule, narrower, schedule_for
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.netadapt import FRAME, NetAdapt, Rule
from autoprune.search.screening import Screening
from autoprune.search.searcher import Trial
from autoprune.search.warm_start import WarmStart, exact_policy
from tests.search.small_problems import WIDTHS, FormulaEvaluator, small_problem

Cost = Callable[[Counts], int]


@dataclass(frozen=True)
class OneQuantity:
    """Costs of one quantity by any formula in the kept counts, ``(3,)``."""

    formula: Cost

    def cost(self, kept: Sequence[int] | Counts) -> dict[str, int]:
        return {"latency": self.formula(np.asarray(kept))}

    def full(self) -> Counts:
        return np.array(WIDTHS)


def problem_of(formula: Cost, limit: int) -> PruningProblem:
    """A problem with another cost."""
    costs: Any = OneQuantity(formula)
    return replace(small_problem(), costs=costs, limits={"latency": limit})


def search(
    problem: PruningProblem,
    weights: Sequence[float] = (1, 3, 9),
    *,
    evaluations: int = 60,
    rule: Rule = "official",
    batch: int = 8,
) -> SearchResult:
    searcher = NetAdapt(problem, evaluations, rule=rule)
    with Journal("sqlite://") as journal:
        return run_search(
            problem,
            FormulaEvaluator(problem, weights),
            searcher,
            evaluations=evaluations,
            journal=journal,
            batch=batch,
        )


def summed(kept: Counts) -> int:
    """One per unit."""
    return int(kept.sum())


def staircase(kept: Counts) -> int:
    """A group costs what the next wider multiple of 8 costs."""
    return 100 + int((-(-kept // 8) * 8).sum())


def bumpy(kept: Counts) -> int:
    """Unaligned widths are slower than the next wider aligned one, as on some devices."""
    return 100 + int((10 * kept + 15 * (kept % 8 != 0)).sum())


PROBLEMS = {
    "macs": small_problem("macs=50%"),
    "nearly nothing": small_problem("params=12%", round_to=4),
    "staircase": problem_of(staircase, 132),
    "bumpy": problem_of(bumpy, 500),
    "without statistics": small_problem("macs=30%", measured=False),
}
on_every_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
by_both_rules = pytest.mark.parametrize("rule", ["paper", "official"])


@by_both_rules
@on_every_problem
@pytest.mark.parametrize("evaluations", [12, 40, 150])
def test_the_resource_falls_with_every_step_of_one_group(problem: PruningProblem, rule: Rule, evaluations: int) -> None:
    result = search(problem, rule=rule, evaluations=evaluations)
    quantity, limit = next(iter(problem.limits.items()))
    path = result.front
    assert path[0].kept == tuple(problem.costs.full())
    costs = [trial.cost[quantity] for trial in path]
    assert all(later < earlier for earlier, later in pairwise(costs))
    assert [cost <= limit for cost in costs] == [False] * (len(path) - 1) + [True]
    assert path[-1] == result.best
    assert all(trial in result.trials for trial in path)
    for before, after in pairwise(path[:-1]):
        narrowed = [(now, then) for now, then in zip(before.kept, after.kept, strict=True) if now != then]
        assert len(narrowed) == 1
        assert narrowed[0][1] < narrowed[0][0]


@on_every_problem
def test_every_step_meets_its_target_and_no_wider_group_would(problem: PruningProblem) -> None:
    path = search(problem, evaluations=100).front
    descent = Descent.of(problem)
    schedule = schedule_for(problem, descent, 100 - FRAME)
    for step, (before, after) in enumerate(pairwise(path[:-1]), 1):
        reached = descent.progress(before.cost)
        halvings = range(30)
        targets = [descent.target(min(1.0, reached + schedule.progress(step) / 2**halving)) for halving in halvings]
        kept = np.array(before.kept)
        target = next(t for t in targets if any(narrower(problem, kept, g, t) is not None for g in range(3)))
        group = next(g for g in range(3) if before.kept[g] != after.kept[g])
        assert all(after.cost[quantity] <= most for quantity, most in target.items())
        for width in problem.widths[group].tolist():
            if after.kept[group] < width < before.kept[group]:
                wider = [*after.kept[:group], width, *after.kept[group + 1 :]]
                assert any(problem.cost(wider)[quantity] > most for quantity, most in target.items())


def test_costs_that_are_not_monotone_are_searched_width_by_width() -> None:
    problem = problem_of(bumpy, 500)
    found = narrower(problem, np.array(WIDTHS), 2, {"latency": bumpy(np.array(WIDTHS)) - 1})
    assert found is not None
    assert found.tolist() == [16, 24, 30]  # 31 is slower than 32
    assert narrower(problem, np.array(WIDTHS), 0, {"latency": 100}) is None


def test_several_limits_shrink_in_step() -> None:
    problem = small_problem("macs=60%,params=40%")
    path = search(problem, evaluations=150).front
    descent = Descent.of(problem)
    progress = [descent.progress(trial.cost) for trial in path]
    assert all(later > earlier for earlier, later in pairwise(progress))
    assert progress[0] == 0
    assert progress[-2] < 1 <= progress[-1]
    assert problem.fits(path[-1].kept)
    middle = descent.target(0.5)
    assert middle == {quantity: (descent.whole[quantity] + most) // 2 for quantity, most in problem.limits.items()}


def test_a_limit_that_holds_from_the_start_only_has_to_be_kept() -> None:
    problem = replace(small_problem("macs=50%"), limits={"params": 10**9, **small_problem("macs=50%").limits})
    assert [t.kept for t in search(problem).front] == [t.kept for t in search(small_problem("macs=50%")).front]


@pytest.mark.parametrize("remaining", [0.01, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 17, 400])
def test_the_series_lands_on_the_budget(remaining: float, steps: int) -> None:
    schedule = Schedule.to(remaining, steps)
    parts = [schedule.progress(step) for step in range(1, steps + 1)]
    assert sum(parts) == pytest.approx(1)
    assert all(later / earlier == pytest.approx(schedule.decay) for earlier, later in pairwise(parts))
    assert (1 - remaining) * parts[0] == pytest.approx(1 - schedule.decay)  # dR_0: every step takes the same share
    assert schedule.progress(steps + 3) == parts[-1]


def test_iterations_fit_the_evaluations() -> None:
    for evaluations in (FRAME + 1, FRAME + 2, 7, 20, 41, 120):
        for problem in PROBLEMS.values():
            result = search(problem, evaluations=evaluations)
            assert len(result.trials) <= evaluations
            steps = schedule_for(problem, Descent.of(problem), evaluations - FRAME).steps
            assert steps >= (evaluations - FRAME) // 3
            assert problem.fits(result.best.kept)
    with pytest.raises(SearchError, match="at least 3 evaluations"):
        NetAdapt(small_problem(), 2)


def test_few_evaluations_go_to_the_groups_whose_errors_rise_least() -> None:
    problem = small_problem("macs=50%")
    assert problem.errors is not None
    searcher = NetAdapt(problem, FRAME + 2)  # two proposals, for two iterations or one
    _, *first = searcher.ask(100)
    assert 1 <= len(first) < 3
    full = problem.costs.full()
    rises = []
    for group in range(3):
        target = Descent.of(problem).target(Descent.of(problem).progress(problem.cost(problem.kept(first[0].policy))))
        alone = narrower(problem, full, group, target)
        if alone is not None:
            rises.append(float(problem.errors[group][np.searchsorted(problem.widths[group], alone[group])]))
    taken = problem.kept(first[0].policy)
    group = int(np.flatnonzero(taken < full)[0])
    assert problem.errors[group][np.searchsorted(problem.widths[group], taken[group])] == min(rises)


@by_both_rules
def test_what_matters_is_spared(rule: Rule) -> None:
    problem = problem_of(summed, 36)
    kept = search(problem, (1, 50, 1), rule=rule).best.kept
    assert kept[1] >= 22
    assert max(kept[0] / 16, kept[2] / 32) < 0.6


def test_where_greedy_is_optimal_the_optimum_is_found() -> None:
    """The objective is concave and separable, every unit costs the same: taking the cheapest unit each time is best."""
    problem, weights = problem_of(summed, 36), (2.0, 3.0, 5.0)
    result = search(problem, weights, evaluations=FRAME + 3 * 100)
    values = [[w * np.sqrt(k / n) for k in width] for w, n, width in zip(weights, WIDTHS, problem.widths, strict=True)]
    places = [range(len(width)) for width in problem.widths]
    best = max(
        sum(value[i] for value, i in zip(values, chosen, strict=True))
        for chosen in product(*places)
        if sum(int(width[i]) for width, i in zip(problem.widths, chosen, strict=True)) <= 36
    )
    assert result.best.objective == pytest.approx(best / sum(weights), abs=1e-12)
    assert [trial.cost["latency"] for trial in result.front] == list(range(72, 35, -1))


def test_the_rules_differ_in_what_a_saving_beyond_the_target_is_worth() -> None:
    """The last group can only fall by half of its cost at once, and loses little more than the others by that."""

    def cost(kept: Counts) -> int:
        return int(kept[0]) + int(kept[1]) + 40 * (int(kept[2]) > 16) + 40

    problem, weights = problem_of(cost, 50), (4, 5, 3)
    first: dict[str, Trial] = {
        "paper": search(problem, weights, rule="paper").front[1],
        "official": search(problem, weights, rule="official").front[1],
    }
    assert first["paper"].kept[2] == 32
    assert first["official"].kept == (16, 24, 16)
    with pytest.raises(SearchError, match="rules paper, official; found 'best'"):
        NetAdapt(problem, 10, rule="best")  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_the_batch_size_does_not_matter(batch: int) -> None:
    problem = PROBLEMS["macs"]
    assert search(problem, batch=batch).front == search(problem).front


def test_proposals_name_the_path_that_led_to_them() -> None:
    problem = PROBLEMS["macs"]
    result = search(problem)
    policies = [trial.policy for trial in result.front]
    for before, trial in enumerate(result.front[1:-1]):
        assert list(trial.proposal.parents) == policies[1 : before + 1]
    assert result.trials[0].proposal.parents == ()
    for trial in result.trials:
        assert trial.probe == (not problem.fits(trial.kept))


def test_a_warm_start_leaves_the_path_alone() -> None:
    problem = PROBLEMS["macs"]
    searcher = WarmStart(NetAdapt(problem, 60), [exact_policy(problem)])
    with Journal("sqlite://") as journal:
        warm = run_search(problem, FormulaEvaluator(problem, [1, 3, 9]), searcher, evaluations=61, journal=journal)
    assert [trial.kept for trial in warm.front] == [trial.kept for trial in search(problem).front]


@pytest.mark.parametrize("evaluations", [6, 12, 40])
def test_proposals_that_were_screened_out_are_not_accepted(evaluations: int) -> None:
    problem = small_problem("macs=80%")  # within reach of one group: many proposals compete
    with Journal("sqlite://") as journal:
        result = run_search(
            problem,
            FormulaEvaluator(problem, [1, 3, 9], noise=0.01),
            NetAdapt(problem, evaluations),
            evaluations=evaluations,
            journal=journal,
            batch=8,
            screening=Screening(10, audit=2),
        )
    assert not any(trial.screened_out for trial in result.front)
    assert result.front[-1] == result.best
    assert problem.fits(result.best.kept)
