"""Costs as tables of widths and of pairs of widths."""

import numpy as np
import pytest

from autoprune.costs.cost_model import cost_model
from autoprune.costs.pairwise_cost import PairwiseCost
from autoprune.costs.quantities import QUANTITIES
from autoprune.costs.widths import allowed_widths
from autoprune.groups.channel_group import find_groups
from autoprune.network.tracer import trace
from tests.corpus import NETWORKS, input_shape


@pytest.mark.parametrize("name", NETWORKS)
def test_tables_are_the_cost(name: str) -> None:
    network = trace(NETWORKS[name](), input_shape(name))
    groups = find_groups(network)
    costs = cost_model(network, groups, groups.prunable(include_residual=True))
    widths = [allowed_widths(size, 2, 0.9) for size in costs.full().tolist()]
    tables, rng = costs.pairwise(widths), np.random.default_rng(0)
    assert set(QUANTITIES) <= set(tables)
    for _ in range(20):
        choice = [int(rng.integers(0, len(width))) for width in widths]
        cost = costs.cost([width[index] for width, index in zip(widths, choice, strict=True)])
        assert {quantity: tables[quantity].at(choice) for quantity in cost} == cost
    assert set(costs.pairwise(widths, only=["params"])) == {"params"}
    assert all(table.exact for quantity, table in tables.items() if quantity != "latency")


def test_pairs_count_once_and_in_the_order_of_their_groups() -> None:
    own = (np.array([1, 2]), np.array([10, 20, 30]), np.array([0]))
    cost = PairwiseCost(1000, own, {(0, 1): np.array([[100, 0, 300], [400, 500, 600]])})
    assert cost.at([1, 2, 0]) == 1000 + 2 + 30 + 600
    assert cost.at(np.array([0, 1, 0])) == 1000 + 1 + 20 + 0


def test_tables_of_other_shapes_and_negative_costs_are_refused() -> None:
    own = (np.array([1, 2]), np.array([10, 20, 30]))
    with pytest.raises(AssertionError, match="ascending order"):
        PairwiseCost(0, own, {(1, 0): np.zeros((3, 2), dtype=np.int64)})
    with pytest.raises(AssertionError, match="has shape"):
        PairwiseCost(0, own, {(0, 1): np.zeros((3, 2), dtype=np.int64)})
    with pytest.raises(AssertionError, match="never negative"):
        PairwiseCost(0, (own[0] - 2, own[1]), {})
    with pytest.raises(AssertionError, match="64-bit integers"):
        PairwiseCost(0, (own[0] / 2, own[1]), {})  # type: ignore[arg-type]
