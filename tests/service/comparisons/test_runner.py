"""One whole comparison: what it leaves, that nothing is evaluated twice, and that a killed one ends the same."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from autoprune.errors import Cancelled, SearchError
from autoprune.files import file_sha256
from autoprune.search.journal import Journal
from autoprune.service.comparisons.comparison_result import ComparisonResult, RunView
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import run_comparison
from autoprune.service.comparisons.runs import Run, runs_of
from autoprune.service.specs.amc_options import AGENT_ARTIFACT
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.reading import SpecError, read_as

EVALUATIONS = 10
SEEDS = 2


def spec_of(model: Path, **changes: object) -> ComparisonSpec:
    values: dict[str, object] = {
        "model": str(model), "dataset": "digits", "budget": "macs=50%", "policies": ["exact", "amc"], "seeds": SEEDS,
        "evaluations": EVALUATIONS, "fit_images": 300, "search_images": 200, "report_images": 200, "refit": False,
        "amc": {"experience": True}, "seed": 3,
    }  # fmt: skip
    return read_as(ComparisonSpec, values | changes)


@pytest.fixture(scope="module")
def comparison(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ComparisonResult, Path]:
    """Return the result of an undisturbed comparison, and its folder."""
    folder = tmp_path_factory.mktemp("comparison")
    return run_comparison(spec_of(model), folder), folder


def recorded(folder: Path) -> int:
    """Count the evaluations in a journal."""
    if not (folder / "journal.sqlite").exists():
        return 0
    with Journal.open(folder / "journal.sqlite") as journal:
        return len(journal)


def of_policy(result: ComparisonResult, policy: str) -> list[RunView]:
    return [run for run in result.runs if run.policy == policy]


def lasting(result: ComparisonResult) -> dict[str, object]:
    """Return what must be the same whenever a comparison is run: all but times and what the journal answered."""
    run = {"seconds": True, "computed": True, "trials": {"__all__": {"seconds"}}}
    outcome = {"seconds": True, "cached": True, "certificate": True, "trials": {"__all__": {"seconds"}}}
    return result.model_dump(
        exclude={
            "computed": True, "verdicts": True, "by_seconds": True, "runs": {"__all__": run},
            "policies": {"__all__": {"seconds"}}, "delivered": {"seconds": True, "outcomes": {"__all__": outcome}},
        }
    )  # fmt: skip


def test_all_policies_search_with_all_seeds_at_the_same_number_of_evaluations(
    comparison: tuple[ComparisonResult, Path],
) -> None:
    result, _ = comparison
    assert [(policy.policy, policy.seeds) for policy in result.policies] == [
        ("uniform", []), ("random", [0, 1]), ("sensitivity", []), ("exact", [0, 1]), ("amc", [0, 1]),
    ]  # fmt: skip
    assert all(len(run.trials) == run.evaluations <= EVALUATIONS for run in result.runs)
    assert [len(run.trials) for run in of_policy(result, "amc")] == [EVALUATIONS] * SEEDS
    first, second = of_policy(result, "random")
    assert [trial.cost for trial in first.trials] != [trial.cost for trial in second.trials]
    assert all(run.cost["macs"] <= result.delivered.limits["macs"] for run in result.runs)


def test_nothing_is_evaluated_twice_and_the_journal_agrees(comparison: tuple[ComparisonResult, Path]) -> None:
    result, folder = comparison
    assert result.trials == sum(len(run.trials) for run in result.runs)
    assert result.distinct == result.computed == sum(run.computed for run in result.runs) == recorded(folder)
    assert result.distinct < result.trials  # sensitivity probes the unpruned network, amc walks where others were


def test_each_policy_delivers_the_seed_that_is_best_on_the_search_images(
    comparison: tuple[ComparisonResult, Path],
) -> None:
    result, folder = comparison
    for outcome in result.delivered.outcomes:
        runs = of_policy(result, outcome.policy)
        (chosen,) = (run for run in runs if run.delivered)
        assert (outcome.seed, outcome.kept, outcome.report) == (chosen.seed, chosen.kept, chosen.report)
        assert chosen.search_final.top1 == max(run.search_final.top1 or 0 for run in runs)
        certificate = json.loads((folder / outcome.artifacts["certificate"]).read_text())
        assert certificate["holds"] is True
        assert certificate["onnx_sha256"] == file_sha256(folder / outcome.artifacts["onnx"])


def test_agents_learn_from_the_trials_of_their_own_seed_and_the_delivered_one_is_kept(
    comparison: tuple[ComparisonResult, Path],
) -> None:
    result, folder = comparison
    amc = result.delivered.outcomes[-1]
    assert amc.amc is not None
    before = [run for run in result.runs if run.policy != "amc" and run.seed in (None, amc.seed)]
    assert amc.amc.experience == sum(trial.competes for run in before for trial in run.trials)
    hashes = [file_sha256(folder / f"seed-{seed}" / AGENT_ARTIFACT) for seed in result.seeds]
    assert len(set(hashes)) == SEEDS
    assert file_sha256(folder / AGENT_ARTIFACT) == hashes[amc.seed or 0]


def test_what_is_left_can_be_read_back(comparison: tuple[ComparisonResult, Path]) -> None:
    result, folder = comparison
    assert ComparisonResult.model_validate_json((folder / "comparison.json").read_text()) == result
    rows = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [(row["policy"], row["seed"]) for row in rows] == [
        (run.policy, "" if run.seed is None else str(run.seed)) for run in result.runs
    ]
    assert "policies compared" in (folder / "report.html").read_text()


def test_searches_have_the_seconds_that_their_evaluations_took(comparison: tuple[ComparisonResult, Path]) -> None:
    result, folder = comparison
    with closing(sqlite3.connect(folder / "journal.sqlite")) as journal:
        (total,) = journal.execute("SELECT sum(seconds) FROM evaluations").fetchone()
    assert 0 < total <= sum(run.seconds or 0 for run in result.runs)
    for run in result.runs:
        times = [trial.seconds for trial in run.trials if trial.seconds is not None]
        assert len(times) == len(run.trials)
        assert times == sorted(times)
    assert {policy for each in result.by_seconds for policy in each.ends} == {run.policy for run in result.runs}


def test_a_second_comparison_costs_no_evaluation(
    comparison: tuple[ComparisonResult, Path], model: Path, tmp_path: Path
) -> None:
    """On the same journal: times are those that the evaluations took, for nobody waits for them now."""
    result, folder = comparison
    shutil.copy(folder / "journal.sqlite", tmp_path)
    again = run_comparison(spec_of(model), tmp_path)
    assert lasting(again) == lasting(result)
    assert (again.computed, recorded(tmp_path)) == (0, recorded(folder))
    assert "none of these was computed now, all were in the journal" in " ".join(again.verdicts)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as journal:
        (total,) = journal.execute("SELECT sum(seconds) FROM evaluations").fetchone()
        journal.execute("UPDATE evaluations SET seconds = seconds + 1000")
        journal.commit()
    assert sum(run.seconds or 0 for run in again.runs) >= total
    slower = run_comparison(spec_of(model, seeds=1, policies=["exact"]), tmp_path)
    assert slower.computed == 0
    for run in slower.runs:
        assert run.seconds is not None
        plans = {(trial.objective, *trial.cost.values()) for trial in run.trials}  # what is asked again costs nothing
        assert int(run.seconds / 1000) == len(plans)


def test_killed_and_run_again_gives_the_same_result(
    comparison: tuple[ComparisonResult, Path], model: Path, tmp_path: Path
) -> None:
    """The command line is killed with SIGKILL while it searches with the second seed."""
    result, folder = comparison
    command = [
        sys.executable, "-m", "autoprune.service.cli.app", "compare", str(model), "--data", "digits", "--budget",
        "macs=50%", "--policy", "exact", "--policy", "amc", "--seeds", str(SEEDS), "--evaluations", str(EVALUATIONS),
        "--fit-images", "300", "--search-images", "200", "--report-images", "200", "--no-refit", "--amc-experience",
        "--seed", "3", "--output", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while process.poll() is None and recorded(tmp_path) < result.distinct - 8:
        assert time.monotonic() < deadline, "the searches do not get on"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the comparison ended before it could be killed"
    survived = recorded(tmp_path)
    assert not (tmp_path / "comparison.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resumed = ComparisonResult.model_validate_json((tmp_path / "comparison.json").read_text())
    assert lasting(resumed) == lasting(result)
    assert resumed.computed == result.distinct - survived
    assert file_sha256(tmp_path / AGENT_ARTIFACT) == file_sha256(folder / AGENT_ARTIFACT)


def test_equal_winners_are_recovered_once(model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    spec = spec_of(model, policies=["exact"], evaluations=7, refit=True, seeds=3, budget="macs=97%", max_ratio=0.05)
    result = run_comparison(spec, tmp_path, progress=seen.append)
    winners = {tuple(run.kept.values()) for run in result.runs}
    refits = {(progress.policy, progress.seed) for progress in seen if progress.stage == "refit"}
    assert len(refits) == len(winners) < len(result.runs)


def test_cancelling_keeps_what_was_evaluated(model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(Cancelled):
        run_comparison(
            spec_of(model), tmp_path, progress=seen.append,
            should_stop=lambda: any(progress.policy == "random" for progress in seen),
        )  # fmt: skip
    assert recorded(tmp_path) >= 1
    assert not (tmp_path / "comparison.json").exists()


def test_too_few_evaluations_for_a_baseline_are_refused_before_any_search(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="allow"):
        run_comparison(spec_of(model, evaluations=3), tmp_path)
    assert recorded(tmp_path) == 0


def test_baselines_are_added_first_and_draw_nothing_twice() -> None:
    spec = read_as(ComparisonSpec, {"model": "m", "dataset": "digits", "budget": "macs=50%", "seeds": 2,
                                    "policies": ["amc", "random"], "amc": {"experience": True}})  # fmt: skip
    assert spec.policies == ("uniform", "sensitivity", "amc", "random")
    assert ComparisonSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert runs_of(spec) == [
        Run("uniform", None), Run("sensitivity", None), Run("amc", 0), Run("random", 0),
        Run("amc", 1), Run("random", 1),
    ]  # fmt: skip
    assert Run("amc", 1).before(spec) == [Run("uniform", None), Run("sensitivity", None)]
    assert Run("random", 1).before(spec)[-1] == Run("amc", 1)
    for wrong in ({"seeds": 0}, {"seeds": 101}, {"policies": ["exat"]}, {"policies": ["exact", "exact"]}):
        with pytest.raises(SpecError):
            read_as(ComparisonSpec, {"model": "m", "dataset": "digits", "budget": "macs=50%", **wrong})
