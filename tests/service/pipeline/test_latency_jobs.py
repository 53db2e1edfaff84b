"""Jobs within a budget of latency: what the table promises is held, and what is measured has the last word."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.costs.fused_units import fused_units
from autoprune.errors import BudgetError, ExportError, InfeasibleBudgetError, LatencyTableError
from autoprune.formats.load import load_network
from autoprune.groups.channel_group import find_groups
from autoprune.latency_tables.measure import Latency
from autoprune.latency_tables.session import RUNTIME
from autoprune.latency_tables.table import Calibration, Conditions, LatencyTable
from autoprune.search.journal import Journal
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import run_comparison
from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.pipeline.latency_check import Timer
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.what_if import what_if
from autoprune.service.results.job_result import JobResult
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.reading import read_as
from tests.made_up_tables import made_up_table, staircase_us


def _table(model: Path, *, error: float = 0.02) -> LatencyTable:
    """Return the made-up table of a device that is not this machine."""
    calibration = Calibration(1.1, 5.0, error, 2 * error, ((100.0, 100.0 * (1 + error)),))
    return made_up_table(load_network(model), staircase_us, calibration)


@pytest.fixture(scope="module")
def table(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "toaster.json"
    _table(model).save(path)
    return path


def _spec(model: Path, table: Path, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model),
        "dataset": "digits",
        "budget": "latency=60%",
        "device": str(table),
        "policies": ["uniform", "exact", "netadapt", "amc"],
        "evaluations": 12,
    }
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path]:
    folder = tmp_path_factory.mktemp("job")
    return run_job(_spec(model, table), folder), folder


def test_every_policy_holds_the_limit_less_the_error_of_the_table(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    assert result.limits["latency"] == int(int(0.6 * result.cost["latency"]) * 0.98)
    assert any("predicted from the table of 'toaster' and not measured there" in text for text in result.warnings)
    sizes = {group.name: group.units for group in result.groups}
    for outcome in result.outcomes:
        assert outcome.cost["latency"] <= result.limits["latency"]
        assert all(kept % 8 == 0 or kept == sizes[name] for name, kept in outcome.kept.items())
        certificate = json.loads((folder / outcome.artifacts["certificate"]).read_text())
        assert certificate["latency"]["device"] == "toaster"
        assert certificate["latency"]["measured_on_device"] is False
        assert certificate["limits"]["latency"] == result.limits["latency"]


def test_netadapt_walks_down_to_the_budget_and_the_report_draws_its_path(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    outcome = next(each for each in result.outcomes if each.policy == "netadapt")
    trials = {trial.number: trial for trial in outcome.trials}
    steps = [trials[number].cost["latency"] for number in outcome.front]
    assert steps[0] == result.cost["latency"]
    assert all(after < before for before, after in itertools.pairwise(steps))
    page = (folder / "report.html").read_text()
    assert "netadapt, front" in page
    assert "predicted latency" in page


def test_the_predicted_latency_is_the_sum_of_the_units_times(model: Path, job: tuple[JobResult, Path]) -> None:
    result, folder = job
    outcome = result.outcomes[0]
    pruned = load_network(folder / outcome.artifacts["onnx"])
    units = fused_units(pruned, find_groups(pruned))
    expected_us = 1.1 * sum(staircase_us(each.unit) for each in units) + 5
    assert outcome.cost["latency"] == pytest.approx(1000 * expected_us, abs=50)


def test_other_limits_of_latency_are_answered_from_the_table(model: Path, job: tuple[JobResult, Path]) -> None:
    result, folder = job
    view = what_if(folder / EVIDENCE, ["latency=60%", "latency=50%,params=60%"])
    same, tight = view.budgets
    assert same.limits == result.limits
    assert same.measured
    first = next(each for each in result.outcomes if each.policy == "exact").trials[0]
    assert (same.score, same.cost) == (first.objective, first.cost)
    assert tight.limits["latency"] == int(int(0.5 * result.cost["latency"]) * 0.98)
    assert tight.cost["latency"] <= tight.limits["latency"]
    with pytest.raises(InfeasibleBudgetError, match="smallest reachable value is"):
        what_if(folder / EVIDENCE, ["latency=1us"])


def _device(*shares: float) -> Timer:
    """Return a device on which pruned networks take these shares of the unpruned one's time, the last from then on."""
    left = list(shares)

    def time(paths: Sequence[Path], *, input_shape: tuple[int, ...], threads: int = 1) -> list[Latency]:
        share = left.pop(0) if len(left) > 1 else left[0]
        times = [1.0, *(share for _ in paths[1:])]
        return [Latency(each, 0.9 * each, 1.1 * each, 10, 1, threads, "runtime", "toaster") for each in times]

    return time


def test_a_candidate_that_is_measured_too_slow_gives_way_to_a_faster_one(
    model: Path, table: Path, tmp_path: Path
) -> None:
    spec = _spec(model, table, policies=["exact"])
    expected = run_job(spec, tmp_path / "fast", timer=_device(0.5))
    found = run_job(spec, tmp_path / "slow", timer=_device(0.62, 0.59))
    assert found.outcomes[0].cost["latency"] <= expected.outcomes[0].cost["latency"] * 0.6 / 0.62
    latency = found.outcomes[0].certificate["latency"]
    assert isinstance(latency, dict)
    assert latency["measured_on_device"] is True
    assert not any("not measured there" in text for text in found.warnings)
    assert latency["share_of_limit"] == pytest.approx(0.59 / 0.6)


