"""The layer by layer environment: within budget whatever the agent does, and what it sees."""

from functools import cache

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.costs.budget import Budget
from autoprune.envs import LAYERWISE_PRUNING
from autoprune.envs.layerwise_pruning import LayerwisePruningEnv
from autoprune.problem import PruningProblem, pruning_problem
from tests.search.small_problems import FormulaEvaluator, real_evaluator, small_network, small_problem

NETWORK = small_network()


@cache
def problem_of(budget: str, round_to: int) -> PruningProblem:
    return pruning_problem(NETWORK, Budget.parse(budget), round_to=round_to)


def act(ratio: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([ratio], dtype=np.float32)


def make(problem: PruningProblem) -> LayerwisePruningEnv:
    env = gymnasium.make(LAYERWISE_PRUNING, problem=problem, evaluator=FormulaEvaluator(problem)).unwrapped
    assert isinstance(env, LayerwisePruningEnv)
    return env


@pytest.mark.parametrize("budget", ["macs=50%", "macs=60%,params=30%"])
def test_gymnasium_finds_nothing_to_complain_about(budget: str) -> None:
    check_env(make(small_problem(budget)))


actions = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)
budgets = st.sampled_from(["macs=50%", "params=15%", "macs=35%,params=60%", "bytes=20%,macs=55%"])


@settings(max_examples=150, deadline=None)
@given(budgets, st.sampled_from([1, 4, 8]), actions)
def test_no_episode_ends_over_budget(budget: str, round_to: int, ratios: list[float]) -> None:
    problem = problem_of(budget, round_to)
    env = LayerwisePruningEnv(problem, FormulaEvaluator(problem))
    observation, _ = env.reset()
    kept: list[int] = []
    for index, ratio in enumerate(ratios):
        assert env.observation_space.contains(observation)
        observation, reward, terminated, truncated, info = env.step(act(ratio))
        kept.append(info["kept"])
        width, size = problem.widths[index], len(problem.groups[index])
        assert info["kept"] in width
        wanted = int(width[np.argmin(np.abs(width - (1 - np.float64(np.float32(ratio))) * size))])
        assert info["kept"] <= wanted
        if info["kept"] < wanted:  # the wall is exact: one width more could not be made up for
            wider = [*kept[:-1], int(width[np.searchsorted(width, info["kept"]) + 1])]
            assert not problem.fits([*wider, *problem.smallest()[index + 1 :]])
        assert (terminated, truncated) == (index == 2, False)
        assert terminated or reward == 0
    assert env.observation_space.contains(observation)
    assert problem.fits(kept)
    assert info["cost"] == problem.cost(kept)
    assert problem.kept(problem.project(problem.policy(kept))).tolist() == kept
    assert reward == info["scores"]["top1"] - 1


def test_features_are_those_of_the_paper() -> None:
    problem = small_problem("macs=60%")
    env = make(problem)
    macs = problem.costs.layer_macs(problem.costs.full())
    total = sum(macs.values())
    observation, _ = env.reset()
    # t, n, c, h, w, stride, k, FLOPs, reduced, rest, a
    expected = [0, 16 / 32, 3 / 24, 1, 1, 1 / 2, 1, macs["conv0"] / total, 0, 1 - macs["conv0"] / total, 0]
    assert np.allclose(observation, expected)
    observation, *_ = env.step(act(0.25))
    now = problem.costs.layer_macs([12, 24, 32])
    rest = now["conv2"] + now["depthwise"] + now["head"]
    expected = [0.5, 24 / 32, 16 / 24, 1, 1, 1, 1, macs["conv1"] / total,
                1 - sum(now.values()) / total, rest / total, 0.25]  # fmt: skip
    assert np.allclose(observation, expected)
    observation, *_ = env.step(act(0.5))
    assert np.allclose(observation[[0, 1, 2, 3, 4, 5]], [1, 1, 1, 0.5, 0.5, 0.5])
    last, reward, terminated, _, info = env.step(act(1.0))
    assert terminated
    assert -1 <= reward < 0
    assert np.allclose(last[:8], observation[:8])
    assert info["kept"] == problem.widths[2][0]
    assert info["policy"][:2] == (0.25, 0.5)
    assert last[10] == pytest.approx(info["policy"][2])


def test_steps_out_of_turn_and_bad_actions_are_refused() -> None:
    env = make(small_problem())
    env.reset()
    for bad in (act(float("nan")), act(1.5), np.zeros(2, dtype=np.float32)):
        with pytest.raises(gymnasium.error.InvalidAction, match="within"):
            env.step(bad)
    for _ in range(3):
        env.step(act(0.5))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(act(0.5))


def test_rewards_come_from_real_networks_too() -> None:
    problem = small_problem()
    evaluator = real_evaluator(problem)
    env = LayerwisePruningEnv(problem, evaluator)
    rewards = []
    for _ in range(2):
        env.reset()
        *_, (_, reward, _, _, info) = [env.step(act(ratio)) for ratio in (0.2, 0.4, 0.6)]
        rewards.append(reward)
    assert rewards[0] == rewards[1] == info["scores"]["top1"] - 1
