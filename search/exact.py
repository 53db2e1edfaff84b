"""Exact allocation of the budget by reconstruction errors, then a search over how much each group's error matters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.allocation import Allocation
from autoprune.search.searcher import InOrder, Proposal, Trial

#: Policies bred from the same parents; they are handed out in any number of batches.
GENERATION = 8

#: Parents: the best policies so far.
PARENTS = 4

#: Standard deviation of a change of the logarithm of a coefficient, in the first and in the last generation.
FIRST_STEP, LAST_STEP = 0.8, 0.2

#: Draws of coefficients without a new policy after which widths are moved, and such moves after which the search ends.
REDRAWS, MOVES = 8, 30

Coefficients = NDArray[np.float64]  # logarithms, (n_groups,)


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """Coefficients and the policy they led to."""

    coefficients: Coefficients
    policy: PruningPolicy


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A draft and what it scored."""

    draft: _Draft
    rank: tuple[float, float]  # lower is better


class Exact:
    """Minimises the sum of all groups' reconstruction errors under the hard budget, exactly, without an evaluation.

    That is the first proposal. Errors of different groups do not weigh alike in the end, so each is multiplied by a
    coefficient, and an evolution strategy searches for coefficients whose exact allocation scores best (SPDY: Frantar
    & Alistarh 2022, 2201.13096, section 3.3). In the first generation the logarithms of the coefficients are drawn
    along two directions, the depth of a group and its share of the cost, with noise; later, two of the best are
    averaged and half of the coefficients changed, in steps that shrink from 0.8 to 0.2. Where that leads to no new
    allocation (small problems have few), the widths of one of the best are moved by hand.

    Deterministic from the seed; the same for every batch size.
    """

    name = "exact"

    def __init__(self, problem: PruningProblem, seed: int, evaluations: int) -> None:
        """Solve the first allocation; no evaluation.

        Raises:
            SearchError: The problem has no reconstruction errors, or a seed below 0.

        """
        if problem.errors is None:
            raise SearchError(
                "policy 'exact' needs the reconstruction errors of every width, which this problem does not have; "
                "set it up with Gram statistics"
            )
        if seed < 0:
            raise SearchError(f"expected a seed of at least 0, found {seed}")
        self._problem, self._errors = problem, problem.errors
        self._allocation = Allocation(problem)
        self._evaluations = evaluations
        self._generator = np.random.default_rng(seed)
        self._directions = _directions(problem)
        self._seen: set[PruningPolicy] = set()
        self._population: list[_Candidate] = []
        self._told: list[_Candidate] = []
        self._queue = [self._allocate(np.zeros(len(problem.groups)))]
        self._seen.add(self._queue[0].policy)
        self._open: list[_Draft] = []
        self._count = 0
        self._order = InOrder()

    def ask(self, n: int) -> list[Proposal]:
        """Return the next policies of the generation; none when no new policy is found."""
        self._order.may_ask(n)
        if not self._queue:
            self._breed()
        self._open, self._queue = self._queue[:n], self._queue[n:]
        return self._order.asked([Proposal(draft.policy) for draft in self._open])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; the parents change when the whole generation was told."""
        self._order.told(trials)
        for draft, trial in zip(self._open, trials, strict=True):
            if trial.competes:  # a score on fewer images does not compare
                self._told.append(_Candidate(draft, (-trial.objective, trial.scores.regret)))
        self._count += len(trials)
        if not self._queue:
            ranked = sorted([*self._population, *self._told], key=lambda candidate: candidate.rank)
            self._population, self._told = ranked[:PARENTS], []

    def _breed(self) -> None:
        """Queue a generation of new policies, as many as are found."""
        for _ in range(GENERATION):
            draft = self._new()
            if draft is None:
                return
            self._seen.add(draft.policy)
            self._queue.append(draft)

    def _new(self) -> _Draft | None:
        """Return a draft whose policy was not proposed before; None where none is found."""
        for _ in range(REDRAWS):
            draft = self._allocate(self._draw())
            if draft.policy not in self._seen:
                return draft
        for reach in range(1, MOVES + 1):
            draft = self._moved(reach)
            if draft.policy not in self._seen:
                return draft
        return None

    def _moved(self, reach: int) -> _Draft:
        """Move each width of one of the best by at most `reach` allowed ones, and fill the budget."""
        parent = self._population[self._generator.integers(0, len(self._population))].draft
        steps = self._generator.integers(-reach, reach + 1, len(self._errors))
        kept = [
            width[np.clip(np.searchsorted(width, count) + step, 0, len(width) - 1)]
            for width, count, step in zip(self._problem.widths, self._problem.kept(parent.policy), steps, strict=True)
        ]
        policy = self._problem.policy(np.array(kept, dtype=np.int64))
        return _Draft(parent.coefficients, self._problem.project(policy, fill=True))

    def _draw(self) -> Coefficients:
        """Draw coefficients around two parents; along the directions while there is only one."""
        n = len(self._errors)
        if len(self._population) < 2:
            along = self._generator.normal(0.0, FIRST_STEP, len(self._directions)) @ self._directions
            return np.asarray(along + self._generator.normal(0.0, FIRST_STEP / 2, n))
        progress = min(1.0, self._count / max(1, self._evaluations))
        step = FIRST_STEP * (LAST_STEP / FIRST_STEP) ** progress
        first, second = self._generator.integers(0, len(self._population), 2)
        middle = (self._population[first].draft.coefficients + self._population[second].draft.coefficients) / 2
        changed = self._generator.random(n) < 0.5
        return np.asarray(middle + changed * self._generator.normal(0.0, step, n))

    def _allocate(self, coefficients: Coefficients) -> _Draft:
        """Return the policy with the least weighted error that holds the budget."""
        weighted = [error * weight for error, weight in zip(self._errors, np.exp(coefficients), strict=True)]
        return _Draft(coefficients, self._problem.policy(self._allocation.kept(weighted)))


def _directions(problem: PruningProblem) -> NDArray[np.float64]:
    """Return depth and logarithmic cost of the groups, each with mean 0 and deviation 1, ``(2, n_groups)``."""
    n, full = len(problem.groups), problem.costs.full()
    quantity = next(iter(problem.limits))
    whole = problem.cost(full)[quantity]
    saved = np.empty(n)
    for index, smallest in enumerate(problem.smallest()):
        narrow = full.copy()
        narrow[index] = smallest
        saved[index] = max(1, whole - problem.cost(narrow)[quantity])
    rows = np.array([np.arange(n, dtype=np.float64), np.log(saved)])
    centred = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(centred.std(axis=1, keepdims=True), 1e-9))
