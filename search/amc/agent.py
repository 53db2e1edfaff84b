"""The agent of AMC: Stable-Baselines3's DDPG, trained as mit-han-lab/amc does."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.special import ndtr, ndtri
from stable_baselines3 import DDPG
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import polyak_update

from autoprune.envs.layer_features import N_FEATURES
from autoprune.errors import NumericalError, SearchError
from autoprune.files import write_whole
from autoprune.search.amc.replay import EpisodeBuffer
from autoprune.search.amc.settings import NO_TENSORBOARD, AmcSettings

FORMAT = "autoprune-amc-agent/1"

#: Largest magnitude in an agent's file: with it, whatever actor and critic say of features is still finite.
LARGEST_WEIGHT = 1e6

Observation = NDArray[np.float32]


class AmcAgent(DDPG):
    """An actor from features to the ratio to remove, its critic, and their training (He et al. 2018, section 3.2).

    What differs from plain DDPG: the reward of an episode at every transition (:class:`EpisodeBuffer`), a moving
    baseline subtracted from the rewards of a batch, two learning rates, and truncated normal exploration. Everything
    random comes from `generator`; the global random state is neither used nor changed. Lives on the CPU, where networks
    this small are fastest.

    Attributes:
        episodes: Episodes learned from, those before it was saved included.

    """

    replay_buffer: EpisodeBuffer

    def __init__(self, n_layers: int, settings: AmcSettings, generator: np.random.Generator) -> None:
        """Make an untrained agent for networks of `n_layers` groups."""
        super().__init__(
            "MlpPolicy",
            None,  # type: ignore[arg-type]  # the spaces are all it takes of an environment
            buffer_size=settings.replay_episodes * n_layers,
            batch_size=settings.batch_size,
            tau=settings.tau,
            gamma=settings.gamma,
            replay_buffer_class=EpisodeBuffer,
            replay_buffer_kwargs={"generator": generator},
            policy_kwargs={"net_arch": list(settings.hidden)},
            device="cpu",
            _init_setup_model=False,
        )
        self.observation_space = spaces.Box(0.0, 1.0, (N_FEATURES,), np.float32)
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.n_envs = 1
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(generator.integers(2**63)))
            self._setup_model()
        for network, rate in ((self.actor, settings.actor_rate), (self.critic, settings.critic_rate)):
            for group in network.optimizer.param_groups:
                group["lr"] = rate
        self.episodes = 0
        self.set_logger(configure(None, []))
        self._generator = generator
        self._settings = settings
        self._baseline: float | None = None

    @property
    def baseline(self) -> float | None:
        """The moving mean of rewards; None before the first update."""
        return self._baseline

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self._n_updates

    def log_to(self, folder: Path) -> None:
        """Write what is recorded to `folder` for TensorBoard.

        Raises:
            SearchError: TensorBoard is not installed.

        """
        try:
            self.set_logger(configure(str(folder), ["tensorboard"]))
        except (AssertionError, ImportError) as error:
            raise SearchError(NO_TENSORBOARD) from error

    def ratio(self, observation: Observation) -> float:
        """Return the ratio, 0 to 1, that the actor removes of the group with these features, ``(n_features,)``.

        Raises:
            NumericalError: The training has diverged: what the actor says is not a number.

        """
        with torch.no_grad():
            action = float(self.actor(torch.from_numpy(observation)[None]))
        if math.isnan(action):
            raise NumericalError(
                f"the agent's ratio is not a number after {self.updates} updates: its training diverged; lower "
                "actor_rate and critic_rate, or begin with another agent or none"
            )
        return (action + 1) / 2

    def explored(self, observation: Observation, noise: float) -> float:
        """Return a ratio drawn around the actor's: normal with deviation `noise`, truncated to 0 to 1.

        `noise` infinite draws uniformly, as in the warm-up.
        """
        if np.isinf(noise):
            return float(self._generator.random())
        return truncated_normal(self.ratio(observation), noise, self._generator)

    def remember(
        self, observation: Observation, ratio: float, reward: float, following: Observation, *, done: bool
    ) -> None:
        """Put a transition into the replay buffer; see :meth:`EpisodeBuffer.add_transition`."""
        self.replay_buffer.add_transition(observation, 2 * ratio - 1, reward, following, done=done)

    def train(self, gradient_steps: int, batch_size: int | None = None) -> None:
        """Update critic, actor and their targets `gradient_steps` times, each on a batch of its own."""
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            self._n_updates += 1
            self._update(batch_size or self.batch_size)
        self.policy.set_training_mode(False)

    def _update(self, batch_size: int) -> None:
        """Update once: critic towards r - b + gamma Q'(s', mu'(s')), actor up the critic, the targets softly."""
        batch, rate = self.replay_buffer.sample(batch_size), self._settings.baseline_rate
        mean = float(batch.rewards.mean())
        self._baseline = mean if self._baseline is None else self._baseline + rate * (mean - self._baseline)
        with torch.no_grad():
            (following,) = self.critic_target(batch.next_observations, self.actor_target(batch.next_observations))
            target = batch.rewards - self._baseline + (1 - batch.dones) * self.gamma * following  # He 2018, eq. 2
        (value,) = self.critic(batch.observations, batch.actions)
        critic_loss = F.mse_loss(value, target)
        self.critic.optimizer.zero_grad()
        critic_loss.backward()  # type: ignore[no-untyped-call]
        self.critic.optimizer.step()
        actor_loss = -self.critic.q1_forward(batch.observations, self.actor(batch.observations)).mean()
        self.actor.optimizer.zero_grad()
        actor_loss.backward()  # type: ignore[no-untyped-call]
        self.actor.optimizer.step()
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        self.logger.record_mean("train/critic_loss", float(critic_loss.detach()))
        self.logger.record_mean("train/actor_loss", float(actor_loss.detach()))

    def save_weights(self, path: Path, facts: Mapping[str, str]) -> None:
        """Write actor, critic and their targets as safetensors, with `facts` about their training."""
        weights = {name: tensor.contiguous() for name, tensor in self.policy.state_dict().items()}
        header = {"format": FORMAT, "hidden": list(self._settings.hidden), "episodes": self.episodes, **facts}
        metadata = {"agent": json.dumps(header, sort_keys=True)}  # one entry: several come in any order, bytes differ
        write_whole(path, save(weights, metadata))

    def load_weights(self, path: Path) -> Self:
        """Take over a saved agent's networks; its replay buffer and its optimizers' state start anew.

        Raises:
            SearchError: Not an agent's file, or of other hidden layers.

        """
        weights, header = _read(path)
        if header.get("hidden") != list(self._settings.hidden):
            raise SearchError(
                f"agent {path}: has hidden layers of {header.get('hidden')} units, expected "
                f"{list(self._settings.hidden)}; set `hidden` to what the agent has"
            )
        own = self.policy.state_dict()
        if {n: (t.dtype, t.shape) for n, t in weights.items()} != {n: (t.dtype, t.shape) for n, t in own.items()}:
            raise _not_an_agent(path, "its tensors are not those of actor and critic")
        if not all(bool((each.abs() <= LARGEST_WEIGHT).all()) for each in weights.values()):
            raise _not_an_agent(path, f"it holds values that are not finite or beyond {LARGEST_WEIGHT:g}")
        self.policy.load_state_dict(weights)
        episodes = header.get("episodes")
        self.episodes = max(0, episodes) if isinstance(episodes, int) else 0
        return self


def truncated_normal(mean: float, deviation: float, generator: np.random.Generator) -> float:
    """Draw from a normal distribution truncated to 0 to 1 (He et al. 2018, section 3.2: TN(mu(s), sigma^2, 0, 1))."""
    low, high = ndtr(-mean / deviation), ndtr((1 - mean) / deviation)
    return float(np.clip(mean + deviation * ndtri(generator.uniform(low, high)), 0, 1))


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Return the tensors of an agent's file and what it says about them."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("agent", "{}"))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise _not_an_agent(path, str(error)) from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT:
        raise _not_an_agent(path, f"its format is {found!r}, expected {FORMAT!r}")
    return weights, header


def _not_an_agent(path: Path, reason: str) -> SearchError:
    """Return the error that `path` holds no agent."""
    return SearchError(f"cannot use the agent {path}: {reason}; give the agent.safetensors of an earlier amc search")
