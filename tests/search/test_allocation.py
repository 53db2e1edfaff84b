"""Exact allocation of a budget over channel groups."""

import itertools
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoprune.costs.budget import Budget
from autoprune.errors import SearchError
from autoprune.network.tracer import trace
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.search import _labels
from autoprune.search._meetings import find_cut, in_chains
from autoprune.search.allocation import Allocation, allocate
from autoprune.search.uniform import uniform_policy
from autoprune.zoo.registry import build
from tests.corpus import NETWORKS, input_shape
from tests.search.small_problems import small_problem

Floats = NDArray[np.float64]


@cache
def corpus_problem(name: str, *, round_to: int = 1, include_residual: bool = False) -> PruningProblem:
    network = trace(NETWORKS[name](), input_shape(name))
    budget = Budget.parse("params=99%")
    return pruning_problem(network, budget, round_to=round_to, include_residual=include_residual)


#: Groups that do not meet, two kinds of chains, and a circle of groups that meet.
SMALL = {
    "additive": lambda: corpus_problem("resnet_projected", round_to=2),
    "chain": lambda: small_problem(round_to=4),
    "two chains": lambda: corpus_problem("resnext"),
    "long chain": lambda: corpus_problem("vgg", round_to=4),
    "circle": lambda: corpus_problem("densenet", round_to=2),
    "residual": lambda: corpus_problem("resnet_projected", round_to=4, include_residual=True),
}


