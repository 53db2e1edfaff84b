"""Samplers of Optuna behind ask and tell: TPE, Gaussian processes, CMA-ES, NSGA-II and quasi-random sequences."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search._threads import one_thread
from autoprune.search.random_search import MAX_REDRAWS
from autoprune.search.searcher import InOrder, Proposal, Trial
from autoprune.search.study import Direction, Draw, RatioStudy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

#: Draws in a row that lead to policies evaluated before, after which random ones are drawn.
REDRAWS = 20

#: NSGA-II: generations that a search should have room for, and the bounds of a generation.
GENERATIONS, FEWEST, MOST = 8, 8, 50

Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SamplerKind:
    """How one of Optuna's samplers is used.

    Attributes:
        make: Makes it, of a seed and the size of a generation.
        generation: How many draws are made before the sampler learns what they score, of (groups, evaluations); they
            are evaluated in any number of batches.
        told: What the sampler is told the score of: the policy that was ``"evaluated"``, after projection, or the
            ratios ``"drawn"``, where it has to recognise its own.

    """

    make: "Callable[[int, int], BaseSampler]"
    generation: Callable[[int, int], int]
    told: Literal["evaluated", "drawn"]


class Aim(Protocol):
    """What a search is after.

    Attributes:
        directions: Which way each value is better.

    """

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Return which way each value is better."""
        ...

    def first(self) -> Sequence[PruningPolicy]:
        """Return what is drawn first, as a generation of its own."""
        ...

    def project(self, policy: PruningPolicy) -> PruningPolicy:
        """Return the policy that is evaluated for a draw: allowed and within budget."""
        ...

    def values(self, trial: Trial) -> Values:
        """Return what the sampler is told of a trial."""
        ...


@dataclass(frozen=True, slots=True)
class BestScore:
    """The highest score within the budget, of policies that use it up."""

    problem: PruningProblem
    directions: tuple[Direction, ...] = ("maximize",)

    def first(self) -> Sequence[PruningPolicy]:
        """Return the middle of all policies: half of what may be removed, everywhere."""
        largest = 1 - self.problem.smallest() / self.problem.costs.full()
        return [PruningPolicy.of(largest / 2)]

    def project(self, policy: PruningPolicy) -> PruningPolicy:
        """Return the nearest policy that fills the budget."""
        return self.problem.project(policy, fill=True)

    def values(self, trial: Trial) -> Values:
        """Return the objective."""
        return (trial.objective,)


