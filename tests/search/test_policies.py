"""What each policy proposes."""

from itertools import pairwise

import numpy as np
import pytest

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.search.sensitivity import drop_curve, plan_scan, smallest_allowed_drop
from autoprune.search.uniform import uniform_policy
from tests.search.small_problems import FormulaEvaluator, small_problem


def search(name: str, problem: PruningProblem, weights: list[float], evaluations: int = 60) -> SearchResult:
    searcher = make_searcher(name, problem, seed=5, evaluations=evaluations)
    with Journal("sqlite://") as journal:
        return run_search(
            problem, FormulaEvaluator(problem, weights), searcher, evaluations=evaluations, journal=journal
        )


@pytest.mark.parametrize("budget", ["macs=50%", "params=20%", "macs=70%,params=30%"])
@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_uniform_is_the_smallest_ratio_up_to_rounding(budget: str, round_to: int) -> None:
    problem = small_problem(budget, round_to=round_to)
    kept = problem.kept(uniform_policy(problem))
    assert problem.fits(kept)
    grid = [problem.kept(PruningPolicy.uniform(ratio, 3)) for ratio in np.linspace(0, 0.9999, 4001)]
    first = next(index for index, counts in enumerate(grid) if problem.fits(counts))
    for index, (width, base) in enumerate(zip(problem.widths, grid[first].tolist(), strict=True)):
        wider = width[min(int(np.searchsorted(width, base)) + 1, len(width) - 1)]
        assert kept[index] in (base, wider)  # one width above the grid's first fitting network at most
        if kept[index] == base < wider:
            assert not problem.fits([*kept[:index], wider, *kept[index + 1 :]])


def test_uniform_evaluates_once() -> None:
    assert len(search("uniform", small_problem(), [1, 1, 1]).trials) == 1


def test_random_policies_are_diverse_full_and_different() -> None:
    problem = small_problem()
    trials = search("random", problem, [1, 1, 1], 60).trials
    assert len({trial.kept for trial in trials}) == len(trials) == 60
    spread = np.ptp([trial.policy.ratios for trial in trials], axis=0)
    assert (spread > 0.4).all()
    assert min(trial.cost["macs"] for trial in trials) > 0.95 * problem.limits["macs"]
    assert [t.kept for t in trials] != [t.kept for t in run_random(problem, seed=6)]


def run_random(problem: PruningProblem, seed: int) -> list[object]:
    searcher = make_searcher("random", problem, seed=seed, evaluations=60)
    with Journal("sqlite://") as journal:
        return list(run_search(problem, FormulaEvaluator(problem), searcher, evaluations=60, journal=journal).trials)


def test_sensitivity_scans_like_the_classic_study() -> None:
    problem = small_problem(widths=(20, 30, 40))
    trials = search("sensitivity", problem, [1, 1, 1]).trials
    assert len(trials) == 1 + 9 * 3 + 1
    assert trials[0].policy.ratios == (0, 0, 0)
    assert all(trial.probe for trial in trials[:-1])
    scanned = np.array([trial.policy.ratios for trial in trials[1:-1]]).reshape(3, 9, 3)
    for group in range(3):
        assert np.allclose(scanned[group, :, group], np.arange(1, 10) / 10)
        assert not np.delete(scanned[group], group, axis=1).any()


def test_sensitivity_spares_what_matters() -> None:
    problem = small_problem(widths=(32, 32, 32))
    weights: list[float] = [1, 20, 1]
    found = search("sensitivity", problem, weights)
    ratios = found.best.policy.ratios
    assert ratios[1] < min(ratios[0], ratios[2])
    assert found.best.objective > search("uniform", problem, weights).best.objective


