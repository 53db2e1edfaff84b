"""Sensitivity: prune each group alone, then allow every group the same loss (Li et al. 2017, 1608.08710)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.searcher import InOrder, Proposal, Trial

#: Ratios at which each group is probed when there are evaluations enough.
RATIOS = tuple(round(0.1 * step, 1) for step in range(1, 10))


class Sensitivity:
    """Probes every group alone at ratios 0.1 to 0.9, then finds one allowed drop by bisection.

    The probes are outside the budget (one group pruned, all others whole). With fewer evaluations than
    ``2 + 9 * n_groups`` the ratios are thinned out evenly, down to one per group. Drops are made never decreasing in
    the ratio and interpolated linearly in between; the smallest drop whose policy holds the budget is taken, and what
    is left of the budget is filled up.
    """

    name = "sensitivity"

    def __init__(self, problem: PruningProblem, evaluations: int) -> None:
        """Plan the probes for at most `evaluations` trials.

        Raises:
            SearchError: Not even one probe per group, the unpruned network and the final policy fit in.

        """
        n = len(problem.groups)
        per_group = min(len(RATIOS), (evaluations - 2) // n)
        if per_group < 1:
            raise SearchError(
                f"policy 'sensitivity' needs at least {n + 2} evaluations for {n} groups (and {2 + 9 * n} for the full "
                f"scan), found {evaluations}"
            )
        chosen = np.linspace(0, len(RATIOS) - 1, per_group + 1).round().astype(int)[1:]
        self._ratios = tuple(RATIOS[index] for index in chosen)
        self._problem = problem
        whole = PruningPolicy.uniform(0.0, n)
        self._queue = [Proposal(whole, probe=True)] + [
            Proposal(PruningPolicy.of(ratio if g == group else 0.0 for g in range(n)), probe=True)
            for group in range(n)
            for ratio in self._ratios
        ]
        self._objectives: list[float] = []
        self._probes = len(self._queue)
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return the next probes; after all of them the final policy, then none."""
        batch, self._queue = self._queue[:n], self._queue[n:]
        return self._order.asked(batch)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the probes; with the last one the final policy is ready."""
        self._order.told(trials)
        self._objectives += [trial.objective for trial in trials]
        if len(self._objectives) == self._probes:
            self._queue = [Proposal(self._allocate())]

    def _allocate(self) -> PruningPolicy:
        """Bisect for the smallest allowed drop whose policy holds the budget."""
        baseline = self._objectives[0]
        scans = np.array(self._objectives[1 : self._probes]).reshape(len(self._problem.groups), -1)
        drops = np.maximum.accumulate(np.maximum(baseline - scans, 0.0), axis=1)
        curves = [self._curve(group, drop) for group, drop in enumerate(drops)]
        low, high = 0.0, float(drops.max()) + 1.0  # above the largest drop every group is at its smallest
        if not self._problem.fits(self._widths(curves, low)):
            for _ in range(50):
                middle = (low + high) / 2
                if self._problem.fits(self._widths(curves, middle)):
                    high = middle
                else:
                    low = middle
            low = high
        return self._problem.project(self._problem.policy(self._widths(curves, low)), fill=True)

    def _curve(self, group: int, drop: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the drop at each allowed width of a group, ``(n_widths,)``; beyond the last ratio it only grows."""
        ratios = 1 - self._problem.widths[group] / len(self._problem.groups[group])
        curve: NDArray[np.float64] = np.interp(ratios, [0.0, *self._ratios], [0.0, *drop])
        return curve + np.maximum(ratios - self._ratios[-1], 0.0)

    def _widths(self, curves: list[NDArray[np.float64]], allowed: float) -> NDArray[np.int64]:
        """Return the smallest width of every group whose drop is allowed, ``(n_groups,)``."""
        return np.array(
            [
                width[np.flatnonzero(curve <= allowed)[0]]
                for width, curve in zip(self._problem.widths, curves, strict=True)
            ],
            dtype=np.int64,
        )
