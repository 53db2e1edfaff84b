"""Fine-grained AMC: a walk over the layers of a trained network leaves exactly the promised weights."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RescaleAction
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from autoprune.costs.budget import Budget
from autoprune.datasets.digits import load_digits_dataset
from autoprune.datasets.splits import SearchSplits, make_splits
from autoprune.envs import LAYERWISE_PRUNING
from autoprune.envs.layerwise_pruning import LayerwisePruningEnv
from autoprune.evaluation.weight_evaluator import WeightEvaluator
from autoprune.network.layers import PRODUCERS
from autoprune.network.network import Network, network_of
from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.weight_problem import weight_pruning_problem
from autoprune.service.cli.demo_network import SEED, train_demo_network


@pytest.fixture(scope="module")
def trained() -> Network:
    """Return a small network that reads digits."""
    untrained, module, accuracy = train_demo_network(epochs=3)
    assert accuracy > 0.9
    return network_of(module.eval(), untrained.input_shape)


@pytest.fixture(scope="module")
def splits() -> SearchSplits:
    return make_splits(load_digits_dataset(), seed=SEED).for_search()


def made(
    network: Network, splits: SearchSplits, budget: str = "nonzero=30%", *, reward: str = "-error", wall: bool = True
) -> tuple[LayerwisePruningEnv, WeightEvaluator]:
    problem = weight_pruning_problem(network, Budget.parse(budget))
    evaluator = WeightEvaluator(problem, splits)
    env = gymnasium.make(LAYERWISE_PRUNING, problem=problem, evaluator=evaluator, reward=reward, wall=wall).unwrapped
    assert isinstance(env, LayerwisePruningEnv)
    return env, evaluator


def act(ratio: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array([ratio], dtype=np.float32)


def test_both_checkers_find_nothing_to_complain_about(trained: Network, splits: SearchSplits) -> None:
    env, _ = made(trained, splits, reward="-error*log(nonzero)")
    check_env(env)
    check_env_of_sb3(RescaleAction(env, np.float32(-1), np.float32(1)), skip_render_check=False)


@pytest.mark.parametrize("asked", [0.0, 0.7, 1.0, None])
def test_a_walk_leaves_exactly_the_promised_weights(
    trained: Network, splits: SearchSplits, asked: float | None
) -> None:
    env, evaluator = made(trained, splits)
    problem = evaluator.problem
    ratios = np.random.default_rng(0).random(len(problem.names)) if asked is None else [asked] * len(problem.names)
    env.reset()
    promised = {}
    for ratio in ratios:
        _, reward, terminated, _, info = env.step(act(ratio))
        promised[info["group"]] = info["kept"]
    assert terminated
    masked = evaluator.candidate(problem.plan(PruningPolicy(info["policy"])))
    layers = {name: layer for name, layer in masked.named_modules() if isinstance(layer, PRODUCERS)}
    assert {name: int(torch.count_nonzero(layer.weight)) for name, layer in layers.items()} == promised
    assert info["cost"]["nonzero"] == sum(promised.values()) + problem.other_params <= problem.limits["nonzero"]
    if asked == 0.0:  # all of the budget, but for the width of one step of the last layer
        assert problem.limits["nonzero"] - info["cost"]["nonzero"] <= np.diff(problem.widths[-1]).max()
    assert reward == info["scores"]["top1"] - 1
    assert info["scores"] == evaluator.evaluate(problem.plan(PruningPolicy(info["policy"]))).to_dict()


def test_half_of_the_weights_are_hardly_missed(trained: Network, splits: SearchSplits) -> None:
    env, evaluator = made(trained, splits, "nonzero=60%")
    env.reset()
    for _ in evaluator.problem.names:
        _, reward, *_ = env.step(act(0.5))
    whole = evaluator.unpruned().top1
    assert whole is not None
    assert reward + 1 > whole - 0.03


def test_features_count_weights(trained: Network, splits: SearchSplits) -> None:
    env, evaluator = made(trained, splits)
    problem = evaluator.problem
    full, n = problem.full(), len(problem.names)
    seen = [env.reset()[0]]
    kept: list[int] = []
    for ratio in np.linspace(0.9, 0.6, n):
        observation, *_, info = env.step(act(ratio))
        seen.append(observation)
        kept.append(info["kept"])
    for t in range(n):
        removed = sum(full[:t].tolist()) - sum(kept[:t])
        expected = [full[t] / full.sum(), removed / full.sum(), full[t + 1 :].sum() / full.sum()]
        assert np.allclose(seen[t][7:10], expected, atol=1e-6)
        assert seen[t][0] == np.float32(t / (n - 1))
        assert seen[t][10] == np.float32(1 - kept[t - 1] / full[t - 1] if t else 0)
    assert all(env.observation_space.contains(each) for each in seen)


def test_without_the_wall_too_many_weights_are_not_evaluated(trained: Network, splits: SearchSplits) -> None:
    env, evaluator = made(trained, splits, wall=False)
    env.reset()
    for _ in evaluator.problem.names:
        _, reward, *_, info = env.step(act(0.5))
    assert reward == -math.inf
    assert not info["fits"]
    assert info["cost"]["nonzero"] > evaluator.problem.limits["nonzero"]
