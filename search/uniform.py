"""The baseline everybody must beat: one ratio for all groups."""

import math

import numpy as np

from autoprune.pruning.policy import PruningPolicy
from autoprune.pruning.width_problem import Counts, WidthProblem
from autoprune.search.one_proposal import OneProposal


class Uniform(OneProposal):
    """Proposes the smallest single ratio that holds the budget, and nothing else: one evaluation.

    Rounding to allowed widths moves many groups at once and can leave much of the budget unused, which would make the
    baseline too easy to beat: single groups are then widened by one allowed width, the one that rounding cost most
    first, while the budget holds. Deterministic without a seed; the same for every batch size.
    """

    name = "uniform"

    def __init__(self, problem: WidthProblem) -> None:
        """Find the ratio by bisection; no evaluation."""
        super().__init__(uniform_policy(problem))


def uniform_policy(problem: WidthProblem) -> PruningPolicy:
    """Return the largest network with one ratio for all groups, up to rounding, that holds the budget."""
    n = len(problem.widths)
    low, high = 0.0, math.nextafter(1.0, 0.0)  # low breaks the budget, high holds it
    while (middle := (low + high) / 2) not in (low, high):
        if problem.fits(problem.kept(PruningPolicy.uniform(middle, n))):
            high = middle
        else:
            low = middle
    return problem.policy(_give_back(problem, problem.kept(PruningPolicy.uniform(high, n)), high))


def _give_back(problem: WidthProblem, kept: Counts, ratio: float) -> Counts:
    """Widen groups by one allowed width each while the budget holds, those pruned furthest beyond `ratio` first."""
    lost = (1 - ratio) - kept / problem.costs.full()
    for index in np.argsort(-lost, kind="stable").tolist():
        wider = kept.copy()
        width = problem.widths[index]
        wider[index] = width[min(int(np.searchsorted(width, kept[index])) + 1, len(width) - 1)]
        if problem.fits(wider):
            kept = wider
    return kept
