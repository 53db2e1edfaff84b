"""AMC behind the seam of all policies: the agent walks the groups, the driver evaluates, the reward comes back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from autoprune.envs.episode import Episode
from autoprune.envs.layer_features import LayerFeatures
from autoprune.envs.rewards import reward_within
from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search._threads import one_thread
from autoprune.search.amc.agent import AmcAgent, Observation
from autoprune.search.amc.settings import AmcSettings
from autoprune.search.searcher import InOrder, Proposal, Trial

#: Episodes that `stop_early` judges the remaining ones by.
LAST_EPISODES = 30

#: Standard deviations from the mean beyond which a normal distribution has next to nothing.
FAR = 8.0


@dataclass(frozen=True, slots=True)
class Transition:
    """One decision of an episode: features of the group ``(11,)``, the ratio removed, features of the next one."""

    observation: Observation
    ratio: float
    following: Observation
    done: bool


class Amc:
    """Searches with a DDPG agent, one group after another, behind a wall that keeps every episode within the budget.

    In an episode the agent sees the features of a group, draws a ratio around what its actor says, and goes on to the
    next; the driver evaluates where that ends. The reward then goes to every transition of the episode, and the agent
    is updated once per transition. The first episodes are uniform. Transitions are those of the policy that was
    evaluated: ratios after rounding and wall, not what was drawn.

    Deterministic from the seed and for any number of workers; with `parallel_episodes` above 1 or `free_episodes` it
    depends on how many proposals are asked for at a time. Ends after as many episodes, scored on all images, as
    evaluations; with screening the driver ends it, once they are spent.
    """

    name = "amc"

    def __init__(
        self,
        problem: PruningProblem,
        seed: int,
        evaluations: int,
        settings: AmcSettings | None = None,
        *,
        agent: Path | None = None,
        experience: Sequence[Trial] = (),
        log: Path | None = None,
    ) -> None:
        """Set up the agent; no evaluation.

        Args:
            problem: What is pruned.
            seed: Of the agent's weights, exploration and batches.
            evaluations: What may be spent, in episodes that are scored on all search images.
            settings: How it learns; None: as the original.
            agent: File of an agent that was trained before, for this or another network or budget, to go on with;
                there is then no warm-up unless the settings say how long.
            experience: Trials of this problem by other policies, to learn from before the first episode; each counts
                as an episode of the warm-up. Probes and trials screened out are left aside.
            log: Folder to write to for TensorBoard.

        Raises:
            SearchError: A seed below 0, a reward for a cost that `problem` does not have, not an agent's file,
                TensorBoard missing.

        """
        if seed < 0:
            raise SearchError(f"expected a seed of at least 0, found {seed}")
        self._problem, self._settings = problem, settings or AmcSettings()
        self._features = LayerFeatures(problem)
        self._reward = reward_within(self._settings.reward, problem.cost(problem.smallest()))
        self._generator = np.random.default_rng(seed)
        self._agent = AmcAgent(len(problem.groups), self._settings, self._generator)
        known = [trial for trial in experience if trial.competes]
        untrained = self._settings.warmup(evaluations, trained=agent is not None)  # episodes without updates
        self._warmup = max(0, untrained - len(known))
        if agent is not None:
            self._agent.load_weights(agent)
        if log is not None:
            self._agent.log_to(log)
        self._evaluations = evaluations
        self._stopped_below: float | None = None
        self._proposed = 0
        self._told: list[Trial] = []
        self._rewards: dict[tuple[int, ...], float] = {}
        self._order = InOrder()
        with one_thread():
            for number, trial in enumerate(known, start=1):
                self._learn(trial.kept, self._reward(trial.objective, trial.cost), update=number > untrained)

    @property
    def warmup(self) -> int:
        """Episodes with uniform actions at the start: what experience leaves of the settings'."""
        return self._warmup

    @property
    def stopped_below(self) -> float | None:
        """What the episodes left were expected to gain less than when `stop_early` ended the search; None if not."""
        return self._stopped_below

    def ask(self, n: int) -> list[Proposal]:
        """Return the ends of the next episodes; none when there were as many as evaluations, or nothing is to gain."""
        self._order.may_ask(n)
        if self._settings.stop_early and self._left > 0 and self._hopeless():
            self._stopped_below, self._evaluations = self._standard_error(), len(self._told)
        warm = self._warmup - self._proposed
        n = min(n, self._left, warm if warm > 0 else self._settings.parallel_episodes)
        with one_thread():
            return self._order.asked([Proposal(self._next()) for _ in range(n)])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from the episodes, in order."""
        self._order.told(trials)
        with one_thread():
            for trial in trials:
                kept = self._kept(trial.policy)
                reward = self._reward(trial.objective, trial.cost)
                if not trial.screened_out:
                    self._rewards[kept] = reward
                    self._told.append(trial)
                self._learn(kept, reward, update=self._proposed > self._warmup)
                self._log(trial, reward)

    def policy(self) -> PruningPolicy:
        """Return what the agent does without exploring, behind the wall, filled if the settings say so."""
        with one_thread():
            return self._end(0.0)

    def save_agent(self, path: Path) -> None:
        """Write the agent as it is now, to be transferred to another search."""
        limits = ",".join(f"{quantity}={limit}" for quantity, limit in self._problem.limits.items())
        self._agent.save_weights(path, {"model_sha256": self._problem.model_sha256, "limits": limits})

    @property
    def _left(self) -> int:
        """Evaluations left; episodes that were screened out cost a share, which the driver keeps account of."""
        return self._evaluations - len(self._told)

    @property
    def _noise(self) -> float:
        """Deviation in the next episode; infinite in the warm-up."""
        episode = self._proposed - self._warmup
        return math.inf if episode < 0 else self._settings.noise_at(episode)

    def _next(self) -> PruningPolicy:
        """Walk the next episode and return where it ended."""
        for _ in range(self._settings.free_episodes):
            policy = self._end(self._noise)
            kept = self._kept(policy)
            if kept not in self._rewards:
                break
            self._learn(kept, self._rewards[kept], update=self._proposed >= self._warmup)
        else:
            policy = self._end(self._noise)
        self._proposed += 1
        return policy

    def _end(self, noise: float) -> PruningPolicy:
        """Walk one episode and return its policy, filled if the settings say so."""
        policy = self._walk(noise)
        return self._problem.project(policy, fill=True) if self._settings.fill else policy

    def _walk(self, noise: float) -> PruningPolicy:
        """Walk all groups, drawing around the actor with a deviation of `noise`; 0 draws nothing."""
        episode = Episode(self._problem, self._features)
        while not episode.done:
            observation = episode.observation()
            episode.decide(self._agent.explored(observation, noise) if noise else self._agent.ratio(observation))
        return self._problem.policy(episode.kept)

    def _kept(self, policy: PruningPolicy) -> tuple[int, ...]:
        """Return the units that a policy keeps, ``(n_groups,)``."""
        return tuple(self._problem.kept(policy).tolist())

    def _learn(self, kept: Sequence[int], reward: float, *, update: bool) -> None:
        """Remember an episode, with an `update` after each transition once the warm-up is over."""
        for each in transitions(self._problem, self._features, kept):
            self._agent.remember(each.observation, each.ratio, reward, each.following, done=each.done)
            if update:
                self._agent.train(1)
        self._agent.episodes += 1

    def _hopeless(self) -> bool:
        """Tell whether the remaining episodes, drawn like the last ones, gain less than a score's standard error."""
        if self._proposed < self._warmup + LAST_EPISODES or len(self._told) < LAST_EPISODES:
            return False
        best = max(trial.objective for trial in self._told)
        last = [trial.objective for trial in self._told[-LAST_EPISODES:]]
        return expected_gain(last, best, self._left) < self._standard_error()

    def _standard_error(self) -> float:
        """Return the standard error of the best score so far, as if one image more were right and one more wrong."""
        images = self._told[-1].scores.images
        share = (max(trial.objective for trial in self._told) * images + 1) / (images + 2)
        return math.sqrt(share * (1 - share) / images)

    def _log(self, trial: Trial, reward: float) -> None:
        """Write one line for TensorBoard, where there is a log."""
        logger, number = self._agent.logger, trial.number
        logger.record("episode/reward", reward)
        logger.record("episode/objective", trial.objective)
        logger.record("episode/best", max((told.objective for told in self._told), default=trial.objective))
        if self._agent.baseline is not None:
            logger.record("train/baseline", self._agent.baseline)
            logger.record("train/noise", self._noise)
        logger.dump(number)


