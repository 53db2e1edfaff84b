"""Whole jobs that look for a front: its plans are exported and certified, drawn and listed."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from plotly.graph_objects import Figure
from typer.testing import CliRunner

from autoprune.certificate import count_onnx
from autoprune.errors import Cancelled, SearchError
from autoprune.files import file_sha256
from autoprune.formats.onnx_export import export_onnx
from autoprune.search.searcher import Trial
from autoprune.service.cli.app import app
from autoprune.service.cli.demo_network import train_demo_network
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.pipeline.finalist import FILES
from autoprune.service.pipeline.fronts import spread
from autoprune.service.pipeline.run import run_job
from autoprune.service.reports.job_report import figures, render_report
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.results.wording import verdicts
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.reading import SpecError, read_as

POINTS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    network, module, _ = train_demo_network(epochs=3)
    export_onnx(module, path, input_shape=network.input_shape)
    return path


def spec_of(model: Path, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model), "dataset": "digits", "fit_images": 400, "budget": "macs=80%", "seed": 3, "refit": False,
        "policies": ["uniform", "nsga2"], "evaluations": 40, "front": {"least": "macs=30%", "points": POINTS},
    }  # fmt: skip
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path]:
    folder = tmp_path_factory.mktemp("job")
    return run_job(spec_of(model, finetune_epochs=1, refit=True), folder), folder


def front_of(result: JobResult) -> PolicyOutcome:
    return next(outcome for outcome in result.outcomes if outcome.policy == "nsga2")


def test_the_front_falls_from_the_budget_to_the_lower_end(job: tuple[JobResult, Path]) -> None:
    result, _ = job
    outcome = front_of(result)
    trials = {trial.number: trial for trial in outcome.trials}
    front = [trials[number] for number in outcome.front]
    assert len(front) >= POINTS
    assert all(a.cost["macs"] > b.cost["macs"] and a.objective > b.objective for a, b in pairwise(front))
    assert front[0].cost["macs"] <= result.limits["macs"] == int(0.8 * result.cost["macs"])
    assert outcome.front_quantity == "macs"
    assert result.outcomes[0].front == result.outcomes[0].front_points == []


def test_every_exported_plan_is_certified_and_not_fine_tuned(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    outcome = front_of(result)
    exported = [point.trial for point in outcome.front_points]
    assert (exported[0], exported[-1]) == (outcome.front[0], outcome.front[-1])
    assert len({tuple(point.kept.values()) for point in outcome.front_points}) == len(outcome.front_points) == POINTS
    for number, point in enumerate(outcome.front_points, start=1):
        assert point.artifacts == {kind: f"nsga2/front/{number:02}/{name}" for kind, name in FILES.items()}
        onnx = folder / point.artifacts["onnx"]
        certificate = json.loads((folder / point.artifacts["certificate"]).read_text())
        assert certificate == point.certificate
        assert certificate["holds"] is True
        assert certificate["onnx_sha256"] == file_sha256(onnx)
        assert certificate["cost"] == count_onnx(onnx) == point.cost
        assert certificate["parity_error"] <= 1e-4
        assert certificate["latency"]["speedup"] > 0
        assert point.report.images == result.report.images
        trial = next(trial for trial in outcome.trials if trial.number == point.trial)
        assert trial.cost["macs"] == point.cost["macs"]
        assert trial.objective == point.search.top1
    assert outcome.report_finetuned is not None  # the winner is
    assert JobResult.model_validate_json((folder / "result.json").read_text()) == result


def test_it_is_listed_drawn_and_said(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    outcome = front_of(result)
    page = (folder / "report.html").read_text()
    assert "Front of nsga2" in page
    assert all(f'href="./{point.artifacts["onnx"]}"' in page for point in outcome.front_points)
    drawn = next(figure for element, _, _, figure in figures(result) if element == "trials-1")
    names = [trace.name for trace in Figure(json.loads(re.sub(r'"--\w+"', '"#123"', json.dumps(drawn)))).data]
    assert "nsga2, front" in names
    said = [text for text in verdicts(result) if "looked for a front" in text]
    assert len(said) == 1
    assert f"{POINTS} of them are exported, in nsga2/front" in said[0]


def test_a_front_over_what_the_budget_does_not_limit_has_a_picture_of_its_own(job: tuple[JobResult, Path]) -> None:
    result, _ = job
    changed = front_of(result).model_copy(update={"front_quantity": "params"})
    result = result.model_copy(update={"outcomes": [result.outcomes[0], changed]})
    assert {"trials-1", "trials-2"} <= {element for element, *_ in figures(result)}
    assert "of the parameters, none" in " ".join(verdicts(result))
    assert render_report(result)


def test_run_again_it_is_the_same_without_an_evaluation(
    job: tuple[JobResult, Path], model: Path, tmp_path: Path
) -> None:
    """Stopped in the middle of the front's export, and run again in a folder with a plan too many."""
    result, folder = job
    spec = spec_of(model, finetune_epochs=1, refit=True)
    seen: list[Progress] = []
    with pytest.raises(Cancelled, match="stopped while"):
        run_job(
            spec,
            tmp_path,
            progress=seen.append,
            should_stop=lambda: any(each.stage == "export" and each.done == 2 for each in seen),
        )
    assert not (tmp_path / "result.json").exists()
    (tmp_path / "nsga2" / "front" / "99").mkdir()
    again = run_job(spec, tmp_path)
    assert all(outcome.cached == outcome.evaluations for outcome in again.outcomes)
    mine, other = front_of(again), front_of(result)
    assert mine.front == other.front
    assert [point.search for point in mine.front_points] == [point.search for point in other.front_points]
    assert [point.report for point in mine.front_points] == [point.report for point in other.front_points]
    assert sorted(path.name for path in (tmp_path / "nsga2" / "front").iterdir()) == ["01", "02", "03", "04", "05"]
    for point in other.front_points:
        for kind in ("onnx", "plan", "weights"):
            assert file_sha256(tmp_path / point.artifacts[kind]) == file_sha256(folder / point.artifacts[kind])


