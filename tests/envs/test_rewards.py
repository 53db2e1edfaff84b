"""Rewards by name: those of He et al. 2018, sections 3.3 and 3.4."""

import math

import pytest

from autoprune.envs.rewards import REWARDS, reward
from autoprune.errors import UnknownNameError
from autoprune.evaluation.metrics import Scores

LABELLED = Scores(0.8, None, 0.5, 0.9, 0.1, 100)
UNLABELLED = Scores(None, None, None, 0.9, 0.1, 100)
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
    assert reward(name)(LABELLED, COST) == pytest.approx(-0.2 * factor)
    assert reward(name)(UNLABELLED, COST) == pytest.approx(-0.1 * factor)  # agreement counts where nothing is labelled


def test_every_reward_is_better_for_less_error_and_none_is_worse_for_less_cost() -> None:
    cheaper = {quantity: amount // 2 for quantity, amount in COST.items()}
    for each in REWARDS.values():
        assert each(UNLABELLED, COST) > each(LABELLED, COST)
        assert each(LABELLED, cheaper) >= each(LABELLED, COST)
        assert each(Scores(1.0, None, 0.0, None, None, 1), COST) == 0


def test_unknown_rewards_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown reward 'error'"):
        reward("error")
