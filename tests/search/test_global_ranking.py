"""One ranking of all channels, held against a plain one."""

from dataclasses import replace

import numpy as np
import pytest

from autoprune.problem import PruningProblem
from autoprune.search.global_ranking import GlobalRanking, global_policy
from tests.search.small_problems import small_problem


def with_scores(problem: PruningProblem, seed: int) -> PruningProblem:
    """Return the problem with other scores: those of the second group are small."""
    rng = np.random.default_rng(seed)
    scores = [np.sort(rng.random(len(group)))[::-1] * (1, 0.3, 1)[i] for i, group in enumerate(problem.groups)]
    return replace(problem, scores=tuple(scores))


@pytest.mark.parametrize("budget", ["macs=50%", "params=20%", "macs=70%,params=30%"])
@pytest.mark.parametrize("seed", range(3))
def test_channels_go_in_the_order_of_one_ranking_until_the_budget_holds(budget: str, seed: int) -> None:
    problem = with_scores(small_problem(budget), seed)
    places = sorted((score, g) for g, scores in enumerate(problem.scores) for score in scores.tolist())
    kept = problem.costs.full()
    for _, group in places:
        if problem.fits(kept):
            break
        kept[group] = max(kept[group] - 1, int(problem.widths[group][0]))
    found = problem.kept(global_policy(problem))
    assert problem.fits(found)
    assert (found >= kept).all()  # what is left of the budget is filled up
    for group, width in enumerate(problem.widths):
        wider = found.copy()
        wider[group] += 1
        assert wider[group] > width[-1] or not problem.fits(wider)


def test_the_group_with_low_scores_is_pruned_most() -> None:
    problem = with_scores(small_problem("macs=50%"), 0)
    ratios = global_policy(problem).ratios
    assert ratios[1] > max(ratios[0], ratios[2])


def test_equal_scores_leave_only_the_smallest_networks_and_are_filled() -> None:
    problem = small_problem("macs=50%", round_to=8)
    flat = replace(problem, scores=tuple(np.ones(len(group)) for group in problem.groups))
    assert problem.fits(problem.kept(global_policy(flat)))
    searcher = GlobalRanking(flat)
    assert len(searcher.ask(5)) == 1
