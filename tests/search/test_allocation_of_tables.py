"""Allocation where costs are tables: stairs, not monotone, several at once, approximations."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoprune.costs.pairwise_cost import PairwiseCost
from autoprune.problem import PruningProblem
from autoprune.search import _labels
from autoprune.search._limited_costs import LimitedCosts
from autoprune.search.allocation import Allocation
from autoprune.search.uniform import uniform_policy
from tests.search.table_problems import table_problem

Floats = NDArray[np.float64]

#: Paths, two of them beside each other, and groups that do not meet.
CHAINS = (((0, 1), (1, 2), (2, 3)), ((2, 0), (0, 3), (1, 3)), ((0, 1), (2, 3)), ((3, 1),), ())
#: A ring, a star, a complete graph and a ring with a tail.
CIRCLES = (
    ((0, 1), (1, 2), (2, 3), (3, 0)),
    ((0, 1), (0, 2), (0, 3)),
    tuple(itertools.combinations(range(4), 2)),
    ((0, 1), (1, 2), (2, 0), (2, 3)),
)
SHARES = st.dictionaries(st.sampled_from(["latency", "macs", "params"]), st.floats(0, 0.8), min_size=1)
SEEDS = st.integers(0, 1_000_000)


def random_errors(problem: PruningProblem, seed: int) -> list[Floats]:
    """Return errors that fall with the width, have no order, or are often equal."""
    rng, kind = np.random.default_rng(seed), seed % 3
    errors = [rng.random(len(width)) * 10.0 ** rng.uniform(-1, 1) for width in problem.widths]
    return [[np.sort(e)[::-1], e, np.floor(e * 3)][kind] for e in errors]


def least_error(problem: PruningProblem, errors: Sequence[Floats]) -> float:
    """Return the smallest sum of errors of all choices that fit."""
    fitting = [
        sum(float(error[index]) for error, index in zip(errors, choice, strict=True))
        for choice in np.ndindex(*(len(width) for width in problem.widths))
        if problem.fits([width[index] for width, index in zip(problem.widths, choice, strict=True)])
    ]
    return min(fitting)


def error_of(problem: PruningProblem, errors: Sequence[Floats], kept: NDArray[np.int64]) -> float:
    indices = [np.flatnonzero(width == k)[0] for width, k in zip(problem.widths, kept, strict=True)]
    return float(sum(error[index] for error, index in zip(errors, indices, strict=True)))


@settings(max_examples=100)
@given(seed=SEEDS, edges=st.sampled_from(CHAINS), shares=SHARES)
def test_chains_of_tables_equal_exhaustive_search(
    seed: int, edges: tuple[tuple[int, int], ...], shares: dict[str, float]
) -> None:
    problem = table_problem(seed, edges, shares, n_groups=4)
    errors = random_errors(problem, seed)
    found = Allocation(problem).solve(errors)
    assert found.optimal
    assert found.error == pytest.approx(least_error(problem, errors), rel=1e-9, abs=1e-12)
    assert found.error == error_of(problem, errors, found.kept)
    assert problem.fits(found.kept)


@settings(max_examples=10)
@given(seed=SEEDS, edges=st.sampled_from(CIRCLES), shares=SHARES)
def test_circles_of_tables_hold_the_limits(
    seed: int, edges: tuple[tuple[int, int], ...], shares: dict[str, float]
) -> None:
    problem = table_problem(seed, edges, shares, n_groups=4)
    errors = random_errors(problem, seed)
    found = Allocation(problem).solve(errors)
    uniform = problem.kept(uniform_policy(problem))
    assert problem.fits(found.kept)
    assert least_error(problem, errors) * (1 - 1e-9) <= found.error <= error_of(problem, errors, uniform) * (1 + 1e-9)
    assert found.error == error_of(problem, errors, found.kept)


def test_circles_of_tables_come_close_to_exhaustive_search() -> None:
    best = 0
    for seed in range(30):
        problem = table_problem(seed, CIRCLES[seed % 4], {"latency": 0.3}, n_groups=4)
        errors = random_errors(problem, 3 * seed)
        best += Allocation(problem).solve(errors).error <= least_error(problem, errors) * (1 + 1e-9)
    assert best >= 27


@settings(max_examples=30)
@given(seed=SEEDS, edges=st.sampled_from(CHAINS + CIRCLES), shares=SHARES, wrong=st.floats(0.01, 0.5))
def test_approximations_never_break_the_real_limits(
    seed: int, edges: tuple[tuple[int, int], ...], shares: dict[str, float], wrong: float
) -> None:
    problem = table_problem(seed, edges, shares, n_groups=4, wrong=wrong)
    errors = random_errors(problem, seed)
    found = Allocation(problem).solve(errors)
    uniform = problem.kept(uniform_policy(problem))
    assert not found.optimal
    assert problem.fits(found.kept)
    assert found.error <= error_of(problem, errors, uniform) * (1 + 1e-9)


def test_too_few_labels_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    edges = tuple((group, group + 1) for group in range(5))
    problem = table_problem(1, edges, {"latency": 0.2, "macs": 0.2}, n_groups=6)
    errors = random_errors(problem, 0)
    allocation = Allocation(problem)
    best = allocation.solve(errors)
    monkeypatch.setattr(_labels, "_ROUNDS", (1,))
    found = allocation.solve(errors)
    assert best.optimal
    assert problem.fits(found.kept)
    assert best.error <= found.error


def test_the_smallest_widths_may_be_the_dearest() -> None:
    problem = table_problem(0, ((0, 1),), {"latency": 0.0}, n_groups=2, most=1)
    widths = (np.array([1, 2, 3]), np.array([1, 2, 3]))
    falling = PairwiseCost(5, (np.array([9, 6, 3]),) * 2, {(0, 1): np.multiply.outer([3, 2, 1], [3, 2, 1])})
    costs = type(problem.costs)(widths, {"latency": falling}, {})  # type: ignore[call-arg, arg-type]
    groups = (range(3), range(3))
    problem = replace(problem, groups=groups, widths=widths, costs=costs, limits={"latency": 5 + 18 + 9})  # type: ignore[arg-type]
    found = Allocation(problem).solve([np.array([2.0, 1.0, 0.0])] * 2)
    assert found.kept.tolist() == [3, 3]
    assert found.optimal


def test_limits_on_one_cost_in_two_units_are_one() -> None:
    rng = np.random.default_rng(0)
    own, pairs = (rng.integers(0, 99, 3), rng.integers(0, 99, 4)), {(0, 1): rng.integers(0, 99, (3, 4))}
    params = PairwiseCost(7, own, pairs)
    size = PairwiseCost(100, tuple(4 * table for table in own), {(0, 1): 4 * pairs[0, 1]})
    other = PairwiseCost(7, own, {(0, 1): pairs[0, 1] + np.eye(3, 4, dtype=np.int64)})
    assert LimitedCosts([params, size], [107, 100 + 399]).room.tolist() == [399]
    assert LimitedCosts([params, size], [107, 100 + 401]).room.tolist() == [100]
    assert LimitedCosts([params, other, size], [107, 107, 100 + 401]).room.tolist() == [100, 100]
