"""Sensitivity: prune each group alone, then allow every group the same loss (Li et al. 2017, 1608.08710)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import SearchError
from autoprune.problem import Counts, PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.searcher import InOrder, Proposal, Trial

#: The classic scan: ratios 0.1, 0.2 .. 0.9, besides the unpruned network.
STEPS, LARGEST_RATIO = 9, 0.9

Drops = NDArray[np.float64]


class Sensitivity:
    """Probes every group alone at ratios 0.1 to 0.9, then finds one allowed drop by bisection.

    1. **Scan**, probes outside the budget (one group pruned, all others whole); the unpruned network is probed once for
       all groups. Ratios that round to the same width are probed once. A problem that allows more than 0.9 is scanned
       up to what it allows. With too few evaluations the ratios are thinned out evenly, down to one per group.
    2. **Curves**: drops are interpolated linearly in between and made never decreasing in the ratio, so that a lucky
       narrow width does not hide a bad wider one.
    3. **Threshold**: every group gets its smallest width whose drop is allowed; the smallest allowed drop whose policy
       holds the budget is taken. What that leaves of the budget (on few images many drops are equal) is filled up.

    Deterministic without a seed; the same for every batch size.
    """

    name = "sensitivity"

    def __init__(self, problem: PruningProblem, evaluations: int) -> None:
        """Plan the probes for at most `evaluations` trials.

        Raises:
            SearchError: Not even one probe per group, the unpruned network and the final policy fit in.

        """
        self._problem = problem
        self._scan = plan_scan(problem, evaluations)
        self._queue = [Proposal(problem.policy(probe.kept(problem)), probe=True) for probe in self._scan]
        self._objectives: list[float] = []
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return the next probes; after all of them the final policy, then none."""
        self._order.may_ask(n)
        batch, self._queue = self._queue[:n], self._queue[n:]
        return self._order.asked(batch)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the probes; with the last one the final policy is ready."""
        self._order.told(trials)
        if len(self._objectives) < len(self._scan):
            self._objectives += [trial.objective for trial in trials]
            if len(self._objectives) == len(self._scan):
                self._queue = [Proposal(self._allocate())]

    def _allocate(self) -> PruningPolicy:
        """Return the policy of the smallest allowed drop that holds the budget, filled up."""
        whole = self._objectives[0]
        scanned: list[dict[int, float]] = [{} for _ in self._problem.groups]
        for probe, objective in zip(self._scan[1:], self._objectives[1:], strict=True):
            scanned[probe.group][probe.width] = whole - objective
        curves = [drop_curve(width, drops) for width, drops in zip(self._problem.widths, scanned, strict=True)]
        kept = smallest_allowed_drop(self._problem, curves)
        return self._problem.project(self._problem.policy(kept), fill=True)


@dataclass(frozen=True, slots=True)
class Probe:
    """One network of the scan: `group` narrowed to `width` units, all others whole."""

    group: int
    width: int

    def kept(self, problem: PruningProblem) -> Counts:
        """Return the kept counts of all groups, ``(n_groups,)``."""
        counts = problem.costs.full()
        counts[self.group] = self.width
        return counts


def plan_scan(problem: PruningProblem, evaluations: int) -> tuple[Probe, ...]:
    """Return the finest scan that leaves one of `evaluations` for the final policy; the unpruned network comes first.

    Raises:
        SearchError: Even one ratio per group is too much; says how many evaluations are needed.

    """
    for steps in range(STEPS, 0, -1):
        scan = _scan(problem, steps)
        if len(scan) < evaluations:
            return scan
    raise SearchError(
        f"policy 'sensitivity' needs at least {len(_scan(problem, 1)) + 1} evaluations for {len(problem.groups)} "
        f"groups (and {len(_scan(problem, STEPS)) + 1} for the full scan), found {evaluations}; allow more"
    )


def _scan(problem: PruningProblem, steps: int) -> tuple[Probe, ...]:
    """Return the unpruned network and, per group, the different widths at `steps` evenly spaced ratios."""
    probes = [Probe(0, len(problem.groups[0]))]
    for index, (group, width) in enumerate(zip(problem.groups, problem.widths, strict=True)):
        largest = max(LARGEST_RATIO, 1 - int(width[0]) / len(group))
        wanted = len(group) * (1 - largest * np.arange(1, steps + 1) / steps)
        nearest = width[np.abs(width - wanted[:, None]).argmin(axis=1)]
        probes.extend(Probe(index, count) for count in dict.fromkeys(nearest.tolist()) if count < len(group))
    return tuple(probes)


def drop_curve(width: Counts, scanned: Mapping[int, float]) -> Drops:
    """Return the drop at each allowed width of a group, ``(n_widths,)``, never decreasing as the group narrows.

    Args:
        width: Allowed kept counts, ascending, the last one the whole group, whose drop is 0.
        scanned: Drop of the objective by kept count, the smallest allowed one included.

    """
    drops = {**scanned, int(width[-1]): 0.0}
    counts = sorted(drops)
    rising = np.maximum.accumulate([drops[count] for count in reversed(counts)])[::-1]
    curve: Drops = np.interp(width, counts, rising)
    return curve


def smallest_allowed_drop(problem: PruningProblem, curves: Sequence[Drops]) -> Counts:
    """Return the counts, ``(n_groups,)``, of the smallest common drop at which the network holds the budget.

    Bisects over the drops that occur, ``curves[g][i]`` at ``problem.widths[g][i]``, so the answer is exact.
    """
    allowed = np.unique(np.concatenate(curves))

    def kept(most: float) -> Counts:
        smallest = [width[np.argmax(curve <= most)] for width, curve in zip(problem.widths, curves, strict=True)]
        return np.array(smallest, dtype=np.int64)

    low, high = 0, len(allowed) - 1  # at the last one every group has its smallest width, which holds the budget
    while low < high:
        middle = (low + high) // 2
        if problem.fits(kept(allowed[middle])):
            high = middle
        else:
            low = middle + 1
    return kept(allowed[low])