class SamplerSearch:
    """Proposes what a sampler of Optuna draws, projected onto the budget.

    The budget is projected, not penalised: what is drawn is moved to the nearest policy that fills it, and the sampler
    learns that score. Samplers that model the scores (TPE, GP) learn it for the policy evaluated; those with a
    population of their own (CMA-ES, NSGA-II) for what they drew, as if the projection were a part of the objective.

    Draws that lead to a policy evaluated before are answered at once with what it scored, and cost nothing. After
    `REDRAWS` of them in a row (the sampler has converged, or there are few policies) a generation of random ones goes
    on; where these are known too, the search ends. Trials that were screened out are no score, and not told.

    Deterministic from the seed. The same for every batch size: the sampler learns after whole generations only.
    """

    def __init__(
        self, problem: PruningProblem, seed: int, evaluations: int, sampler: str, *, aim: Aim | None = None
    ) -> None:
        """Use the sampler of that name in :data:`SAMPLERS`, with a generator of its own, seeded with `seed`.

        Raises:
            SearchError: A seed below 0.

        """
        if seed < 0:
            raise SearchError(f"expected a seed of at least 0, found {seed}")
        kind = SAMPLERS[sampler]
        self.name = sampler
        self._problem = problem
        self._told_evaluated = kind.told == "evaluated"
        self._aim = aim or BestScore(problem)
        self._generation = self.generation(sampler, problem, evaluations)
        self._generator = np.random.default_rng(seed)
        state = int(np.random.SeedSequence(seed).generate_state(1)[0])  # samplers take 32 bits
        self._study = RatioStudy(problem, lambda: kind.make(state, self._generation), self._aim.directions)
        self._first = list(self._aim.first())
        self._known: dict[PruningPolicy, Values | None] = {}
        self._drafts: list[tuple[Draw, PruningPolicy]] = []
        self._queue: list[PruningPolicy] = []
        self._ended = False
        self._order = InOrder()

    @staticmethod
    def generation(sampler: str, problem: PruningProblem, evaluations: int) -> int:
        """Return how many draws a sampler makes before it learns what they score."""
        return SAMPLERS[sampler].generation(len(problem.groups), evaluations)

    def ask(self, n: int) -> list[Proposal]:
        """Return the next policies of the generation; none when no new policy is found."""
        self._order.may_ask(n)
        if not self._queue and not self._ended:
            self._breed()
            self._ended = not self._queue
        batch, self._queue = self._queue[:n], self._queue[n:]
        return self._order.asked([Proposal(policy) for policy in batch])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; the sampler learns when the whole generation was told."""
        self._order.told(trials)
        for trial in trials:
            competes = trial.competes  # a score on fewer images does not compare
            self._known[trial.proposal.policy] = self._aim.values(trial) if competes else None
        if not self._queue:
            self._learn()

    def _breed(self) -> None:
        """Queue the new policies of a generation: of the first one, of the sampler's, or of a random one."""
        first, self._first = self._first, []
        self._draw(len(first), first)
        stale = 0
        while not self._queue and stale < REDRAWS:
            self._draw(self._generation)
            stale += self._generation
        if not self._queue:
            strangers = self._strangers()
            self._draw(len(strangers), strangers)

    def _draw(self, n: int, given: Sequence[PruningPolicy] = ()) -> None:
        """Draw `n` times, the `given` policies first; answer what is known, queue what is new."""
        for policy in given:
            self._study.enqueue(policy)
        for _ in range(n):
            with one_thread():
                draw = self._study.draw()
            policy = self._aim.project(draw.policy)
            if policy in self._known:
                self._study.tell(draw, self._known[policy])
                continue
            self._drafts.append((draw, policy))
            if policy not in self._queue:
                self._queue.append(policy)

    def _strangers(self) -> list[PruningPolicy]:
        """Return a generation of new random policies, as many as are found."""
        largest = 1 - self._problem.smallest() / self._problem.costs.full()
        found: list[PruningPolicy] = []
        for _ in range(MAX_REDRAWS):
            policy = self._aim.project(PruningPolicy.of(largest * self._generator.random(len(largest))))
            if policy not in self._known and policy not in found:
                found.append(policy)
        return found[: self._generation]

    def _learn(self) -> None:
        """Tell the sampler what the draws of the generation scored, in their order."""
        added: set[PruningPolicy] = set()
        for draw, policy in self._drafts:
            values = self._known[policy]
            if self._told_evaluated and values is not None and policy not in added:
                added.add(policy)
                self._study.tell(draw, None)
                self._study.add(policy, values)
            else:
                self._study.tell(draw, values)
        self._drafts = []


def _tpe(seed: int, generation: int) -> "BaseSampler":
    """Tree-structured Parzen estimator, multivariate (Bergstra et al. 2011)."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _gp(seed: int, generation: int) -> "BaseSampler":
    """Gaussian process with expected improvement: few evaluations, and a second or so of thinking for each."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed)


def _cmaes(seed: int, generation: int) -> "BaseSampler":
    """CMA-ES (Hansen 2016)."""
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed, popsize=generation, warn_independent_sampling=False)


def _nsga2(seed: int, generation: int) -> "BaseSampler":
    """NSGA-II (Deb et al. 2002)."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=generation)


def _qmc(seed: int, generation: int) -> "BaseSampler":
    """Scrambled Sobol sequence: fills the space more evenly than chance; learns nothing."""
    from optuna.samplers import QMCSampler

    return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def _population(n_groups: int, evaluations: int) -> int:
    """Return the population of NSGA-II."""
    return min(MOST, max(FEWEST, evaluations // GENERATIONS))


#: By the name of the policy. CMA-ES has the population of its authors.
SAMPLERS: Mapping[str, SamplerKind] = MappingProxyType(
    {
        "tpe": SamplerKind(_tpe, lambda n_groups, evaluations: 8, "evaluated"),
        "gp": SamplerKind(_gp, lambda n_groups, evaluations: 4, "evaluated"),
        "cmaes": SamplerKind(_cmaes, lambda n_groups, evaluations: 4 + math.floor(3 * math.log(n_groups)), "drawn"),
        "nsga2": SamplerKind(_nsga2, _population, "drawn"),
        "qmc": SamplerKind(_qmc, lambda n_groups, evaluations: 16, "drawn"),
    }
)
