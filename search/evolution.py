"""MetaPruning's evolutionary search, over any evaluator (Liu et al. 2019, 1903.10258, section 3.2)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import SearchError
from autoprune.problem import Counts, PruningProblem
from autoprune.pruning.policy import PruningPolicy
from autoprune.search.random_search import MAX_REDRAWS
from autoprune.search.searcher import InOrder, Proposal, Trial

#: One gene per group: which of its allowed widths is kept, an index, ``(n_groups,)``.
Genes = NDArray[np.int64]

#: However few evaluations there are, a generation has so many candidates, of so many parents.
FEWEST_CANDIDATES, FEWEST_PARENTS = 4, 2


@dataclass(frozen=True, slots=True)
class EvolutionSettings:
    """How candidates are bred; the defaults are the constants of the official code (liuzechun/MetaPruning).

    Attributes:
        generations: Generations, the random first one included, that the constants are meant for.
        population: Candidates of a generation.
        parents: The best candidates so far, of whatever generation, from which the next one is bred.
        mutations: Candidates of a generation that are mutated parents.
        crossovers: Candidates of a generation that are crossed parents. Whatever is left is drawn at random.
        mutation_rate: Probability of each gene of a mutated parent to change.
        redraws: Draws allowed for each mutation or crossover; what was tried before is drawn again.

    """

    generations: int = 20
    population: int = 50
    parents: int = 10
    mutations: int = 25
    crossovers: int = 25
    mutation_rate: float = 0.1
    redraws: int = 10

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            SearchError: A number out of range.

        """
        counts = (self.generations, self.population, self.parents, self.mutations, self.crossovers, self.redraws)
        if min(counts) < 0 or min(self.generations, self.population, self.parents) < 1:
            raise SearchError(f"an evolution needs a generation, a candidate and a parent at least, found {self}")
        if self.mutations + self.crossovers > self.population:
            raise SearchError(f"mutations and crossovers are part of the population, found {self}")
        if not 0 < self.mutation_rate <= 1:
            raise SearchError(f"expected a mutation rate above 0, at most 1, found {self.mutation_rate}")

    def scaled(self, evaluations: int) -> "EvolutionSettings":
        """Return the settings for a search of so many `evaluations`.

        Where these are fewer than ``generations * population``, both shrink by the same factor, the root of the share
        allowed; parents, mutations and crossovers keep their shares of the population. The defaults become 6
        generations of 16 for 100 evaluations, and stay what they are from 1,000 on: further evaluations are further
        generations.
        """
        factor = math.sqrt(min(1.0, evaluations / (self.generations * self.population)))
        if factor == 1:
            return self
        population = max(FEWEST_CANDIDATES, round(self.population * factor))
        share = population / self.population
        return replace(
            self,
            generations=max(1, evaluations // population),
            population=population,
            parents=max(FEWEST_PARENTS, round(self.parents * share)),
            mutations=math.floor(self.mutations * share),
            crossovers=math.floor(self.crossovers * share),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Parent:
    """Genes that were evaluated, and how good they are."""

    genes: Genes
    rank: tuple[float, float]  # lower is better


class Evolution:
    """Breeds generations of policies from the best so far.

    1. The first generation is drawn at random, every gene for itself, all widths of a group alike.
    2. Each later one: mutated parents (:func:`mutated`), crossed parents (:func:`crossed`), the rest at random. Parents
       are the best candidates of all generations so far; equal scores are told apart by the loss.
    3. Every candidate is projected onto the budget and fills it, before it is evaluated; the official code throws away
       what is over budget instead. Where that leads to a policy tried before, another one is drawn, a bounded number of
       times; where not even random ones are new, the search ends.

    Genes are those of the policy evaluated, after projection. Candidates that were screened out become no parents.
    Deterministic from the seed; the same for every batch size.
    """

    def __init__(
        self,
        problem: PruningProblem,
        seed: int,
        evaluations: int,
        settings: EvolutionSettings | None = None,
        *,
        name: str = "evolution",
    ) -> None:
        """Use a generator of its own, seeded with `seed`, and `settings` scaled to `evaluations`.

        Raises:
            SearchError: A seed below 0.

        """
        if seed < 0:
            raise SearchError(f"expected a seed of at least 0, found {seed}")
        self.name = name
        self.settings = (settings or EvolutionSettings()).scaled(evaluations)
        self._problem = problem
        self._n_widths = np.array([len(width) for width in problem.widths], dtype=np.int64)
        self._generator = np.random.default_rng(seed)
        self._seen: set[PruningPolicy] = set()
        self._parents: list[_Parent] = []
        self._told: list[_Parent] = []
        self._queue: list[PruningPolicy] = []
        self._ended = False
        self._order = InOrder()

    @property
    def parents(self) -> tuple[PruningPolicy, ...]:
        """The policies that the generation was bred from, the best first; none for the first one."""
        return tuple(self._policy(parent.genes) for parent in self._parents)

    def ask(self, n: int) -> list[Proposal]:
        """Return the next policies of the generation; none when no new policy is found."""
        self._order.may_ask(n)
        if not self._queue and not self._ended:
            self._queue = self._breed()
            self._ended = not self._queue
        batch, self._queue = self._queue[:n], self._queue[n:]
        return self._order.asked([Proposal(policy) for policy in batch])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take the trials; the parents change when the whole generation was told."""
        self._order.told(trials)
        for trial in trials:
            if trial.competes:  # a score on fewer images does not compare
                genes = self._genes(self._problem.kept(trial.policy))
                self._told.append(_Parent(genes, (-trial.objective, trial.scores.regret)))
        if not self._queue:
            ranked = sorted([*self._parents, *self._told], key=lambda parent: parent.rank)
            self._parents, self._told = ranked[: self.settings.parents], []

    def _breed(self) -> list[PruningPolicy]:
        """Return the next generation, as many new policies as are found."""
        settings = self.settings
        bred: list[PruningPolicy] = []
        if self._parents:
            bred += self._new(settings.mutations, self._mutation, settings.redraws * settings.mutations)
        if len(self._parents) > 1:
            bred += self._new(settings.crossovers, self._crossover, settings.redraws * settings.crossovers)
        while len(bred) < settings.population:
            found = self._new(1, self._stranger, MAX_REDRAWS)
            if not found:
                break
            bred += found
        return bred

    def _new(self, wanted: int, draw: Callable[[], PruningPolicy], draws: int) -> list[PruningPolicy]:
        """Return up to `wanted` policies within budget that were not tried before, from so many `draws` at most."""
        found: list[PruningPolicy] = []
        for _ in range(draws):
            if len(found) == wanted:
                break
            policy = self._problem.project(draw(), fill=True)
            if policy not in self._seen:
                self._seen.add(policy)
                found.append(policy)
        return found

    def _stranger(self) -> PruningPolicy:
        """Draw every gene at random, all widths alike."""
        return self._policy(self._generator.integers(self._n_widths))

    def _mutation(self) -> PruningPolicy:
        """Draw a mutated parent."""
        parent = self._parents[self._generator.integers(len(self._parents))]
        return self._policy(mutated(parent.genes, self._n_widths, self.settings.mutation_rate, self._generator))

    def _crossover(self) -> PruningPolicy:
        """Draw a cross of two different parents."""
        first, second = self._generator.choice(len(self._parents), 2, replace=False)
        return self._policy(crossed(self._parents[first].genes, self._parents[second].genes, self._generator))

    def _genes(self, kept: Counts) -> Genes:
        """Return the genes of kept counts, ``(n_groups,)``."""
        pairs = zip(self._problem.widths, kept, strict=True)
        return np.array([np.searchsorted(width, count) for width, count in pairs], dtype=np.int64)

    def _policy(self, genes: Genes) -> PruningPolicy:
        """Return the policy of genes, in or out of budget."""
        kept = [int(width[gene]) for width, gene in zip(self._problem.widths, genes, strict=True)]
        return self._problem.policy(kept)


def mutated(genes: Genes, n_widths: Counts, rate: float, generator: np.random.Generator) -> Genes:
    """Return genes of which each was replaced with probability `rate`, by another of its group's widths, all alike.

    Args:
        genes: Those of a parent, ``(n_groups,)``.
        n_widths: Number of allowed widths of each group, ``(n_groups,)``; the gene of a group with one stays.
        rate: Probability from 0 to 1.
        generator: What draws.

    """
    changed = (generator.random(len(genes)) < rate) & (n_widths > 1)
    step = 1 + np.floor(generator.random(len(genes)) * (n_widths - 1)).astype(np.int64)
    return np.where(changed, (genes + step) % n_widths, genes)


def crossed(first: Genes, second: Genes, generator: np.random.Generator) -> Genes:
    """Return genes of which each is that of `first` or of `second`, ``(n_groups,)``, by one mask of fair coins."""
    return np.where(generator.random(len(first)) < 0.5, first, second)
