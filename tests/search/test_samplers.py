"""What Optuna's samplers are told, what they cost, and what they leave alone."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import SearchError
from autoprune.problem import PruningProblem
from autoprune.search.driver import SearchResult, run_search
from autoprune.search.journal import Journal
from autoprune.search.samplers import SAMPLERS, SamplerSearch
from autoprune.search.screening import Screening
from autoprune.search.searcher import Trial
from autoprune.search.study import quiet_optuna, ratio_space, ratios_of
from tests.search.small_problems import FormulaEvaluator, small_problem

IMPORT = """
import json, sys
import autoprune.search.front, autoprune.search.policies, autoprune.search.samplers
print(json.dumps(sorted({"optuna", "cmaes", "alembic"} & set(sys.modules))))
"""

EVALUATIONS = {name: 20 if name == "gp" else 40 for name in SAMPLERS}
by_sampler = pytest.mark.parametrize("name", SAMPLERS)


def search(
    searcher: SamplerSearch, problem: PruningProblem, evaluations: int, *, screening: Screening | None = None
) -> SearchResult:
    with Journal("sqlite://") as journal:
        return run_search(
            problem,
            FormulaEvaluator(problem, range(1, len(problem.groups) + 1), noise=0.02),
            searcher,
            evaluations=evaluations,
            journal=journal,
            batch=8,
            screening=screening,
        )


def told(searcher: SamplerSearch) -> list[FrozenTrial]:
    """Return the trials whose scores the sampler knows."""
    study: optuna.Study = searcher._study._study
    return study.get_trials(states=[TrialState.COMPLETE])


def test_optuna_is_not_imported_before_it_is_used(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@by_sampler
def test_nothing_is_printed_and_nothing_global_changes(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    problem = small_problem()
    filters, verbosity = list(warnings.filters), optuna.logging.get_verbosity()
    search(SamplerSearch(problem, 0, 14, name), problem, 14)
    assert capfd.readouterr() == ("", "")
    assert (list(warnings.filters), optuna.logging.get_verbosity()) == (filters, verbosity)


def test_other_warnings_than_experimental_ones_are_shown() -> None:
    with pytest.warns(UserWarning, match="mind this"), quiet_optuna():
        warnings.warn("mind this", UserWarning, stacklevel=1)
    with quiet_optuna():
        warnings.warn("may change", optuna.exceptions.ExperimentalWarning, stacklevel=1)


def test_the_space_is_one_ratio_per_group_that_can_be_narrowed() -> None:
    problem = small_problem("params=60%", round_to=16)  # of 16, 24 and 32 channels: the first group has one width
    space = ratio_space(problem)
    assert set(space) == {problem.names[1], problem.names[2]}
    assert {name: each.high for name, each in space.items()} == {problem.names[1]: 1 - 16 / 24, problem.names[2]: 0.5}
    smallest = ratios_of(problem, problem.policy(problem.smallest()))
    assert smallest == {name: each.high for name, each in space.items()}


@by_sampler
def test_models_learn_what_was_evaluated_and_populations_what_they_drew(name: str) -> None:
    problem = small_problem(widths=(24, 32, 24, 32))
    searcher = SamplerSearch(problem, 0, EVALUATIONS[name], name)
    trials = search(searcher, problem, EVALUATIONS[name]).trials
    evaluated = {tuple(sorted(ratios_of(problem, trial.policy).items())): trial.objective for trial in trials}
    known = told(searcher)
    as_evaluated = [trial for trial in known if tuple(sorted(trial.params.items())) in evaluated]
    assert all(trial.value in evaluated.values() for trial in known)
    if SAMPLERS[name].told == "drawn":
        assert len(as_evaluated) <= 1
        return
    learned = {tuple(sorted(trial.params.items())): trial.value for trial in as_evaluated}
    assert len(as_evaluated) >= len(trials) - 8  # all but a last generation that was cut
    assert all(value == evaluated[params] for params, value in learned.items())


@by_sampler
def test_no_policy_is_evaluated_twice_though_it_is_drawn_again(name: str) -> None:
    problem = small_problem("macs=50%", round_to=4)
    searcher = SamplerSearch(problem, 0, 1000, name)
    trials = search(searcher, problem, 1000).trials
    assert 8 <= len({trial.policy for trial in trials}) == len(trials) < 100
    assert len(told(searcher)) > len(trials)
    assert searcher.ask(1) == searcher.ask(5) == []


@by_sampler
def test_seeds_tell_searches_apart_however_large(name: str) -> None:
    problem = small_problem()
    found = [search(SamplerSearch(problem, seed, 20, name), problem, 10).trials for seed in (0, 1, 2**40)]
    assert len({tuple(trial.kept for trial in trials) for trials in found}) == 3
    with pytest.raises(SearchError, match="seed of at least 0"):
        SamplerSearch(problem, -1, 10, name)


@by_sampler
def test_one_group_suffices(name: str) -> None:
    problem = small_problem(widths=(24,))
    assert search(SamplerSearch(problem, 0, 16, name), problem, 16).best.kept == (max_kept(problem),)


def max_kept(problem: PruningProblem) -> int:
    return max(int(width) for width in problem.widths[0] if problem.fits([int(width)]))


@by_sampler
def test_scores_on_fewer_images_are_not_told(name: str) -> None:
    problem = small_problem()
    searcher = SamplerSearch(problem, 0, 16, name)
    result = search(searcher, problem, 16, screening=Screening(10, audit=4, threshold=-1))
    cheap: list[Trial] = [trial for trial in result.trials if trial.screened_out]
    assert cheap
    known = {trial.value for trial in told(searcher)}
    assert known <= {trial.objective for trial in result.trials if trial.competes}


def test_generations_follow_from_the_search() -> None:
    problem = small_problem()
    sizes = {name: [SamplerSearch.generation(name, problem, n) for n in (10, 100, 1000)] for name in SAMPLERS}
    assert sizes == {
        "tpe": [8, 8, 8],
        "gp": [4, 4, 4],
        "cmaes": [7, 7, 7],  # 4 + 3 ln 3
        "nsga2": [8, 12, 50],
        "qmc": [16, 16, 16],
    }
