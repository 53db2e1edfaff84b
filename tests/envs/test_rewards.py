"""Rewards by name: those of He et al. 2018, sections 3.3 and 3.4."""

import math

import pytest

from autoprune.envs.rewards import REWARDS, reward, reward_within
from autoprune.errors import SearchError, UnknownNameError

COST = {"macs": 40_000_000, "params": 270_000, "bytes": 1_100_000, "nonzero": 80_000}


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("-error", 1.0),
        ("-error*log(macs)", math.log(40_000_000)),
        ("-error*log(params)", math.log(270_000)),
        ("-error*log(nonzero)", math.log(80_000)),
    ],
)
def test_rewards_are_those_of_the_paper(name: str, factor: float) -> None:
    assert reward(name)(0.8, COST) == pytest.approx(-0.2 * factor)


def test_every_reward_is_better_for_less_error_and_none_is_worse_for_less_cost() -> None:
    cheaper = {quantity: amount // 2 for quantity, amount in COST.items()}
    for each in REWARDS.values():
        assert each(0.9, COST) > each(0.8, COST)
        assert each(0.8, cheaper) >= each(0.8, COST)
        assert each(1.0, COST) == 0


def test_unknown_rewards_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown reward 'error'"):
        reward("error")


def test_a_reward_for_a_cost_that_a_problem_does_not_have_is_refused() -> None:
    assert reward_within("-error*log(macs)", COST).quantity == "macs"
    with pytest.raises(SearchError, match="needs the cost 'nonzero', this problem has macs, params"):
        reward_within("-error*log(nonzero)", {"macs": 1, "params": 1})