def test_a_candidate_that_holds_by_a_hair_gives_way_to_a_faster_one_or_is_taken(
    model: Path, table: Path, tmp_path: Path
) -> None:
    spec = _spec(model, table, policies=["exact"])
    expected = run_job(spec, tmp_path / "fast", timer=_device(0.5))
    found = run_job(spec, tmp_path / "close", timer=_device(0.597, 0.58))
    assert found.outcomes[0].cost["latency"] < expected.outcomes[0].cost["latency"]
    only = run_job(_spec(model, table, policies=["uniform"]), tmp_path / "only", timer=_device(0.597))
    latency = only.outcomes[0].certificate["latency"]
    assert isinstance(latency, dict)
    assert latency["share_of_limit"] == pytest.approx(0.597 / 0.6)


def test_a_policy_with_one_proposal_is_narrowed_until_it_holds(model: Path, table: Path, tmp_path: Path) -> None:
    spec = _spec(model, table, policies=["uniform"])
    expected = run_job(spec, tmp_path / "fast", timer=_device(0.5))
    found = run_job(spec, tmp_path / "slow", timer=_device(0.63, 0.59))
    assert len(expected.outcomes[0].trials) == 1
    assert len(found.outcomes[0].trials) == 2
    assert found.outcomes[0].cost["latency"] < expected.outcomes[0].cost["latency"] * 0.6 / 0.63


def test_plans_of_a_front_that_are_measured_too_slow_are_left_out(model: Path, table: Path, tmp_path: Path) -> None:
    """The winner holds; of the front's plans the first is too slow each time it is timed, the second holds."""
    spec = _spec(model, table, policies=["nsga2"], evaluations=16, front={"least": "latency=40%", "points": 2})
    result = run_job(spec, tmp_path, timer=_device(0.5, 0.5, 0.65, 0.65, 0.65, 0.55))
    outcome = result.outcomes[0]
    assert outcome.front_quantity == "latency"
    assert len(outcome.front) >= 2
    (point,) = outcome.front_points
    assert point.artifacts["onnx"] == "nsga2/front/02/model.onnx"
    latency = point.certificate["latency"]
    assert isinstance(latency, dict)
    assert latency["share_of_limit"] == pytest.approx(0.55 / 0.6)
    assert any("nsga2/front/01 is left out: timed whole, it is too slow" in text for text in result.warnings)
    assert not (tmp_path / "nsga2" / "front" / "01").exists()


def test_a_comparison_times_the_candidates_of_every_seed_and_counts_what_it_evaluates_for_that(
    model: Path, table: Path, tmp_path: Path
) -> None:
    values = _spec(model, table, policies=["exact"], evaluations=7, refit=False).model_dump()
    spec = read_as(ComparisonSpec, {**values, "seeds": 2})
    found = run_comparison(spec, tmp_path, timer=_device(0.63, 0.59))
    uniform, *others = found.runs  # timed first: too slow at first, then narrowed
    assert len(uniform.trials) == 2
    assert all(len(run.trials) <= 7 for run in others)
    assert uniform.trials[1].cost["latency"] < uniform.trials[0].cost["latency"] * 0.6 / 0.63
    assert uniform.seconds is not None
    assert {run.seed for run in others if run.policy == "exact"} == {0, 1}
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert found.computed == found.distinct == len(journal)
    assert list(found.fronts) == ["latency"]


def test_a_job_whose_candidates_are_all_too_slow_fails(model: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no candidate holds it when it is timed whole.*fastest took 166\.7%"):
        run_job(_spec(model, table, policies=["uniform"]), tmp_path, timer=_device(1.0))


def test_budgets_of_latency_need_a_table_that_can_be_believed(model: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="give its latency table with --device"):
        run_job(_spec(model, table, device=None), tmp_path)
    bad = tmp_path / "bad.json"
    _table(model, error=0.2).save(bad)
    with pytest.raises(LatencyTableError, match=r"mean error of 20\.0%.*at most 10%"):
        run_job(_spec(model, bad), tmp_path)
    batches = tmp_path / "batches.json"
    replace(_table(model), conditions=Conditions("toaster", "mips", RUNTIME, batch=8)).save(batches)
    with pytest.raises(LatencyTableError, match="of 8 images at a time"):
        run_job(_spec(model, batches), tmp_path)
    stranger = tmp_path / "stranger.json"
    replace(_table(model), calibrations={}).save(stranger)
    with pytest.raises(LatencyTableError, match="never compared with this network measured whole"):
        run_job(_spec(model, stranger), tmp_path)
    with pytest.raises(InfeasibleBudgetError, match=r"smallest reachable value is .* ms"):
        run_job(_spec(model, table, budget="latency=1%"), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_latency_and_parameters_are_limited_together(model: Path, table: Path, tmp_path: Path) -> None:
    result = run_job(_spec(model, table, budget="latency=70%,params=50%", policies=["uniform", "exact"]), tmp_path)
    for outcome in result.outcomes:
        assert outcome.cost["latency"] <= result.limits["latency"]
        assert outcome.cost["params"] <= result.limits["params"]


def test_short_term_training_leaves_no_checkpoints_behind(model: Path, table: Path, tmp_path: Path) -> None:
    result = run_job(
        _spec(model, table, policies=["netadapt"], evaluations=6, short_term_steps=2, netadapt_rule="paper"), tmp_path
    )
    assert result.outcomes[0].cost["latency"] <= result.limits["latency"]
    assert not (tmp_path / "checkpoints").exists()
