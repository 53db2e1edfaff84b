"""Multi-objective search: plans of many costs in one go, by NSGA-II (Deb et al. 2002)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.costs.budget import Budget
from autoprune.costs.quantities import shown
from autoprune.errors import AutopruneError, SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.random_search import random_policy
from autoprune.search.samplers import SamplerSearch, Values
from autoprune.search.searcher import Proposal, Trial
from autoprune.search.study import Direction
from autoprune.search.warm_start import exact_policy

#: The sampler that looks for a front.
NSGA2 = "nsga2"


@dataclass(frozen=True, slots=True)
class CostRange:
    """Costs between which plans are looked for, in one quantity.

    Attributes:
        quantity: The cost that is traded for score.
        least: Lower end: nothing that costs less is tried, up to one width of one group.
        most: Upper end: what the budget allows.

    """

    quantity: str
    least: int
    most: int

    @classmethod
    def parse(cls, text: str, problem: PruningProblem) -> "CostRange":
        """Read a lower end, for example ``macs=30%``, written like a budget of one limit.

        Raises:
            SearchError: Not of this form, below what can be reached, or not below the budget of `problem`.

        """
        whole, smallest = problem.cost(problem.costs.full()), problem.cost(problem.smallest())
        try:
            limits = Budget.parse(text).resolve(whole, smallest)
        except AutopruneError as error:
            raise SearchError(f"lower end of the front: {error}") from error
        if len(limits) > 1:
            raise SearchError(f"lower end of the front: expected one quantity, for example macs=30%, found {text!r}")
        ((quantity, least),) = limits.items()
        most = problem.limits.get(quantity, whole[quantity])
        if least >= most:
            raise SearchError(
                f"lower end of the front: {quantity} {shown(quantity, least)} is not below the budget of "
                f"{shown(quantity, most)}; ask for less, or allow more"
            )
        return cls(quantity, least, most)

    def at(self, share: float) -> int:
        """Return the cost so far up from the lower to the upper end."""
        return self.least + round(share * (self.most - self.least))

    def reflected(self, cost: int) -> int:
        """Return a cost in the range: `cost` itself, or as far inside of an end as it lies outside."""
        if cost < self.least:
            return min(2 * self.least - cost, self.most)
        return max(2 * self.most - cost, self.least) if cost > self.most else cost

    def limited(self, problem: PruningProblem, cost: int) -> PruningProblem:
        """Return `problem` with a limit of `cost`; its other limits stay."""
        return replace(problem, limits={**problem.limits, self.quantity: cost})


@dataclass(frozen=True, slots=True)
class _Tradeoff:
    """High scores at low costs: the aim of a search over a range.

    Attributes:
        problem: With the budget as its upper end.
        costs: The range.
        start: What is drawn first.

    """

    problem: PruningProblem
    costs: CostRange
    start: tuple[PruningPolicy, ...]
    directions: tuple[Direction, ...] = ("maximize", "minimize")

    def first(self) -> Sequence[PruningPolicy]:
        """Return the start."""
        return self.start

    def project(self, policy: PruningPolicy) -> PruningPolicy:
        """Return a policy within the range as it is; move others along a straight line to their reflected cost.

        Moved to the end itself, many would meet there: draws are cheaper than the range more often than not.
        """
        problem, costs = self.problem, self.costs
        kept = problem.kept(policy)
        cost = problem.cost(kept)[costs.quantity]
        if costs.least <= cost <= costs.most and problem.fits(kept):
            return problem.policy(kept)
        return costs.limited(problem, costs.reflected(cost)).project(policy, fill=True)

    def values(self, trial: Trial) -> Values:
        """Return the objective and the cost."""
        return trial.objective, float(trial.cost[self.costs.quantity])


class FrontSearch:
    """Looks for a Pareto front of score against one cost, from a lower end up to the budget.

    The budget stays hard: what is drawn beyond either end is reflected there. The first generation is spread evenly
    over the range, random policies or, `warm`, the exact allocations by reconstruction errors; later ones are bred by
    NSGA-II, from the least dominated and the least crowded. The front is made of all trials, not of one generation.

    Deterministic from the seed; the same for every batch size.
    """

    name = NSGA2

    def __init__(
        self, problem: PruningProblem, seed: int, evaluations: int, costs: CostRange, *, warm: bool = False
    ) -> None:
        """Spread the first generation over `costs`; no evaluation.

        Raises:
            SearchError: A seed below 0, or `warm` without reconstruction errors.

        """
        if seed < 0:
            raise SearchError(f"expected a seed of at least 0, found {seed}")
        self._costs = costs
        n = SamplerSearch.generation(NSGA2, problem, evaluations)
        start = _spread(problem, costs, n, np.random.default_rng(seed), warm=warm)
        aim = _Tradeoff(problem, costs, tuple(start))
        self._search = SamplerSearch(problem, seed, evaluations, NSGA2, aim=aim)
        self._told: list[Trial] = []

    def front(self) -> tuple[Trial, ...]:
        """Return the trials that no other one beats in score and cost, the dearest first."""
        return pareto_front(self._told, self._costs.quantity)

    def ask(self, n: int) -> list[Proposal]:
        """Return the next policies of the generation; none when no new policy is found."""
        return self._search.ask(n)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials."""
        self._search.tell(trials)
        self._told += trials


def pareto_front(trials: Sequence[Trial], quantity: str) -> tuple[Trial, ...]:
    """Return the competing trials with a higher objective than all that cost as much or less, the dearest first.

    Of equal objectives the cheaper one is taken, of equal costs as well the lower loss, then the earlier.
    """

    def rank(trial: Trial) -> tuple[float, float, float, int]:
        return trial.cost[quantity], -trial.objective, trial.scores.regret, trial.number

    front: list[Trial] = []
    for trial in sorted((trial for trial in trials if trial.competes), key=rank):
        if not front or trial.objective > front[-1].objective:
            front.append(trial)
    return tuple(reversed(front))


def _spread(
    problem: PruningProblem, costs: CostRange, n: int, generator: np.random.Generator, *, warm: bool
) -> list[PruningPolicy]:
    """Return `n` policies that each fill their limit, spread evenly over the range from the upper end down."""
    tighter = [costs.limited(problem, costs.at(share)) for share in np.linspace(1, 0, n).tolist()]
    if warm:
        return [exact_policy(each) for each in tighter]
    return [each.project(random_policy(problem, generator), fill=True) for each in tighter]