def test_sensitivity_scans_less_with_fewer_evaluations() -> None:
    problem = small_problem(widths=(20, 30, 40))
    sizes = [len(plan_scan(problem, evaluations)) for evaluations in range(5, 40)]
    assert all(size < evaluations for evaluations, size in enumerate(sizes, 5))
    assert all(size <= more for size, more in pairwise(sizes))
    assert (sizes[0], sizes[-1]) == (4, 28)
    for evaluations in (5, 9, 14, 28):
        trials = search("sensitivity", problem, [1, 2, 3], evaluations).trials
        assert not trials[-1].probe
        assert len(trials) <= evaluations
    with pytest.raises(SearchError, match=r"at least 5 evaluations for 3 groups \(and 29 for the full scan\), found 4"):
        make_searcher("sensitivity", problem, seed=0, evaluations=4)


def test_sensitivity_does_not_probe_the_same_width_twice() -> None:
    problem = small_problem(widths=(16, 24, 32), round_to=8)  # 1, 2 and 3 widths besides the whole
    assert [(p.group, p.width) for p in plan_scan(problem, 100)][1:] == [
        (0, 8),
        (1, 16),
        (1, 8),
        (2, 24),
        (2, 16),
        (2, 8),
    ]


def test_drop_curves_are_interpolated_and_never_fall() -> None:
    width = np.arange(1, 11)
    curve = drop_curve(width, {8: 0.2, 6: 0.1, 2: 0.4, 1: 0.3})
    assert np.allclose(curve, [0.4, 0.4, 0.35, 0.3, 0.25, 0.2, 0.2, 0.2, 0.1, 0.0])
    assert (drop_curve(width, {5: -0.2, 1: -0.1}) == 0).all()  # pruning helped: nothing is lost
    assert drop_curve(np.array([7]), {}).tolist() == [0.0]


def test_sensitivity_takes_the_smallest_threshold_that_fits() -> None:
    """Recompute the policy naively, over all thresholds, for random curves."""
    rng = np.random.default_rng(0)
    problem = small_problem()
    for _ in range(10):
        curves = [np.sort(rng.integers(0, 6, len(width)) / 5)[::-1] for width in problem.widths]
        for curve in curves:
            curve[-1] = 0
        by_threshold = [
            [int(min(w[c <= most])) for w, c in zip(problem.widths, curves, strict=True)] for most in np.arange(6) / 5
        ]
        expected = next(kept for kept in by_threshold if problem.fits(kept))
        assert smallest_allowed_drop(problem, curves).tolist() == expected


def test_exact_starts_with_the_allocation_of_least_error() -> None:
    problem = small_problem()
    assert problem.errors is not None
    first = search("exact", problem, [1, 1, 1], 1)
    assert len(first.trials) == 1

    def error(kept: tuple[int, ...]) -> float:
        assert problem.errors is not None
        places = [int(np.searchsorted(width, count)) for width, count in zip(problem.widths, kept, strict=True)]
        return sum(float(curve[place]) for curve, place in zip(problem.errors, places, strict=True))

    least = error(first.best.kept)
    rivals = search("random", problem, [1, 1, 1], 60).trials
    assert all(least <= error(trial.kept) + 1e-12 for trial in rivals)


def test_exact_learns_whose_errors_matter() -> None:
    problem = small_problem()
    result = search("exact", problem, [1, 30, 1], 60)
    assert result.best.objective > result.trials[0].objective
    rivals = search("random", problem, [1, 30, 1], 60)
    assert result.best.objective >= rivals.best.objective - 0.002


def test_exact_proposes_nothing_twice_and_fills_generations() -> None:
    trials = search("exact", small_problem(), [1, 3, 9], 41).trials
    assert len({trial.kept for trial in trials}) == len(trials) == 41


def test_exact_without_statistics_says_what_is_missing() -> None:
    with pytest.raises(SearchError, match="needs the reconstruction errors of every width"):
        make_searcher("exact", small_problem(measured=False), seed=0, evaluations=1)
    with pytest.raises(SearchError, match="seed of at least 0"):
        make_searcher("exact", small_problem(), seed=-1, evaluations=1)
