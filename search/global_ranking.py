"""One ranking of the channels of all groups: what the criterion thinks least of goes first, wherever it is."""

import numpy as np

from autoprune.problem import Counts, PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.one_proposal import OneProposal


class GlobalRanking(OneProposal):
    """Proposes the network that keeps the best channels of all groups, as many as the budget allows: one evaluation.

    As in Network Slimming (Liu et al. 2017, 1708.06519): one threshold on the scores of all groups. A group keeps the
    largest allowed width of which every channel reaches the threshold, at least its smallest. The lowest threshold
    that holds the budget is found by bisection; what rounding leaves of the budget is filled up. What a channel costs
    plays no part. Deterministic without a seed; the same for every batch size.
    """

    name = "global"

    def __init__(self, problem: PruningProblem) -> None:
        """Find the threshold; no evaluation."""
        super().__init__(global_policy(problem))


def global_policy(problem: PruningProblem) -> PruningPolicy:
    """Return the largest network with one threshold on the scores of all groups that holds the budget, filled up."""
    thresholds = np.append(np.unique(np.concatenate(problem.scores)), np.inf)
    low, high = 0, len(thresholds) - 1  # at the last one every group has its smallest width, which holds the budget
    while low < high:
        middle = (low + high) // 2
        if problem.fits(_kept(problem, thresholds[middle])):
            high = middle
        else:
            low = middle + 1
    return problem.project(problem.policy(_kept(problem, thresholds[low])), fill=True)


def _kept(problem: PruningProblem, threshold: float) -> Counts:
    """Return the allowed counts of channels that reach the threshold, ``(n_groups,)``."""
    counts = []
    for width, scores in zip(problem.widths, problem.scores, strict=True):
        reaching = int(np.count_nonzero(scores >= threshold))
        counts.append(width[max(0, int(np.searchsorted(width, reaching, side="right")) - 1)])
    return np.array(counts, dtype=np.int64)
