"""Projection onto the budget: allowed, hard, and as close as it gets to what was asked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.costs.budget import Budget
from autoprune.costs.widths import allowed_widths
from autoprune.errors import BudgetError, InfeasibleBudgetError, ModelError, SearchError
from autoprune.network.network import Network, NetworkBuilder
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.policy import PruningPolicy

WIDTHS = (16, 24, 32)


def chain(widths: tuple[int, ...] = WIDTHS) -> Network:
    """Plain convolutions of these widths and a head of five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        b = NetworkBuilder("image", (3, 8, 8))
        x, c = b.input, 3
        for i, width in enumerate(widths):
            x, c = b.add(nn.Conv2d(c, width, 3, padding=1), x, name=f"conv{i}"), width
        return b.finish(b.add(nn.Conv2d(c, 5, 1), x, name="head"))


@pytest.fixture(scope="module")
def network() -> Network:
    return chain()


ratios = st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3).map(PruningPolicy.of)


@settings(max_examples=200, deadline=None)
@given(
    ratios,
    st.booleans(),
    st.sampled_from(["macs=50%", "params=30%", "macs=40%,params=70%"]),
    st.sampled_from([1, 4, 8]),
)
def test_projection_is_allowed_hard_and_idempotent(
    network: Network, policy: PruningPolicy, fill: bool, budget: str, round_to: int
) -> None:
    problem = pruning_problem(network, Budget.parse(budget), round_to=round_to)
    projected = problem.project(policy, fill=fill)
    kept = problem.kept(projected)
    assert problem.fits(kept)
    assert all(count in width for count, width in zip(kept, problem.widths, strict=True))
    assert problem.project(projected, fill=fill) == projected
    asked = problem.kept(policy)
    if problem.fits(asked) and not fill:
        assert (kept == asked).all()
    if not problem.fits(asked) and not fill:
        assert (kept <= asked).all()
    if fill:  # nothing more fits
        for index, width in enumerate(problem.widths):
            wider = kept.copy()
            if kept[index] < width[-1]:
                wider[index] = width[np.searchsorted(width, kept[index], side="right")]
                assert not problem.fits(wider)


def test_policies_and_counts_translate_back_and_forth(network: Network) -> None:
    problem = pruning_problem(network, Budget.parse("macs=50%"))
    for kept in ([3, 7, 11], [16, 24, 32], [2, 3, 4]):
        assert problem.kept(problem.policy(kept)).tolist() == kept


def test_plan_keeps_the_most_important_units(network: Network) -> None:
    problem = pruning_problem(network, Budget.parse("macs=50%"))
    plan = problem.plan(PruningPolicy.uniform(0.5, 3))
    assert [len(plan.kept[name]) for name in problem.names] == [8, 12, 16]
    assert set(plan.kept["conv0"]) == set(problem.order[0][:8])
    plan.check(problem.all_groups)


@pytest.mark.parametrize(
    ("n", "round_to", "max_ratio", "widths"),
    [
        (10, 1, 0.9, list(range(1, 11))),
        (16, 8, 0.9, [8, 16]),
        (20, 8, 0.9, [8, 16, 20]),
        (6, 8, 0.9, [6]),
        (16, 4, 0.5, [8, 12, 16]),
        (2, 1, 0.9, [1, 2]),
    ],
)
def test_allowed_widths(n: int, round_to: int, max_ratio: float, widths: list[int]) -> None:
    assert allowed_widths(n, round_to, max_ratio).tolist() == widths


def test_bad_settings_are_refused(network: Network) -> None:
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable"):
        pruning_problem(network, Budget.parse("macs=0.1%"))
    with pytest.raises(BudgetError, match="round_to"):
        pruning_problem(network, Budget.parse("macs=50%"), round_to=0)
    with pytest.raises(BudgetError, match="max_ratio"):
        pruning_problem(network, Budget.parse("macs=50%"), max_ratio=1.0)
    with pytest.raises(ModelError, match="no channel group"):
        pruning_problem(chain(()), Budget.parse("macs=50%"))
    with pytest.raises(SearchError, match="has 3 ratios, found 2"):
        pruning_problem(network, Budget.parse("macs=50%")).kept(PruningPolicy((0.1, 0.2)))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_ratios_outside_their_range_are_refused(ratio: float) -> None:
    with pytest.raises(SearchError, match="fraction removed"):
        PruningPolicy((ratio,))


def test_smallest_and_full_are_reached(network: Network) -> None:
    problem: PruningProblem = pruning_problem(network, Budget.parse("macs=50%"))
    tight = pruning_problem(network, Budget.parse(f"macs={problem.cost(problem.smallest())['macs']}"))
    assert (tight.kept(tight.project(PruningPolicy.uniform(0.0, 3))) == tight.smallest()).all()
