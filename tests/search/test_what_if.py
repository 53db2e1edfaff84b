"""Other budgets answered from evidence alone, as the problem itself would have been set up for them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from autoprune.errors import BudgetError, InfeasibleBudgetError, SearchError
from autoprune.problem import PruningProblem
from autoprune.search.allocation import allocate
from autoprune.search.driver import run_search
from autoprune.search.evidence import FORMAT, Evidence, KnownTrial, _sha256, known_trials
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.search.what_if import Forecaster
from tests.search.small_problems import FormulaEvaluator, small_problem

POLICIES = ("random", "exact")


@pytest.fixture(scope="module")
def problem() -> PruningProblem:
    return small_problem()


@pytest.fixture(scope="module")
def evidence(problem: PruningProblem) -> Evidence:
    trials: list[KnownTrial] = []
    with Journal("sqlite://") as journal:
        for name in POLICIES:
            searcher = make_searcher(name, problem, seed=0, evaluations=30)
            found = run_search(problem, FormulaEvaluator(problem), searcher, evaluations=30, journal=journal)
            trials += known_trials(found.trials, name, trained=False)
    assert problem.errors is not None
    allocation = tuple(allocate(problem, problem.errors).tolist())
    settings = {"fit": "abc", "layers": ["conv1"]}
    names = problem.names
    return Evidence(problem, names, "macs=50%", tuple(trials), allocation, 1.0, "top1", 100, "fp32", settings)


def test_evidence_comes_back_from_its_file(evidence: Evidence, problem: PruningProblem, tmp_path: Path) -> None:
    path = tmp_path / "evidence.safetensors"
    evidence.save(path)
    found = Evidence.load(path)
    for name in ("names", "budget", "trials", "allocation", "unpruned", "metric", "images", "precision", "settings"):
        assert getattr(found, name) == getattr(evidence, name), name
    assert found.problem.limits == problem.limits
    rng = np.random.default_rng(0)
    for _ in range(20):
        kept = [int(rng.choice(width)) for width in problem.widths]
        assert found.problem.cost(kept) == problem.cost(kept)
        assert (found.problem.kept(problem.policy(kept)) == kept).all()
    assert found.problem.errors is not None
    assert problem.errors is not None
    assert all((mine == its).all() for mine, its in zip(found.problem.errors, problem.errors, strict=True))
    evidence.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_damaged_file_is_refused(evidence: Evidence, tmp_path: Path) -> None:
    path = tmp_path / "evidence.safetensors"
    with pytest.raises(SearchError, match="once all policies of a job have searched"):
        Evidence.load(path)
    evidence.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(SearchError, match="cannot use"):
        Evidence.load(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SearchError, match="cut off or altered"):
        Evidence.load(path)
    for header, message in (
        ({"format": "other/1"}, "its format is 'other/1'"),
        ({"format": FORMAT, "sha256": "0"}, "cut off or altered"),
        ({"format": FORMAT, "sha256": _sha256(load(content), {"format": FORMAT})}, "it lacks a part"),
    ):
        path.write_bytes(save(load(content), {"evidence": json.dumps(header)}))
        with pytest.raises(SearchError, match=message):
            Evidence.load(path)


@pytest.mark.parametrize("budget", ["macs=40%", "params=60%", "macs=30%,params=50%", "bytes=70%", "macs=60%"])
def test_the_allocation_is_that_of_a_search_with_this_budget(
    evidence: Evidence, problem: PruningProblem, budget: str, tmp_path: Path
) -> None:
    evidence.save(tmp_path / "evidence")
    asked = small_problem(budget)
    assert asked.errors is not None
    found = Forecaster(Evidence.load(tmp_path / "evidence")).ask(budget)
    assert found.kept == tuple(allocate(asked, asked.errors).tolist())
    assert found.cost == asked.cost(found.kept)
    assert found.limits == asked.limits
    assert found.error == pytest.approx(error_of(problem, found.kept))
    assert not found.measured
    assert found.prediction.low < found.prediction.score < found.prediction.high
    inside = [trial for trial in evidence.trials if asked.fits(trial.kept)]
    assert (found.within is None) == (not inside)
    if found.within is not None:
        assert found.within.score == max(trial.objective for trial in inside)
    off = [abs(error_of(problem, trial.kept) - found.error) for trial in evidence.trials]
    assert abs(found.nearest.error - found.error) == pytest.approx(min(off))


def test_tighter_budgets_are_expected_to_score_less(evidence: Evidence) -> None:
    forecaster = Forecaster(evidence)
    found = [forecaster.ask(f"macs={share}%") for share in (70, 60, 40, 30, 20)]
    scores = [each.prediction.score for each in found]
    assert scores == sorted(scores, reverse=True)
    assert [each.within is None for each in found] == [False, False, True, True, True]


def test_what_was_evaluated_is_known_and_the_gain_of_searching_is_said(evidence: Evidence) -> None:
    forecaster = Forecaster(evidence)
    same = forecaster.ask("macs=50%")
    first = next(trial for trial in evidence.trials if trial.policy == "exact")
    assert same.measured
    assert same.kept == first.kept == evidence.allocation
    assert same.prediction.low == same.prediction.score == same.prediction.high == first.objective
    gain = forecaster.gain()
    assert gain is not None
    assert (gain.best, gain.evaluations) == (max(t.objective for t in evidence.trials), len(evidence.trials))
    assert gain.exact == same
    elsewhere = replace(evidence, trials=tuple(replace(trial, own=False) for trial in evidence.trials))
    assert Forecaster(elsewhere).gain() is None


def test_trials_that_were_trained_first_say_nothing(evidence: Evidence) -> None:
    kept = evidence.problem.smallest().tolist()
    trained = KnownTrial("netadapt", tuple(kept), 0.99, 0.1, probe=False, trained=True, own=True)
    more = replace(evidence, trials=(*evidence.trials, trained))
    assert Forecaster(more).ask("macs=20%") == Forecaster(evidence).ask("macs=20%")
    with pytest.raises(SearchError, match="at least one trial"):
        Forecaster(replace(evidence, trials=(trained,)))


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        ("macs=1%", InfeasibleBudgetError, "the smallest reachable value is"),
        ("macs=half", BudgetError, "cannot read budget"),
        ("macs=99999999", BudgetError, "the unpruned network already holds it"),
        ("latency=1ms", BudgetError, "the job had no latency table"),
        ("nonzero=50%", BudgetError, "cannot be limited here"),
    ],
)
def test_budgets_are_refused_as_elsewhere(
    evidence: Evidence, budget: str, error: type[BudgetError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        Forecaster(evidence).ask(budget)
    if error is InfeasibleBudgetError:
        with pytest.raises(error) as elsewhere:
            small_problem(budget)
        assert str(raised.value) == str(elsewhere.value)


def test_a_job_without_reconstruction_cannot_answer(evidence: Evidence, tmp_path: Path) -> None:
    without = replace(evidence, problem=replace(evidence.problem, errors=None), allocation=None)
    without.save(tmp_path / "evidence")
    with pytest.raises(SearchError, match="search again with reconstruction"):
        Forecaster(Evidence.load(tmp_path / "evidence"))


def error_of(problem: PruningProblem, kept: Sequence[int]) -> float:
    """Add up the errors of kept counts."""
    assert problem.errors is not None
    rows = zip(problem.widths, problem.errors, kept, strict=True)
    return float(sum(errors[widths.tolist().index(count)] for widths, errors, count in rows))
