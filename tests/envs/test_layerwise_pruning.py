"""The layer by layer environment: what an agent sees, may do and gets for it."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import DDPG
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from autoprune.costs.budget import Budget
from autoprune.envs import LAYERWISE_PRUNING
from autoprune.envs.layerwise_pruning import LayerwisePruningEnv
from autoprune.errors import SearchError, UnknownNameError
from autoprune.evaluation.metrics import Scores
from autoprune.latency_tables.table import Calibration
from autoprune.problem import PruningProblem, pruning_problem
from autoprune.pruning.plan import Plan
from tests.made_up_tables import made_up_table
from tests.search.small_problems import FormulaEvaluator, real_evaluator, small_network, small_problem

BUDGETS = ["macs=50%", "macs=60%,params=30%", "latency=50%", "latency=60%,macs=50%"]


def problem_within(budget: str) -> PruningProblem:
    network = small_network((32, 48, 64))
    table = made_up_table(
        network, lambda unit: 3 + -(-unit.c_in // 16) * -(-unit.c_out // 16), Calibration(1.0, 2.0, 0.01, 0.02)
    )
    return pruning_problem(network, Budget.parse(budget), latencies=table if "latency" in budget else None)


def act(ratio: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([ratio], dtype=np.float32)


def made(
    problem: PruningProblem, *, reward: str = "-error", wall: bool = True, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Make the environment by its registered name, as a user does."""
    evaluator = FormulaEvaluator(problem)
    return gymnasium.make(
        LAYERWISE_PRUNING, problem=problem, evaluator=evaluator, reward=reward, wall=wall, render_mode=render_mode
    )


def bare(
    problem: PruningProblem, *, reward: str = "-error", wall: bool = True, render_mode: str | None = None
) -> LayerwisePruningEnv:
    """Make the environment and take gymnasium's wrappers off."""
    env = made(problem, reward=reward, wall=wall, render_mode=render_mode).unwrapped
    assert isinstance(env, LayerwisePruningEnv)
    return env


def walk(env: LayerwisePruningEnv, *ratios: float) -> tuple[float, dict[str, Any]]:
    """Run one episode; return its last reward and info."""
    env.reset()
    for ratio in ratios:
        _, reward, terminated, _, info = env.step(act(ratio))
    assert terminated
    return reward, info


class RefusingEvaluator:
    """Fails the test that evaluates anything."""

    def evaluate(self, plan: Plan) -> Scores:
        raise AssertionError(f"nobody should evaluate {plan}")


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("reward", ["-error", "-error*log(macs)", "-error*log(params)"])
def test_gymnasium_finds_nothing_to_complain_about(budget: str, reward: str) -> None:
    check_env(bare(problem_within(budget), reward=reward))


def test_gymnasium_finds_nothing_to_complain_about_without_the_wall() -> None:
    check_env(bare(problem_within("macs=50%"), wall=False))


@pytest.mark.parametrize(("budget", "wall"), [*((budget, True) for budget in BUDGETS), ("params=99.9%", False)])
def test_sb3_finds_nothing_to_complain_about(budget: str, wall: bool) -> None:
    env = bare(problem_within(budget), wall=wall)
    env.action_space.seed(0)
    symmetric: gymnasium.Env[Any, Any] = RescaleAction(env, np.float32(-1), np.float32(1))
    symmetric.action_space.seed(0)
    check_env_of_sb3(symmetric, skip_render_check=False)
    with pytest.warns(UserWarning, match="symmetric and normalized") as told:  # ratios run from 0 to 1
        check_env_of_sb3(env, skip_render_check=False)
    assert len(told) == 1


def test_features_are_those_of_the_paper() -> None:
    problem = small_problem("macs=60%")
    env = bare(problem)
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
    now = problem.costs.layer_macs([12, 12, 32])
    rest = now["depthwise"] + now["head"]
    expected = [1, 1, 1, 0.5, 0.5, 0.5, 1, macs["conv2"] / total, 1 - sum(now.values()) / total, rest / total, 0.5]
    assert np.allclose(observation, expected)
    last, reward, terminated, _, info = env.step(act(1.0))
    assert terminated
    assert -1 <= reward < 0
    assert np.allclose(last[:8], observation[:8])
    assert info["kept"] == problem.widths[2][0]
    assert info["policy"][:2] == (0.25, 0.5)
    assert last[10] == pytest.approx(info["policy"][2])


