"""Evolution, piece by piece, as in MetaPruning (1903.10258 and its official code)."""

from collections import Counter

import numpy as np
import pytest

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.evolution import Evolution, EvolutionSettings, crossed, mutated
from autoprune.search.journal import Journal
from autoprune.search.screening import Screening
from autoprune.search.searcher import Trial
from tests.search.small_problems import FormulaEvaluator, small_problem

WEIGHTS = (1.0, 3.0, 9.0)


def search(searcher: Evolution, problem: PruningProblem, evaluations: int, **options: object) -> SearchResult:
    with Journal("sqlite://") as journal:
        return run_search(
            problem,
            FormulaEvaluator(problem, WEIGHTS, noise=0.02),
            searcher,
            evaluations=evaluations,
            journal=journal,
            **options,  # type: ignore[arg-type]
        )


def tell(searcher: Evolution, problem: PruningProblem, n: int, first: int) -> list[Trial]:
    """Ask for `n` proposals, score them and tell."""
    evaluator = FormulaEvaluator(problem, range(1, len(problem.groups) + 1))
    trials = [
        Trial(first + i, proposal, proposal.policy, (), {}, evaluator.evaluate(problem.plan(proposal.policy)))
        for i, proposal in enumerate(searcher.ask(n))
    ]
    searcher.tell(trials)
    return trials


def test_the_constants_are_those_of_the_paper() -> None:
    settings = EvolutionSettings()
    assert (settings.generations, settings.population, settings.parents) == (20, 50, 10)
    assert (settings.mutations, settings.crossovers, settings.mutation_rate) == (25, 25, 0.1)
    assert settings.scaled(1000) == settings.scaled(100_000) == settings


@pytest.mark.parametrize(
    ("evaluations", "generations", "population", "parents", "bred"),
    [(1, 1, 4, 2, 2), (20, 2, 7, 2, 3), (100, 6, 16, 3, 8), (250, 10, 25, 5, 12), (999, 19, 50, 10, 25)],
)
def test_fewer_evaluations_scale_generations_and_population_alike(
    evaluations: int, generations: int, population: int, parents: int, bred: int
) -> None:
    settings = EvolutionSettings().scaled(evaluations)
    assert (settings.generations, settings.population, settings.parents) == (generations, population, parents)
    assert settings.mutations == settings.crossovers == bred
    assert settings.generations * settings.population <= max(evaluations, population)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"population": 0}, "at least"),
        ({"mutations": -1}, "at least"),
        ({"mutations": 40}, "part of the population"),
        ({"mutation_rate": 0.0}, "above 0"),
        ({"mutation_rate": float("nan")}, "above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, float], found: str) -> None:
    with pytest.raises(SearchError, match=found):
        EvolutionSettings(**changes)  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="seed of at least 0"):
        Evolution(small_problem(), -1, 10)


def test_each_gene_mutates_with_probability_one_in_ten_to_any_other_width() -> None:
    generator, n_widths = np.random.default_rng(0), np.array([31, 5, 2, 1])
    genes = np.array([30, 2, 0, 0])
    children = np.array([mutated(genes, n_widths, 0.1, generator) for _ in range(40_000)])
    changed = children != genes
    assert np.allclose(changed.mean(axis=0), [0.1, 0.1, 0.1, 0.0], atol=0.006)  # four deviations
    assert np.corrcoef(changed[:, 0], changed[:, 1])[0, 1] == pytest.approx(0, abs=0.02)
    for group, width in enumerate(n_widths[:3]):
        counts = Counter(children[changed[:, group], group].tolist())
        assert set(counts) == set(range(width)) - {int(genes[group])}
        assert min(counts.values()) > 0.6 * max(counts.values())
    assert genes.tolist() == [30, 2, 0, 0]


def test_crossing_takes_each_gene_of_either_parent_by_one_mask() -> None:
    generator = np.random.default_rng(0)
    first, second = np.arange(8), np.arange(8) + 100
    children = np.array([crossed(first, second, generator) for _ in range(20_000)])
    of_second = children >= 100
    assert (children == np.where(of_second, second, first)).all()
    assert np.allclose(of_second.mean(axis=0), 0.5, atol=0.02)
    assert len(np.unique(of_second, axis=0)) == 2**8


def test_the_parents_are_the_best_of_all_generations() -> None:
    problem = small_problem(widths=(32, 48, 64, 32))
    searcher = Evolution(problem, 0, 1000)
    assert searcher.parents == ()
    trials: list[Trial] = []
    for generation in range(4):
        trials += tell(searcher, problem, 50, 50 * generation)
        best = sorted(trials, key=lambda trial: (-trial.objective, trial.scores.regret))
        assert [problem.kept(policy).tolist() for policy in searcher.parents] == [
            problem.kept(trial.policy).tolist() for trial in best[:10]
        ]
    assert len(trials) == 200
    assert len({trial.policy for trial in trials}) == 200


def test_what_is_bred_is_better_than_what_is_drawn() -> None:
    problem = small_problem(widths=(24, 32, 24, 32, 24))
    searcher = Evolution(problem, 0, 250)
    drawn, *bred = (tell(searcher, problem, 25, 25 * generation) for generation in range(5))
    means = [np.mean([trial.objective for trial in trials]) for trials in (drawn, *bred)]
    assert all(mean > means[0] for mean in means[1:])
    assert means[-1] > means[1]


def test_every_candidate_fills_the_budget_and_none_comes_twice() -> None:
    problem = small_problem(widths=(24, 32, 24))
    trials = search(Evolution(problem, 3, 80), problem, 80, batch=16).trials
    assert len({trial.kept for trial in trials}) == len(trials) == 80
    for trial in trials:
        assert trial.policy == trial.proposal.policy  # within budget before the driver looks
        for index, width in enumerate(problem.widths):
            wider = [count for count in width.tolist() if count > trial.kept[index]]
            assert not wider or not problem.fits([*trial.kept[:index], wider[0], *trial.kept[index + 1 :]])


def test_screened_candidates_become_no_parents() -> None:
    problem = small_problem()
    searcher = Evolution(problem, 3, 16)
    result = search(searcher, problem, 16, batch=8, screening=Screening(10, audit=4, threshold=-1))
    screened = {trial.policy for trial in result.trials if trial.screened_out}
    assert screened
    assert searcher.parents
    assert not screened & set(searcher.parents)


def test_the_same_search_under_another_name() -> None:
    problem = small_problem()
    other = Evolution(problem, 3, 30, name="metapruning")
    assert other.name == "metapruning"
    assert search(other, problem, 30).trials == search(Evolution(problem, 3, 30), problem, 30).trials


def test_the_end_is_final_when_every_policy_was_tried() -> None:
    problem = small_problem("macs=50%", round_to=8)
    searcher = Evolution(problem, 0, 100)
    trials = search(searcher, problem, 100).trials
    assert len(trials) < 100
    assert searcher.ask(1) == searcher.ask(10) == []
