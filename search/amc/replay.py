"""The replay buffer of AMC: whole episodes, every transition with the reward of its episode."""

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples


class EpisodeBuffer(ReplayBuffer):
    """Stable-Baselines3's buffer with the rewards of mit-han-lab/amc, and with randomness of its own.

    AMC rewards the end of an episode alone and writes that reward to every transition of it. Batches are drawn without
    replacement, smaller ones as long as there are fewer transitions.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[NDArray[np.float32]],
        action_space: spaces.Space[NDArray[np.float32]],
        *,
        generator: np.random.Generator,
        device: torch.device | str = "cpu",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
    ) -> None:
        """Hold `buffer_size` transitions; `generator` draws the batches."""
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device=device,
            n_envs=n_envs,
            optimize_memory_usage=optimize_memory_usage,
            handle_timeout_termination=False,
        )
        self._generator = generator

    def add_transition(
        self,
        observation: NDArray[np.float32],
        action: float,
        reward: float,
        following: NDArray[np.float32],
        *,
        done: bool,
    ) -> None:
        """Take one transition.

        Args:
            observation: Features of the group that was decided, ``(n_features,)``.
            action: What was done, in -1 to 1.
            reward: Of the whole episode.
            following: Features of the next group, or of the last one when `done`, ``(n_features,)``.
            done: Whether that was the last group.

        """
        self.add(
            observation, following, np.array([[action]]), np.array([reward]), np.array([done], dtype=np.float32), [{}]
        )

    def sample(self, batch_size: int, env: object = None) -> ReplayBufferSamples:
        """Return `batch_size` different transitions, or all where there are fewer; `env` plays no part."""
        size = self.size()
        chosen = self._generator.choice(size, min(batch_size, size), replace=False)
        parts = (
            self.observations,
            self.actions,
            self.next_observations,
            self.dones[..., None],
            self.rewards[..., None],
        )
        return ReplayBufferSamples(*(self.to_torch(part[chosen, 0]) for part in parts))