def transitions(problem: PruningProblem, features: LayerFeatures, kept: Sequence[int]) -> Iterator[Transition]:
    """Walk the episode that ends with `kept` units per group, ``(n_groups,)``, and yield its decisions in order."""
    episode = Episode(problem, features, wall=False)
    observation = episode.observation()
    for count, group in zip(kept, problem.groups, strict=True):
        ratio = episode.decide(1 - count / len(group))
        following = episode.observation()
        yield Transition(observation, ratio, following, episode.done)
        observation = following


def expected_gain(last: Sequence[float], best: float, episodes: int) -> float:
    """Return by how much the best of so many `episodes` is expected to exceed `best`, if they are like the `last` ones.

    Taken as normal: the integral over x >= best of 1 - F(x)^episodes, in standard deviations from their mean, so that
    it can be computed also where they are equal but for rounding.
    """
    mean, deviation = float(np.mean(last)), float(np.std(last, ddof=1))
    if episodes < 1 or deviation == 0:
        return max(0.0, mean - best) if episodes >= 1 else 0.0
    start = float(np.clip((best - mean) / deviation, -FAR, 5 * FAR))  # what is integrated is 1 before and 0 behind
    gain, _ = quad(lambda z: 1 - norm.cdf(z) ** episodes, start, max(start, 0.0) + FAR)
    return deviation * float(gain) + max(0.0, mean - FAR * deviation - best)
