"""Layer by layer pruning as in AMC (He et al. 2018, arXiv 1802.03494): one step decides one channel group."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from autoprune.envs.episode import Episode
from autoprune.envs.layer_features import N_FEATURES, LayerFeatures
from autoprune.evaluation.plan_evaluator import PlanEvaluator
from autoprune.problem import PruningProblem

Observation = NDArray[np.float32]
Action = NDArray[np.float32]


class LayerwisePruningEnv(gymnasium.Env[Observation, Action]):
    """Decides the groups of a problem one after another, first to last; no episode can end over budget.

    * **Action**, ``Box(0, 1, (1,))``: the ratio to remove of the current group, rounded to the nearest allowed width.
    * **Action wall**: the group is narrowed further, as far as needed so that the budget can still be met with all
      later groups at their smallest width; exact, for any limits. What was taken is the last feature of the next
      observation.
    * **Observation**, ``Box(0, 1, (11,))``: the features of the group to be decided next, as in
      :class:`autoprune.envs.layer_features.LayerFeatures`; after the last step, those of the last group.
    * **Reward**: 0 until the last step, then ``-error = objective - 1`` (He 2018, sec. 3.3): -1 to 0.
    * **Info**: ``group`` (name of the group just decided) and ``kept`` (its units); at the end also ``policy`` (all
      ratios), ``cost`` and ``scores``.

    Nothing is random: the seed plays no part, and the same actions give the same episode.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - as in the base class

    def __init__(self, problem: PruningProblem, evaluator: PlanEvaluator) -> None:
        """Pose `problem`; `evaluator` scores one plan per episode."""
        self.problem = problem
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (N_FEATURES,), np.float32)
        self._evaluator = evaluator
        self._features = LayerFeatures(problem)
        self._episode = Episode(problem, self._features)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start with the whole network."""
        super().reset(seed=seed)
        self._episode = Episode(self.problem, self._features)
        return self._episode.observation(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the next group.

        Raises:
            gymnasium.error.ResetNeeded: The episode is over.
            gymnasium.error.InvalidAction: Not one number from 0 to 1.

        """
        episode = self._episode
        if episode.done:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() before the next step()")
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(
                f"expected a float32 array of shape (1,) within [0, 1], found {action!r}"
            )
        group = self.problem.groups[len(episode.kept)]
        episode.decide(float(action[0]))
        info: dict[str, Any] = {"group": group.name, "kept": episode.kept[-1]}
        reward = 0.0
        if episode.done:
            assert self.problem.fits(episode.kept), "the wall holds the budget"
            policy = self.problem.policy(episode.kept)
            scores = self._evaluator.evaluate(self.problem.plan(policy))
            reward = scores.objective - 1
            info |= {"policy": policy.ratios, "cost": self.problem.cost(episode.kept), "scores": scores.to_dict()}
        return episode.observation(), reward, episode.done, False, info