def test_a_warm_front_starts_from_exact_allocations_and_counts_all_it_tried(model: Path, tmp_path: Path) -> None:
    spec = spec_of(model, warm_start=True, policies=["nsga2"], evaluations=10, front={"least": "macs=40%", "points": 2})
    outcome = front_of(run_job(spec, tmp_path / "warm"))
    costs = [trial.cost["macs"] for trial in outcome.trials[:8]]
    assert costs == sorted(costs, reverse=True)
    later = spec_of(
        model, policies=["nsga2"], evaluations=12, budget="macs=70%", front={"least": "macs=40%", "points": 2},
        continue_from=str(tmp_path / "warm"),
    )  # fmt: skip
    outcome = front_of(run_job(later, tmp_path / "later"))
    best = max(trial.objective for trial in outcome.trials)
    trials = {trial.number: trial for trial in outcome.trials}
    assert trials[outcome.front[0]].objective == best  # whether the earlier job's policies are the best, or its own


def test_the_command_line_exports_a_front(model: Path, tmp_path: Path) -> None:
    arguments = [
        "search", str(model), "--data", "digits", "--fit-images", "400", "--budget", "macs=80%", "--policy", "nsga2",
        "--evaluations", "16", "--no-refit", "--front", "macs=30%", "--front-points", "2", "--output", str(tmp_path),
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "nsga2 looked for a front" in " ".join(done.output.split())
    assert sorted(path.name for path in (tmp_path / "nsga2" / "front" / "02").iterdir()) == sorted(FILES.values())


def test_what_is_no_front_is_refused_before_anything_is_searched(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a front is what policy 'nsga2' looks for"):
        spec_of(model, policies=["uniform"])
    with pytest.raises(SpecError, match=r"front.least: expected a value: it must be given"):
        spec_of(model, front={"points": 3})
    with pytest.raises(SpecError, match="plans within one budget"):
        read_as(ComparisonSpec, spec_of(model).model_dump())
    with pytest.raises(SearchError, match=r"lower end of the front: .*smallest reachable"):
        run_job(spec_of(model, front={"least": "macs=1%"}), tmp_path)
    assert not (tmp_path / "studies.sqlite").exists()


def test_exported_plans_are_spread_over_the_costs(job: tuple[JobResult, Path]) -> None:
    trials = [trial for trial in front_of(job[0]).trials if trial.number in front_of(job[0]).front]
    front = cast("list[Trial]", sorted(trials, key=lambda trial: -trial.cost["macs"]))  # as a result keeps them
    assert spread(front, "macs", 1000) == front
    assert spread(front, "macs", 1) == front[:1]
    assert spread(front, "macs", 2) == [front[0], front[-1]]
    assert spread([], "macs", 5) == []