@cache
def everything(kind: str) -> tuple[PruningProblem, NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Return a problem, all its choices as indices into the widths, and what each costs."""
    problem = SMALL[kind]()
    choices = np.array(list(itertools.product(*(range(len(width)) for width in problem.widths))))
    kept = np.column_stack([width[column] for width, column in zip(problem.widths, choices.T, strict=True)])
    costs = [problem.cost(row) for row in kept]
    return problem, choices, {q: np.array([cost[q] for cost in costs]) for q in costs[0]}


def limited(problem: PruningProblem, shares: dict[str, float]) -> PruningProblem:
    """Limit quantities to a share of the way from the smallest network to the whole one."""
    least, most = problem.cost(problem.smallest()), problem.cost(problem.costs.full())
    return replace(problem, limits={q: least[q] + int(share * (most[q] - least[q])) for q, share in shares.items()})


def random_errors(problem: PruningProblem, seed: int, kind: str) -> list[Floats]:
    """Return the errors of all widths: of sorted units, of no order at all, with many ties, or as costs go."""
    rng, errors = np.random.default_rng(seed), []
    for width in problem.widths:
        scale = 10.0 ** rng.uniform(-1, 1)
        removed = np.sort(rng.exponential(size=width[-1]) ** 2)[::-1].cumsum()[::-1]
        curves = {
            "sorted": np.append(removed, 0)[width] * scale,
            "unordered": rng.random(len(width)) * scale,
            "ties": rng.integers(0, 4, len(width)).astype(float),
            "linear": (width[-1] - width).astype(float),
        }
        errors.append(curves[kind])
    return errors


def error_of(problem: PruningProblem, errors: list[Floats], kept: NDArray[np.int64]) -> float:
    indices = [np.flatnonzero(width == k)[0] for width, k in zip(problem.widths, kept, strict=True)]
    return float(sum(error[i] for error, i in zip(errors, indices, strict=True)))


KINDS = st.sampled_from(["sorted", "unordered", "ties", "linear"])
SHARES = st.dictionaries(st.sampled_from(["macs", "params", "bytes"]), st.floats(0, 1), min_size=1)


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind not in ("circle", "residual")])
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), curve=KINDS, shares=SHARES)
def test_chains_equal_exhaustive_search(kind: str, seed: int, curve: str, shares: dict[str, float]) -> None:
    problem, choices, costs = everything(kind)
    problem = limited(problem, shares)
    errors = random_errors(problem, seed, curve)
    fits = np.all([costs[q] <= most for q, most in problem.limits.items()], axis=0)
    least = sum(error[column] for error, column in zip(errors, choices.T, strict=True))[fits].min()
    found = Allocation(problem).solve(errors)
    assert found.optimal
    assert found.error == pytest.approx(least, rel=1e-9, abs=1e-12)
    assert error_of(problem, errors, found.kept) == found.error
    assert problem.fits(found.kept)


@pytest.mark.parametrize("kind", ["circle", "residual"])
def test_circles_come_close_to_exhaustive_search(kind: str) -> None:
    problem, choices, costs = everything(kind)
    problem = limited(problem, {"macs": 0.4})
    allocation, fits = Allocation(problem), costs["macs"] <= problem.limits["macs"]
    ratios = []
    for seed in range(12):
        errors = random_errors(problem, seed, "sorted")
        found = allocation.solve(errors)
        least = sum(error[column] for error, column in zip(errors, choices.T, strict=True))[fits].min()
        ratios.append(found.error / least)
        assert not found.optimal
        assert problem.fits(found.kept)
    assert min(ratios) >= 1 - 1e-9
    assert np.quantile(ratios, 0.9) < 1 + 1e-9
    assert max(ratios) < 1.5


@pytest.mark.parametrize("name", NETWORKS)
def test_holds_every_budget_and_is_never_worse_than_uniform(name: str) -> None:
    whole = corpus_problem(name, include_residual=True)
    budgets = ({"macs": 0.3}, {"params": 0.5}, {"bytes": 0.1}, {"macs": 0.5, "params": 0.3}, {"macs": 0.0})
    for seed, shares in enumerate(budgets):
        problem = limited(whole, shares)
        errors = random_errors(problem, seed, ("sorted", "unordered")[seed % 2])
        kept = allocate(problem, errors)
        assert problem.fits(kept)
        assert all(k in width for k, width in zip(kept, problem.widths, strict=True))
        uniform = problem.kept(uniform_policy(problem))
        assert error_of(problem, errors, kept) <= error_of(problem, errors, uniform) * (1 + 1e-9)


def test_equals_a_dense_dynamic_program() -> None:
    problem = pruning_problem(build("resnet20_cifar"), Budget.parse("macs=50%"))
    form = problem.costs.quadratic()["macs"]
    unit = np.gcd.reduce(form.linear)
    room = (problem.limits["macs"] - form.constant) // unit
    for seed, curve in enumerate(("sorted", "unordered", "ties", "linear")):
        errors = random_errors(problem, seed, curve)
        least = np.zeros(room + 1)  # smallest error at each cost or less
        for width, error, per_unit in zip(problem.widths, errors, form.linear // unit, strict=True):
            shifted = [np.concatenate([np.full(cost, np.inf), least])[: room + 1] for cost in (width * per_unit)]
            least = np.min(error[:, None] + np.array(shifted), axis=0)
        found = Allocation(problem).solve(errors)
        assert found.optimal
        assert found.error == pytest.approx(least[-1], rel=1e-9)


def test_too_many_labels_are_said_and_cost_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = pruning_problem(build("resnet56_cifar"), Budget.parse("macs=50%,params=50%"))
    errors = random_errors(problem, 0, "sorted")
    allocation = Allocation(problem)
    best = allocation.solve(errors)
    monkeypatch.setattr(_labels, "_ROUNDS", (3,))
    found = allocation.solve(errors)
    assert best.optimal
    assert not found.optimal
    assert problem.fits(found.kept)
    assert best.error <= found.error <= 1.05 * best.error


def test_the_same_errors_give_the_same_counts_in_any_unit() -> None:
    problem = limited(corpus_problem("densenet"), {"macs": 0.4})
    errors = random_errors(problem, 5, "sorted")
    allocation = Allocation(problem)
    first = allocation.kept(errors)
    allocation.kept(random_errors(problem, 6, "ties"))
    assert (allocation.kept(errors) == first).all()
    assert (allocate(problem, [error * 2.0**-60 for error in errors]) == first).all()


def test_no_error_is_bought_with_the_narrowest_widths() -> None:
    problem = limited(corpus_problem("vgg"), {"macs": 0.4})
    found = Allocation(problem).solve([np.zeros(len(width)) for width in problem.widths])
    assert (found.kept == problem.smallest()).all()
    assert found.error == 0
    assert found.optimal


def test_errors_of_another_problem_are_refused() -> None:
    problem = small_problem()
    errors = random_errors(problem, 0, "sorted")
    with pytest.raises(SearchError, match="errors of 3 groups, found 2"):
        allocate(problem, errors[:2])
    with pytest.raises(SearchError, match="group 1 has 22 allowed widths, found errors of shape"):
        allocate(problem, [errors[0], errors[1][1:], errors[2]])
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(SearchError, match="finite and at least 0"):
            allocate(problem, [errors[0], errors[1], np.where(errors[2] == 0, wrong, errors[2])])


def test_cuts_leave_chains() -> None:
    def graph(n: int, *edges: tuple[int, int]) -> NDArray[np.bool_]:
        meets = np.zeros((n, n), dtype=bool)
        for a, b in edges:
            meets[a, b] = meets[b, a] = True
        return meets

    path, ring = graph(5, (3, 1), (1, 0), (2, 4)), graph(4, (0, 1), (1, 2), (2, 3), (3, 0))
    assert find_cut(path) == ()
    assert in_chains(path, ()) == [0, 1, 3, 2, 4]
    assert len(find_cut(ring)) == 1
    assert find_cut(ring, [2]) == (2,)
    assert find_cut(graph(5, (0, 1), (0, 2), (0, 3), (0, 4))) == (0,)
    complete = graph(5, *itertools.combinations(range(5), 2))
    assert len(find_cut(complete)) == 3
    assert sorted(in_chains(complete, find_cut(complete))) == sorted({*range(5)} - {*find_cut(complete)})


@pytest.mark.timing
@pytest.mark.parametrize(("name", "most_s"), [("resnet56_cifar", 0.05), ("vgg11_bn", 2.0)])
def test_takes_little_time(name: str, most_s: float) -> None:
    allocation = Allocation(pruning_problem(build(name), Budget.parse("macs=50%")))
    allocation.solve(random_errors(allocation.problem, 0, "sorted"))
    times_s = []
    for seed in range(1, 12):
        errors = random_errors(allocation.problem, seed, "sorted")
        start = time.process_time()
        assert allocation.solve(errors).optimal
        times_s.append(time.process_time() - start)
    assert np.median(times_s) < most_s
