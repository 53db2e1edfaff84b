"""The front of a search in a job: who looks for one, and which of its plans are exported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.problem import PruningProblem
from autoprune.search.driver import SearchResult
from autoprune.search.front import CostRange, pareto_front
from autoprune.search.searcher import Trial
from autoprune.service.results.job_result import FrontPoint, PolicyOutcome
from autoprune.service.specs.front_options import NSGA2
from autoprune.service.specs.job_spec import JobSpec


@dataclass(frozen=True, slots=True)
class ExportedFront:
    """What was exported of a policy's front; nothing of policies that look for one plan.

    Attributes:
        quantity: The cost that is traded for score; None without a front.
        points: The plans, the dearest first.
        too_slow: Which plans were left out for their latency, in words.

    """

    quantity: str | None = None
    points: tuple[FrontPoint, ...] = ()
    too_slow: tuple[str, ...] = ()

    def beside(self, outcome: PolicyOutcome) -> PolicyOutcome:
        """Return the outcome of the policy with its front."""
        return outcome.model_copy(update={"front_quantity": self.quantity, "front_points": list(self.points)})


def cost_range(spec: JobSpec, problem: PruningProblem, policy: str) -> CostRange | None:
    """Return the costs between which a policy looks for a front; None where it looks for one plan.

    Raises:
        SearchError: The lower end is none of this problem.

    """
    return CostRange.parse(spec.front.least, problem) if spec.front is not None and policy == NSGA2 else None


def with_whole_front(result: SearchResult, costs: CostRange | None) -> SearchResult:
    """Return a search with the front of all its trials, those that it was given first included."""
    return result if costs is None else replace(result, front=pareto_front(result.trials, costs.quantity))


def spread(front: Sequence[Trial], quantity: str, points: int) -> list[Trial]:
    """Return so many trials of a front, the dearest first: those nearest to evenly spaced costs from end to end."""
    left = {trial.number: trial for trial in front}
    ends = (front[0].cost[quantity], front[-1].cost[quantity]) if front else (0, 0)
    chosen = []
    for wanted in np.linspace(*ends, min(points, len(front))).tolist():
        nearest = min(left.values(), key=lambda trial: abs(trial.cost[quantity] - wanted))
        chosen.append(left.pop(nearest.number))
    return sorted(chosen, key=lambda trial: -trial.cost[quantity])
