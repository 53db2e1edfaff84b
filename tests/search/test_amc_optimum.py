"""AMC on toy problems whose optimum is known: it is learned, where Stable-Baselines3's DDPG as it comes fails."""

from dataclasses import replace

import numpy as np
from stable_baselines3 import DDPG

from autoprune.envs.layerwise_pruning import LayerwisePruningEnv
from autoprune.evaluation.metrics import Scores
from autoprune.problem import PruningProblem
from autoprune.pruning.plan import Plan
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.amc.searcher import Amc
from autoprune.search.amc.settings import AmcSettings
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from tests.search.small_problems import FormulaEvaluator, small_problem

EPISODES = 400

WEIGHTS = (1, 3, 9)


def search(amc: Amc, evaluator: FormulaEvaluator) -> SearchResult:
    with Journal("sqlite://") as journal:
        return run_search(evaluator.problem, evaluator, amc, evaluations=EPISODES, journal=journal)


class TargetEvaluator(FormulaEvaluator):
    """Scores 1 where the groups keep these shares, and less the further from them: an optimum within the budget."""

    shares = np.array([0.8, 0.4, 0.6])

    def evaluate(self, plan: Plan, *, images: int | None = None) -> Scores:
        kept = np.array([len(plan.kept[group.name]) / len(group) for group in self.problem.groups])
        top1 = 1 - 2 * float(((kept - self.shares) ** 2).mean())
        return replace(super().evaluate(plan, images=images), top1=top1)


class Recorded(LayerwisePruningEnv):
    """Keeps the rewards of all episodes."""

    def __init__(self, evaluator: FormulaEvaluator) -> None:
        super().__init__(evaluator.problem, evaluator)
        self.rewards: list[float] = []

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:  # type: ignore[type-arg]
        result = super().step(action)
        if result[2]:
            self.rewards.append(result[1])
        return result


def test_a_known_optimum_is_learned_where_plain_ddpg_fails() -> None:
    """With the official constants: what the agent ends up doing is within 1% of the optimum; plain DDPG is not."""
    evaluator = TargetEvaluator(small_problem("macs=60%", measured=False))
    problem = evaluator.problem
    best_policy = problem.policy(problem.kept(PruningPolicy.of(1 - evaluator.shares)))
    assert problem.project(best_policy) == best_policy
    best = evaluator.evaluate(problem.plan(best_policy)).objective
    for seed in range(2):
        amc = Amc(problem, seed, EPISODES)
        result = search(amc, evaluator)
        assert result.best.objective >= 0.99 * best
        assert np.mean([trial.objective for trial in result.trials[-20:]]) >= 0.99 * best
        assert evaluator.evaluate(problem.plan(amc.policy())).objective >= 0.99 * best
    env = Recorded(evaluator)
    DDPG("MlpPolicy", env, seed=0, device="cpu").learn(EPISODES * len(problem.groups))
    assert len(env.rewards) == EPISODES
    assert 1 + np.mean(env.rewards[-20:]) < 0.99 * best


def test_an_optimum_at_the_edge_of_the_budget_is_found_by_filling() -> None:
    problem = small_problem("macs=50%", measured=False)
    result = search(Amc(problem, 0, EPISODES, AmcSettings(fill=True)), FormulaEvaluator(problem, WEIGHTS))
    best = best_within_budget(problem)
    assert result.best.objective >= 0.99 * best
    assert np.mean([trial.objective for trial in result.trials[-20:]]) >= 0.99 * best


def best_within_budget(problem: PruningProblem) -> float:
    """Return the best objective within the budget: of all policies, from the best down, the first that fits."""
    shares = [np.sqrt(width / width[-1]) for width in problem.widths]
    first, second, third = (weight * share for weight, share in zip(WEIGHTS, shares, strict=True))
    table = first[:, None, None] + second[:, None] + third
    for flat in np.argsort(-table, axis=None):
        index = np.unravel_index(flat, table.shape)
        if problem.fits([int(width[at]) for width, at in zip(problem.widths, index, strict=True)]):
            return float(table[index]) / sum(WEIGHTS)
    raise AssertionError("no policy fits")
