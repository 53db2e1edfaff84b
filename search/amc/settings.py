"""Everything that can be chosen about an AMC search; the defaults are the constants of the official code."""

import math
from dataclasses import dataclass

from autoprune.envs.rewards import reward as reward_of
from autoprune.errors import SearchError

#: Episodes with uniform actions before the agent is asked and trained (mit-han-lab/amc).
WARMUP_EPISODES = 100

#: What is said where a log is asked for and cannot be written.
NO_TENSORBOARD = (
    "a log for TensorBoard needs the package tensorboard; install it with pip install 'autoprune[tensorboard]', or "
    "search without the log"
)


@dataclass(frozen=True, slots=True)
class AmcSettings:
    """How the agent explores and learns (mit-han-lab/amc), and what goes beyond the original, off unless said.

    Attributes:
        reward: Name in :data:`autoprune.envs.rewards.REWARDS`.
        warmup_episodes: Episodes with uniform actions; None: 100, or a quarter of the evaluations if that is fewer, and
            none for an agent that was trained before.
        hidden: Units of the two hidden layers of actor and critic.
        actor_rate: Learning rate of the actor (Adam).
        critic_rate: Learning rate of the critic (Adam).
        batch_size: Transitions per update.
        tau: Share by which the target networks follow at every update.
        gamma: Discount.
        replay_episodes: Episodes the replay buffer holds.
        noise: Standard deviation of the truncated normal around the actor's ratio after the warm-up.
        noise_decay: Factor of that deviation from episode to episode.
        baseline_rate: Weight of a batch's mean reward in the moving baseline that is subtracted from its rewards.
        parallel_episodes: Beyond the original: episodes that the agent walks before it learns from them, so that
            workers share their evaluation; 1 as in the original. During the warm-up there is nothing to wait for.
        fill: Beyond the original: widen what an episode leaves of the budget, and learn from the widened policy.
        free_episodes: Beyond the original: how many times in a row an episode that ends in a policy evaluated before
            is learned from at once, and another one walked, instead of spending an evaluation on it.
        stop_early: Beyond the original: end when the best of the remaining episodes, drawn like the last ones, is
            expected to gain less than the standard error of a score.

    """

    reward: str = "-error"
    warmup_episodes: int | None = None
    hidden: tuple[int, int] = (300, 300)
    actor_rate: float = 1e-4
    critic_rate: float = 1e-3
    batch_size: int = 64
    tau: float = 0.01
    gamma: float = 1.0
    replay_episodes: int = 100
    noise: float = 0.5
    noise_decay: float = 0.95
    baseline_rate: float = 0.5
    parallel_episodes: int = 1
    fill: bool = False
    free_episodes: int = 0
    stop_early: bool = False

    def __post_init__(self) -> None:
        """Check every value; NaN is out of range everywhere.

        Raises:
            UnknownNameError: No such reward.
            SearchError: A number out of range.

        """
        reward_of(self.reward)
        checks = {
            "warmup_episodes": (self.warmup_episodes is None or self.warmup_episodes >= 0, "at least 0"),
            "hidden": (len(self.hidden) == 2 and min(self.hidden) >= 1, "two numbers, at least 1"),
            "actor_rate": (0 < self.actor_rate < math.inf, "above 0"),
            "critic_rate": (0 < self.critic_rate < math.inf, "above 0"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "tau": (0 < self.tau <= 1, "above 0, at most 1"),
            "gamma": (0 <= self.gamma <= 1, "from 0 to 1"),
            "replay_episodes": (self.replay_episodes >= 1, "at least 1"),
            "noise": (0 < self.noise < math.inf, "above 0"),
            "noise_decay": (0 < self.noise_decay <= 1, "above 0, at most 1"),
            "baseline_rate": (0 < self.baseline_rate <= 1, "above 0, at most 1"),
            "parallel_episodes": (self.parallel_episodes >= 1, "at least 1"),
            "free_episodes": (self.free_episodes >= 0, "at least 0"),
        }
        wrong = [
            f"{name} must be {expected}, found {getattr(self, name)!r}"
            for name, (holds, expected) in checks.items()
            if not holds
        ]
        if wrong:
            raise SearchError(f"settings of policy 'amc': {'; '.join(wrong)}")

    def warmup(self, evaluations: int, *, trained: bool = False) -> int:
        """Return the episodes with uniform actions in a search of so many `evaluations`, `trained` before or not."""
        if self.warmup_episodes is not None:
            return self.warmup_episodes
        return 0 if trained else min(WARMUP_EPISODES, max(1, evaluations // 4))

    def noise_at(self, episode: int) -> float:
        """Return the standard deviation in an episode, counted from 0 at the end of the warm-up."""
        return self.noise * self.noise_decay**episode
