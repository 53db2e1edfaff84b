"""How the cost of a network goes down to its limits, step by step: what NetAdapt's targets are made of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.problem import Counts, PruningProblem

#: A step takes at most this share of what the median group could save alone, so that most groups can propose it.
STEP_OF_REACH = 0.5

#: Fewer steps than this are too coarse to choose by, whatever the groups could save.
FEWEST_STEPS = 8

#: With too few evaluations for all groups in every step, at least so many groups still compete in each.
FEWEST_CHOICES = 3


@dataclass(frozen=True, slots=True)
class Descent:
    """The way from the unpruned network to its limits, as *progress* from 0 to 1.

    Progress is how much of the needed reduction is done, of the limited quantity that is furthest behind:
    ``min over q of (R_q(whole) - R_q) / (R_q(whole) - limit_q)``. With one limit it is the resource itself, scaled;
    with several, all shrink in step, and one that runs ahead waits for the others.

    Attributes:
        whole: Cost of the unpruned network, ``{quantity: cost}``.
        limits: Absolute limits, ``{quantity: largest allowed cost}``.

    """

    whole: Mapping[str, int]
    limits: Mapping[str, int]

    @classmethod
    def of(cls, problem: PruningProblem) -> "Descent":
        """Return the descent of a problem."""
        return cls(problem.cost(problem.costs.full()), problem.limits)

    @property
    def remaining(self) -> float:
        """Share of the unpruned network's cost that may stay, of the tightest limit."""
        return min(most / self.whole[quantity] for quantity, most in self.limits.items())

    def progress(self, cost: Mapping[str, int]) -> float:
        """Return the progress of a network of this cost; 1 and more where every limit holds."""
        return min((self.whole[q] - cost[q]) / needed for q, needed in self._needed().items())

    def target(self, progress: float) -> dict[str, int]:
        """Return the largest costs of a network of this progress, whole, never below the limits."""
        needed = self._needed()
        return {
            q: max(most, math.floor(self.whole[q] - progress * needed[q])) if q in needed else most
            for q, most in self.limits.items()
        }

    def _needed(self) -> dict[str, int]:
        """Return the reduction of every quantity that does not hold its limit from the start."""
        return {q: self.whole[q] - most for q, most in self.limits.items() if self.whole[q] > most}


@dataclass(frozen=True, slots=True)
class Schedule:
    """NetAdapt's geometric series, landing on the budget after `steps` steps.

    ``dR_t = dR_0 * decay^(t - 1)`` (Yang et al. 2018, 1804.03230, section 3.2) with

    * ``decay = (limit / R(whole))^(1 / steps)`` and ``dR_0 = R(whole) * (1 - decay)``, so that
    * ``R(whole) - (dR_1 + ... + dR_steps) = R(whole) * decay^steps = limit``:

    every step takes the same share of what is left. (The official 2.5% and 0.96 end at 37.5% whatever the budget.)

    Attributes:
        steps: Number of iterations, T.
        decay: Ratio of one step to the one before.

    """

    steps: int
    decay: float

    @classmethod
    def to(cls, remaining: float, steps: int) -> "Schedule":
        """Return the schedule that leaves the share `remaining`, in (0, 1), after `steps` steps."""
        return cls(steps, remaining ** (1 / steps))

    def progress(self, step: int) -> float:
        """Return dR of a step, counted from 1, as progress; those behind the last are like the last. They sum to 1."""
        return (1 - self.decay) / (1 - self.decay**self.steps) * self.decay ** (min(step, self.steps) - 1)


def schedule_for(problem: PruningProblem, descent: Descent, proposals: int) -> Schedule:
    """Return the schedule for so many `proposals` in all.

    ``T = proposals // groups`` lets every group propose in every iteration. Where that is too coarse, groups cannot
    meet the targets by shrinking alone, or few ever shrink: then T rises, up to where dR_0 is half of what the median
    group can save alone and T is at least 8, and each iteration takes the most promising groups only, at least three.
    """
    n = len(problem.groups)
    remaining = descent.remaining
    reach = float(np.median(_reaches(problem, descent)))
    share = min(1.0, (1 - remaining) * reach * STEP_OF_REACH)  # of the whole network's cost
    wanted = FEWEST_STEPS if share in (0.0, 1.0) else math.ceil(math.log(remaining) / math.log1p(-share))
    steps = max(proposals // n, min(max(FEWEST_STEPS, wanted), proposals // min(n, FEWEST_CHOICES)), 1)
    return Schedule.to(remaining, steps)


def narrower(problem: PruningProblem, kept: Counts, index: int, target: Mapping[str, int]) -> Counts | None:
    """Return `kept`, ``(n_groups,)``, with group `index` at its largest smaller width that meets `target`, or None.

    Costs need not be monotone: every allowed width is tried, the largest first.
    """
    width = problem.widths[index]
    counts = kept.copy()
    for count in width[: np.searchsorted(width, kept[index])][::-1].tolist():
        counts[index] = count
        cost = problem.cost(counts)
        if all(cost[quantity] <= most for quantity, most in target.items()):
            return counts
    return None


def _reaches(problem: PruningProblem, descent: Descent) -> list[float]:
    """Return the progress that each group makes alone at its smallest width; of those that make any."""
    full = problem.costs.full()
    reaches = []
    for index, smallest in enumerate(problem.smallest()):
        alone = full.copy()
        alone[index] = smallest
        reaches.append(descent.progress(problem.cost(alone)))
    return [reach for reach in reaches if reach > 0] or [0.0]