@pytest.mark.parametrize("budget", BUDGETS)
def test_after_step_t_the_next_group_is_seen(budget: str) -> None:
    problem = problem_within(budget)
    env = bare(problem)
    observations = [env.reset()[0]]
    taken: list[float] = []
    groups: list[str] = []
    for ratio in (0.4, 0.0, 0.7):
        observation, *_, info = env.step(act(ratio))
        observations.append(observation)
        groups.append(info["group"])
        taken.append(1 - info["kept"] / len(problem.groups[len(taken)]))
    assert groups == list(problem.names)
    assert [round(2 * float(seen[0])) for seen in observations] == [
        0,
        1,
        2,
        2,
    ]  # the last state has no layer of its own
    assert np.allclose([seen[10] for seen in observations], [0, *taken])
    layers = [problem.network.layers()[name] for name in problem.producers]
    channels = [seen[1] * 64 for seen in observations[:3]]
    assert np.allclose(channels, [float(layer.get_parameter("weight").shape[0]) for layer in layers])
    assert all(env.observation_space.contains(seen) for seen in observations)
    assert (np.diff([seen[8] for seen in observations]) >= 0).all()


def test_the_wall_is_on_unless_it_is_off() -> None:
    problem = small_problem("macs=50%")
    reward, info = walk(bare(problem), 0.0, 0.0, 0.0)
    assert info["fits"]
    assert problem.fits([round((1 - ratio) * size) for ratio, size in zip(info["policy"], (16, 24, 32), strict=True)])
    assert info["cost"]["macs"] <= problem.limits["macs"]
    assert reward == info["scores"]["top1"] - 1
    open_env = LayerwisePruningEnv(problem, RefusingEvaluator(), wall=False)
    reward, info = walk(open_env, 0.0, 0.25, 0.0)
    assert reward == -math.inf
    assert info["policy"] == (0.0, 0.25, 0.0)
    assert info["cost"] == problem.cost([16, 18, 32])
    assert not info["fits"]
    assert "scores" not in info
    within, info = walk(bare(problem, wall=False), 0.5, 0.5, 0.5)
    assert info["fits"]
    assert within == info["scores"]["top1"] - 1


@pytest.mark.parametrize("quantity", ["macs", "params"])
def test_rewards_that_trade_accuracy_for_cost(quantity: str) -> None:
    env = bare(small_problem("params=99.9%"), reward=f"-error*log({quantity})", wall=False)
    for ratio in (0.3, 0.6):
        reward, info = walk(env, ratio, ratio, ratio)
        error = 1 - info["scores"]["top1"]
        assert reward == pytest.approx(-error * math.log(info["cost"][quantity]))


def test_unknown_rewards_and_render_modes_are_refused() -> None:
    problem = small_problem()
    with pytest.raises(UnknownNameError, match=r"Did you mean '-error\*log\(macs\)'"):
        bare(problem, reward="-error*log(mac)")
    with pytest.raises(SearchError, match="needs the cost 'nonzero'"):
        bare(problem, reward="-error*log(nonzero)")
    with pytest.raises(SearchError, match="found 'rgb_array'"):
        LayerwisePruningEnv(problem, FormulaEvaluator(problem), render_mode="rgb_array")


def test_rendering_draws_the_policy_so_far() -> None:
    problem = small_problem("macs=40%,params=99%")
    env = bare(problem, render_mode="ansi")
    env.reset()
    env.step(act(0.5))
    now, limits = problem.cost([8, 24, 32]), problem.limits
    assert env.render() == "\n".join(
        [
            "conv0   8 / 16  ################................",
            "conv1  24 / 24",
            "conv2  32 / 32",
            "",
            f"macs {now['macs']:,} of {limits['macs']:,}, too much so far",
            f"params {now['params']:,} of {limits['params']:,}, within budget",
        ]
    )
    env.step(act(0.75))
    env.step(act(0.75))
    text = env.render()
    assert text is not None
    assert "conv1   6 / 24  ########........................" in text
    assert text.count("within budget") == 2


def test_human_rendering_prints_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    env = bare(small_problem("macs=40%"), render_mode="human", wall=False)
    walk(env, 0.0, 0.0, 0.0)
    printed = capsys.readouterr().out
    assert printed.count("conv2  32 / 32") == 3
    assert printed.rstrip().endswith("over budget")


def test_without_a_render_mode_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    env = bare(small_problem())
    env.reset()
    env.step(act(0.5))
    assert capsys.readouterr().out == ""
    with pytest.warns(UserWarning, match="'ansi'"):
        assert env.render() is None


def test_steps_out_of_turn_and_bad_actions_are_refused() -> None:
    env = bare(small_problem())
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
    env = LayerwisePruningEnv(problem, real_evaluator(problem))
    (first, info), (second, _) = walk(env, 0.2, 0.4, 0.6), walk(env, 0.2, 0.4, 0.6)
    assert first == second == info["scores"]["top1"] - 1


def test_any_agent_can_be_trained_on_it() -> None:
    problem = small_problem("macs=50%")
    env = made(problem)
    agent = DDPG("MlpPolicy", env, learning_starts=15, seed=0, policy_kwargs={"net_arch": [16]}, device="cpu")
    agent.learn(30)
    observation, _ = env.reset()
    terminated = False
    while not terminated:
        action, _ = agent.predict(observation, deterministic=True)
        observation, _, terminated, _, info = env.step(action)
    assert info["fits"]
