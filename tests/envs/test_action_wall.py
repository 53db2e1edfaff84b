"""The action wall: never over budget, never below the floor, and no narrower than it has to be, whatever the costs."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.costs.budget import Budget
from autoprune.envs.episode import Episode
from autoprune.envs.layer_features import LayerFeatures
from autoprune.envs.layerwise_problem import LayerwiseProblem
from autoprune.latency_tables.table import Calibration
from autoprune.latency_tables.unit import Unit
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.weight_problem import weight_pruning_problem
from tests.made_up_tables import made_up_table
from tests.search.small_problems import small_network
from tests.search.table_problems import table_problem

NETWORK = small_network()
WIDE = small_network((48, 64, 96))


class Blind(LayerFeatures):
    """Features of problems that have no network behind them: none."""

    def __init__(self) -> None:
        pass

    def at(self, kept: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.zeros(11, dtype=np.float32)


def _stairs_us(unit: Unit) -> float:
    """Return a made-up time with steps of 16 channels, some of them downwards."""
    steps = -(-unit.c_in // 16) * -(-unit.c_out // 16)
    return 4.0 + 3.0 * steps + 5.0 * ((unit.c_out // 8) % 3 == 1) + 2.0 * ((unit.c_in // 8) % 3 == 2)


@cache
def _channels(budget: str, round_to: int) -> PruningProblem:
    return pruning_problem(NETWORK, Budget.parse(budget), round_to=round_to)


@cache
def _on_a_device(budget: str) -> PruningProblem:
    table = made_up_table(WIDE, _stairs_us, Calibration(1.0, 2.0, 0.01, 0.02))
    return pruning_problem(WIDE, Budget.parse(budget), latencies=table)


def _walk_and_check(problem: LayerwiseProblem[Any], ratios: Sequence[float]) -> tuple[int, ...]:
    """Walk through `problem` and hold every decision against all allowed widths, one by one."""
    episode = Episode(problem, Blind())
    smallest = problem.smallest().tolist()
    for index, ratio in enumerate(ratios):
        width = problem.widths[index]
        taken = episode.decide(ratio)
        kept = episode.kept[-1]
        size = int(width[-1])
        assert kept in width
        assert taken == 1 - kept / size
        asked = int(width[np.argmin(np.abs(width - (1 - ratio) * size))])
        fitting = [
            int(count)
            for count in width[width <= asked]
            if problem.fits([*episode.kept[:-1], int(count), *smallest[index + 1 :]])
        ]
        assert kept == max(fitting)
        assert kept >= smallest[index]
    assert episode.done
    assert problem.fits(episode.kept)
    return episode.kept


ratios = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["macs=50%", "params=15%", "bytes=30%", "macs=35%,params=60%", "bytes=20%,macs=55%"]),
    st.sampled_from([1, 4, 8]),
    ratios,
)
def test_channels_within_macs_parameters_and_bytes(budget: str, round_to: int, asked: list[float]) -> None:
    _walk_and_check(_channels(budget, round_to), asked)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["latency=50%", "latency=70%,macs=30%", "latency=40%,params=35%,macs=60%"]), ratios)
def test_channels_within_the_stairs_of_a_device(budget: str, asked: list[float]) -> None:
    _walk_and_check(_on_a_device(budget), asked)


def test_the_stairs_do_go_down() -> None:
    problem = _on_a_device("latency=50%")
    *first, last = problem.widths
    times = [problem.cost([*(int(width[-1]) for width in first), int(count)])["latency"] for count in last]
    assert any(later < earlier for earlier, later in pairwise(times))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([((0, 1), (1, 2), (2, 3)), ((0, 2), (1, 3)), ((0, 1), (0, 2), (0, 3), (2, 3))]),
    st.floats(0, 1),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.3]),
)
def test_tables_of_any_order(
    seed: int, edges: Sequence[tuple[int, int]], share: float, asked: list[float], wrong: float
) -> None:
    problem = table_problem(seed, edges, {"latency": share, "macs": 1.0}, n_groups=4, wrong=wrong)
    if problem.fits(problem.smallest()):  # what setting up a real problem makes sure of
        _walk_and_check(problem, asked)


@cache
def _weights(budget: str) -> LayerwiseProblem[object]:
    return weight_pruning_problem(NETWORK, Budget.parse(budget))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["nonzero=30%", "nonzero=5%", "nonzero=90%"]), st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_single_weights(budget: str, asked: list[float]) -> None:
    _walk_and_check(_weights(budget), asked)


def test_a_walk_that_asks_for_nothing_uses_the_budget_up() -> None:
    problem = _channels("macs=50%", 1)
    kept = _walk_and_check(problem, [0.0, 0.0, 0.0])
    assert kept[0] == problem.widths[0][-1]
    wider = [*kept[:-1], kept[-1] + 1]
    assert problem.fits(kept)
    assert not problem.fits(wider)


@pytest.mark.parametrize(("ratio", "fits"), [(0.0, False), (0.5, True), (1.0, True)])
def test_without_the_wall_a_group_gets_what_is_asked(ratio: float, fits: bool) -> None:
    problem = _channels("macs=50%", 1)
    episode = Episode(problem, Blind(), wall=False)
    for width in problem.widths:
        episode.decide(ratio)
        wanted = (1 - ratio) * int(width[-1])
        assert abs(episode.kept[-1] - wanted) == pytest.approx(np.abs(width - wanted).min())
    assert problem.fits(episode.kept) is fits
