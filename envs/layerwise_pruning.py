"""Layer by layer pruning as in AMC (He et al. 2018, arXiv 1802.03494): one step decides one group."""

import math
import sys
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from autoprune.envs.drawing import drawing
from autoprune.envs.episode import Episode
from autoprune.envs.layer_features import N_FEATURES, LayerFeatures
from autoprune.envs.layerwise_problem import LayerwiseProblem, PlanScorer
from autoprune.envs.rewards import reward_within
from autoprune.errors import SearchError

Observation = NDArray[np.float32]
Action = NDArray[np.float32]
AnyPlan = TypeVar("AnyPlan")


class LayerwisePruningEnv(gymnasium.Env[Observation, Action]):
    """Decides the groups of a problem one after another, first to last; behind the wall none ends over budget.

    * **Problem**: channels of groups (:class:`autoprune.problem.PruningProblem`, scored by
      :class:`autoprune.evaluation.evaluator.Evaluator`) or, as in AMC's fine-grained pruning, single weights of layers
      (:class:`autoprune.pruning.weight_problem.WeightPruningProblem`, scored by
      :class:`autoprune.evaluation.weight_evaluator.WeightEvaluator`).
    * **Action**, ``Box(0, 1, (1,))``: the ratio to remove of the current group, rounded to the nearest allowed width.
    * **Action wall**: the group is narrowed further, as far as needed so that the budget can still be met with all
      later groups at their smallest width; exact, for any limits. What was taken is the last feature of the next
      observation.
    * **Observation**, ``Box(0, 1, (11,))``: the features of the group to be decided next, as in
      :class:`autoprune.envs.layer_features.LayerFeatures`; after the last step, those of the last group.
    * **Reward**: 0 until the last step, then that of :mod:`autoprune.envs.rewards` by name. Without the wall, an
      episode that ends over budget is not evaluated, and its reward is -inf.
    * **Info**: ``group`` (name of the group just decided) and ``kept`` (its units); at the end also ``policy`` (all
      ratios), ``cost``, ``fits`` (whether that is within budget) and, if so, ``scores``.
    * **Rendering**: ``"ansi"`` returns :func:`autoprune.envs.drawing.drawing`, ``"human"`` prints it at every step.

    Both protocols of the paper, sec. 3.4: within given resources, wall and ``-error``; at the least loss of accuracy,
    no wall (or a loose budget) and ``-error*log(macs)`` or ``-error*log(params)``.

    Nothing is random: the seed plays no part, and the same actions give the same episode.
    """

    metadata = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012 - as in the base class

    def __init__(
        self,
        problem: LayerwiseProblem[AnyPlan],
        evaluator: PlanScorer[AnyPlan],
        *,
        reward: str = "-error",
        wall: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """Pose `problem`; `evaluator` scores one plan per episode.

        Args:
            problem: What is decided, and within which limits.
            evaluator: Scores plans of `problem`.
            reward: A name in :data:`autoprune.envs.rewards.REWARDS`.
            wall: Whether no episode can end over budget.
            render_mode: ``"ansi"``, ``"human"`` or None.

        Raises:
            UnknownNameError: No such reward.
            SearchError: A reward for a cost that `problem` does not have, or no such render mode.

        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise SearchError(f"expected render_mode 'ansi', 'human' or None, found {render_mode!r}")
        self._reward = reward_within(reward, problem.cost(problem.smallest()))
        self.problem: LayerwiseProblem[Any] = problem
        self.render_mode = render_mode
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (N_FEATURES,), np.float32)
        self._evaluator: PlanScorer[Any] = evaluator
        self._wall = wall
        self._features = LayerFeatures(problem)
        self._episode = self._new_episode()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start with the whole network."""
        super().reset(seed=seed)
        self._episode = self._new_episode()
        return self._episode.observation(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide the next group.

        Raises:
            gymnasium.error.ResetNeeded: The episode is over.
            gymnasium.error.InvalidAction: Not one number from 0 to 1.

        """
        episode, names = self._episode, self.problem.names
        index = len(episode.kept)
        if index == len(names):
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() before the next step()")
        if not self.action_space.contains(action):
            raise gymnasium.error.InvalidAction(
                f"expected a float32 array of shape (1,) within [0, 1], found {action!r}"
            )
        episode.decide(float(action[0]))
        info: dict[str, Any] = {"group": names[index], "kept": episode.kept[-1]}
        reward = 0.0
        if episode.done:
            reward, outcome = self._outcome()
            info |= outcome
        if self.render_mode == "human":
            self.render()
        return episode.observation(), reward, episode.done, False, info

    def render(self) -> str | None:
        """Return the policy so far as text, or print it, as the render mode says."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() does nothing without a render mode: make the environment with one, 'ansi'")
            return None
        text = drawing(self.problem, self._episode.kept)
        if self.render_mode == "ansi":
            return text
        sys.stdout.write(f"{text}\n\n")
        return None

    def _new_episode(self) -> Episode:
        """Return an episode with nothing decided."""
        return Episode(self.problem, self._features, wall=self._wall)

    def _outcome(self) -> tuple[float, dict[str, Any]]:
        """Return reward and info of the episode, which is over."""
        kept = self._episode.kept
        fits = self.problem.fits(kept)
        assert fits or not self._wall, "the wall holds the budget"
        policy, cost = self.problem.policy(kept), self.problem.cost(kept)
        info = {"policy": policy.ratios, "cost": cost, "fits": fits}
        if not fits:
            return -math.inf, info
        scores = self._evaluator.evaluate(self.problem.plan(policy))
        return self._reward(scores.objective, cost), info | {"scores": scores.to_dict()}
