"""The agent of AMC, piece by piece, against the paper and the official code."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.stats import kstest, truncnorm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

from autoprune.envs.layer_features import N_FEATURES
from autoprune.errors import NumericalError, SearchError, UnknownNameError
from autoprune.search.amc.agent import FORMAT, AmcAgent, truncated_normal
from autoprune.search.amc.settings import AmcSettings

LAYERS = 5


def new_agent(seed: int = 0, settings: AmcSettings | None = None) -> AmcAgent:
    return AmcAgent(LAYERS, settings or AmcSettings(), np.random.default_rng(seed))


def features(generator: np.random.Generator) -> NDArray[np.float32]:
    return generator.random(N_FEATURES, dtype=np.float32)


def filled(agent: AmcAgent, transitions: int, *, reward: float | None = None, seed: int = 1) -> AmcAgent:
    """Let the agent remember random transitions, every fifth the last of its episode."""
    generator = np.random.default_rng(seed)
    for number in range(1, transitions + 1):
        value = float(generator.normal()) if reward is None else reward
        ratio = float(generator.random())
        agent.remember(features(generator), ratio, value, features(generator), done=number % LAYERS == 0)
    return agent


def test_the_defaults_are_the_constants_of_the_official_code() -> None:
    agent = new_agent()
    assert agent.replay_buffer.buffer_size == 100 * LAYERS
    assert (agent.batch_size, agent.tau, agent.gamma) == (64, 0.01, 1.0)
    assert [group["lr"] for group in agent.actor.optimizer.param_groups] == [1e-4]
    assert [group["lr"] for group in agent.critic.optimizer.param_groups] == [1e-3]
    for network, inputs in ((agent.actor, N_FEATURES), (agent.critic, N_FEATURES + 1)):
        linear = [
            (layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)
        ]
        assert linear == [(inputs, 300), (300, 300), (300, 1)]
        assert isinstance(network.optimizer, torch.optim.Adam)
        assert sum(isinstance(layer, nn.ReLU) for layer in network.modules()) == 2
    settings = AmcSettings()
    assert (settings.noise, settings.noise_decay, settings.baseline_rate) == (0.5, 0.95, 0.5)
    assert settings.noise_at(3) == 0.5 * 0.95**3
    assert [settings.warmup(n) for n in (1, 40, 399, 400, 800)] == [1, 10, 99, 100, 100]


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (0.3, 0.5), (0.9, 0.1), (1.0, 0.01), (0.5, 5.0)])
def test_exploration_is_truncated_normal(mean: float, deviation: float) -> None:
    generator = np.random.default_rng(7)
    drawn = np.array([truncated_normal(mean, deviation, generator) for _ in range(3000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    expected = truncnorm((0 - mean) / deviation, (1 - mean) / deviation, loc=mean, scale=deviation)
    assert kstest(drawn, expected.cdf).pvalue > 0.01


def test_the_agent_explores_around_its_actor_and_uniformly_in_the_warm_up() -> None:
    agent, observation = new_agent(), features(np.random.default_rng(3))
    mean = agent.ratio(observation)
    around = [agent.explored(observation, 0.2) for _ in range(2000)]
    assert kstest(around, truncnorm((0 - mean) / 0.2, (1 - mean) / 0.2, loc=mean, scale=0.2).cdf).pvalue > 0.01
    assert kstest([agent.explored(observation, float("inf")) for _ in range(2000)], "uniform").pvalue > 0.01


def test_the_buffer_holds_the_last_transitions_and_draws_without_replacement() -> None:
    agent = new_agent()
    for number in range(100 * LAYERS + 7):
        agent.remember(np.full(N_FEATURES, number, np.float32), 0.25, 1.0, np.zeros(N_FEATURES, np.float32), done=False)
    batch = agent.replay_buffer.sample(100 * LAYERS)
    assert sorted(batch.observations[:, 0].tolist()) == list(range(7, 100 * LAYERS + 7))
    assert set(batch.actions.flatten().tolist()) == {-0.5}  # Stable-Baselines3's actors speak from -1 to 1
    few = filled(new_agent(), 10).replay_buffer.sample(64)
    assert few.rewards.shape == few.dones.shape == few.actions.shape == (10, 1)
    assert few.dones.sum() == 2


def test_the_baseline_is_the_moving_mean_of_batches() -> None:
    agent = filled(new_agent(), 64)  # every batch holds all of them
    agent.train(1)
    first = float(agent.replay_buffer.rewards[:64].mean())
    assert agent.baseline == pytest.approx(first)
    agent.replay_buffer.rewards[:64] += 2
    agent.train(1)
    assert agent.baseline == pytest.approx(first + 0.5 * 2)
    agent.train(1)
    assert agent.baseline == pytest.approx(first + 0.75 * 2)


def test_one_update_is_that_of_the_paper() -> None:
    """Critic: squared distance to r - b + gamma (1 - done) Q'(s', mu'(s')); actor: up the critic; targets: softly."""
    agent = filled(new_agent(), 64)
    for network in (agent.actor_target, agent.critic_target):  # as if they had fallen behind
        for parameter in network.parameters():
            parameter.data.mul_(0.9)
    expected = copy.deepcopy(agent.policy)
    batch = agent.replay_buffer.sample(64)
    agent.train(1)

    by_hand(expected, batch)
    trained = agent.policy.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.allclose(trained[name], value, rtol=1e-4, atol=1e-6), name


def by_hand(policy: nn.Module, batch: ReplayBufferSamples) -> None:
    """Update a copy of actor, critic and targets with plain torch."""
    actor, critic = policy.actor, policy.critic
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with torch.no_grad():
        following = policy.critic_target(batch.next_observations, policy.actor_target(batch.next_observations))[0]
        target = batch.rewards - batch.rewards.mean() + (1 - batch.dones) * following
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    F.mse_loss(critic(batch.observations, batch.actions)[0], target).backward()
    critic_optimizer.step()
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=1e-4)
    (-critic(batch.observations, actor(batch.observations))[0].mean()).backward()
    actor_optimizer.step()
    after = policy.state_dict()
    for part in ("actor", "critic"):
        for name in before:
            if name.startswith(f"{part}."):
                old = before[name.replace(f"{part}.", f"{part}_target.", 1)]
                after[name.replace(f"{part}.", f"{part}_target.", 1)].copy_(0.99 * old + 0.01 * after[name])


def test_updates_are_counted_and_the_global_random_state_is_left_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    agent = filled(new_agent(), 100)
    agent.train(9)
    assert agent.updates == 9
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_the_seed_determines_the_agent() -> None:
    one, two, other = (filled(new_agent(seed), 100) for seed in (4, 4, 5))
    for agent in (one, two, other):
        agent.train(5)
    observation = features(np.random.default_rng(0))
    assert one.ratio(observation) == two.ratio(observation) != other.ratio(observation)
    assert one.explored(observation, 0.1) == two.explored(observation, 0.1)


def test_an_agent_comes_back_from_its_file(tmp_path: Path) -> None:
    agent = filled(new_agent(), 100)
    agent.train(5)
    agent.episodes = 12
    agent.save_weights(tmp_path / "agent.safetensors", {"limits": "macs=7"})
    again = new_agent(seed=9).load_weights(tmp_path / "agent.safetensors")
    assert again.episodes == 12
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, again.policy.state_dict()[name])
    filled(again, 64).train(1)  # and learns on


def test_files_that_hold_no_agent_are_refused(tmp_path: Path) -> None:
    agent, path = new_agent(), tmp_path / "agent.safetensors"
    with pytest.raises(SearchError, match=r"cannot use the agent .*No such file"):
        agent.load_weights(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(SearchError, match="cannot use the agent"):
        agent.load_weights(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(SearchError, match="its format is None"):
        agent.load_weights(path)
    agent.save_weights(path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SearchError, match="cannot use the agent"):
        agent.load_weights(path)
    agent.save_weights(path, {})
    with pytest.raises(SearchError, match=r"hidden layers of \[300, 300\] units, expected \[32, 32\]"):
        new_agent(settings=AmcSettings(hidden=(32, 32))).load_weights(path)
    agent.actor.mu[0].weight.data[0, 0] = float("nan")
    agent.save_weights(path, {})
    with pytest.raises(SearchError, match="not finite"):
        new_agent().load_weights(path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.complex64, torch.bool])
def test_agents_of_other_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "agent.safetensors"
    write(path, {name: tensor.to(dtype) for name, tensor in new_agent().policy.state_dict().items()})
    with pytest.raises(SearchError, match="its tensors are not those of actor and critic"):
        new_agent().load_weights(path)


def test_agents_that_would_compute_what_is_not_finite_are_refused(tmp_path: Path) -> None:
    path, weights = tmp_path / "agent.safetensors", new_agent().policy.state_dict()
    write(path, {name: torch.full_like(tensor, 1e30) for name, tensor in weights.items()})
    with pytest.raises(SearchError, match="not finite or beyond 1e"):
        new_agent().load_weights(path)
    write(path, {name: torch.full_like(tensor, 1e6) for name, tensor in weights.items()})
    assert 0 <= new_agent().load_weights(path).ratio(np.ones(N_FEATURES, np.float32)) <= 1


def test_training_that_diverges_is_told() -> None:
    agent = filled(new_agent(settings=AmcSettings(critic_rate=1e20)), 64)
    agent.train(3)
    for noise in (0.5, 1e-3):
        with pytest.raises(NumericalError, match="not a number after 3 updates: its training diverged"):
            agent.explored(np.ones(N_FEATURES, np.float32), noise)


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"agent": "[" * 100_000})
    with pytest.raises(SearchError, match="cannot use the agent"):
        new_agent().load_weights(path)


def write(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write `weights` under the header of an agent."""
    header = {"format": FORMAT, "hidden": [300, 300], "episodes": 1}
    save_file(weights, path, metadata={"agent": json.dumps(header)})


def test_bad_settings_are_all_named() -> None:
    with pytest.raises(SearchError, match=r"batch_size must be at least 1, found 0; tau must be above 0.*nan"):
        AmcSettings(batch_size=0, tau=float("nan"))
    with pytest.raises(UnknownNameError, match="Did you mean '-error'"):
        AmcSettings(reward="error")
