"""Policy metapruning in whole jobs: its winner is treated like any other, and the proxy is held to what comes out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.errors import Cancelled, SearchError
from autoprune.evaluation.evaluator import Evaluator
from autoprune.search.evidence import Evidence
from autoprune.search.proxy_audit import FEWEST_PLANS
from autoprune.service.cli.app import app
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import run_comparison
from autoprune.service.pipeline.inputs import load_inputs
from autoprune.service.pipeline.job_files import EVIDENCE
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.searching import CHECKPOINTS
from autoprune.service.reports.job_report import render_report
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.results.wording import verdicts
from autoprune.service.specs import pruningnet_options
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.reading import SpecError

EVALUATIONS = 8


def spec_of(model: Path, pruningnet: dict[str, object], **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model), "dataset": "digits", "fit_images": 400, "budget": "macs=50%", "seed": 3,
        "policies": ["uniform", "metapruning"], "evaluations": EVALUATIONS, "refit": False,
        "pruningnet": {"epochs": 2, "images": 200, **pruningnet}, "finetune": {"augment": False},
    }  # fmt: skip
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, list[Progress], Path]:
    """Return the result of an undisturbed job, what it reported, and its folder."""
    folder, seen = tmp_path_factory.mktemp("job"), list[Progress]()
    return run_job(spec_of(model, {"audit_plans": 5}), folder, progress=seen.append), seen, folder


def metapruning(result: JobResult) -> PolicyOutcome:
    return next(outcome for outcome in result.outcomes if outcome.policy == "metapruning")


def test_its_winner_gets_the_weights_of_every_other(job: tuple[JobResult, list[Progress], Path], model: Path) -> None:
    result, _, folder = job
    found = metapruning(result)
    assert found.cost["macs"] <= result.limits["macs"]
    assert found.certificate["holds"] is True
    assert found.pruningnet is not None
    *proxied, last = found.trials
    assert len(found.trials) == found.evaluations == EVALUATIONS
    assert found.pruningnet.predicted.top1 == max(trial.objective for trial in proxied)
    assert all(trial.proxied and not trial.competes for trial in proxied)
    assert last.competes
    assert last.objective == found.search.top1
    inputs = load_inputs(spec_of(model, {}), lambda _: None)
    evaluator = Evaluator(inputs.problem, inputs.splits.for_search(), precision=inputs.precision)
    policy = inputs.problem.policy([found.kept[name] for name in inputs.problem.names])
    assert found.search.model_dump() == evaluator.evaluate(inputs.problem.plan(policy)).to_dict()
    assert found.search != found.pruningnet.predicted
    assert (found.pruningnet.images, len(found.pruningnet.losses)) == (200, 2)
    assert not (folder / CHECKPOINTS).exists()
    assert all(outcome.pruningnet is None for outcome in result.outcomes if outcome is not found)


def test_its_training_and_audit_are_stages_of_the_job(job: tuple[JobResult, list[Progress], Path]) -> None:
    _, seen, _ = job
    stages = list(dict.fromkeys(each.stage for each in seen if each.policy == "metapruning"))
    assert [stage for stage in stages if stage != "report"] == ["pruningnet", "audit", "search"]
    steps = [each for each in seen if each.stage == "pruningnet"]
    assert [each.done for each in steps] == list(range(1, 7))  # two epochs of three full batches
    assert all(each.total == 6 and "loss" in each.message for each in steps)
    assert [each.done for each in seen if each.stage == "audit"] == [1, 2, 3, 4, 5]


def test_what_it_went_by_is_said(job: tuple[JobResult, list[Progress], Path]) -> None:
    result, _, _ = job
    found = metapruning(result)
    assert found.pruningnet is not None
    audit = found.pruningnet.audit
    assert audit is not None
    assert audit.plans == 5
    said = " ".join(verdicts(result))
    assert (
        "metapruning scored its candidates with weights that a PruningNet predicts, trained for 2 epochs on 200" in said
    )
    assert "Over 5 random plans, Kendall's tau" in said
    warned = [text for text in result.warnings if "cannot be trusted to rank" in text]
    assert bool(warned) == (audit.failure is not None)


def test_a_proxy_that_cannot_rank_is_warned_of(job: tuple[JobResult, list[Progress], Path], model: Path) -> None:
    """Untrained for all practical purposes, and from scratch: noise."""
    result = run_job(
        spec_of(model, {"audit_plans": 6, "images": 2, "epochs": 1, "from_scratch": True}, policies=["metapruning"]),
        job[2].parent / "noise",
    )
    audit = metapruning(result).pruningnet
    assert audit is not None
    assert audit.audit is not None
    assert audit.audit.failure is not None
    warning = f"policy 'metapruning': its PruningNet cannot be trusted to rank candidates: {audit.audit.failure}"
    assert warning in result.warnings
    assert "cannot be trusted to rank candidates" in render_report(result)


def test_killed_in_training_and_run_again_it_ends_the_same(
    job: tuple[JobResult, list[Progress], Path], model: Path, tmp_path: Path
) -> None:
    """The command line, killed in mid-training and run again, ends as the undisturbed job."""
    arguments = [
        "search", str(model), "--data", "digits", "--budget", "macs=50%", "--evaluations", str(EVALUATIONS),
        "--policy", "uniform", "--policy", "metapruning", "--seed", "3", "--no-refit", "--fit-images", "400",
        "--pruningnet-epochs", "2", "--pruningnet-images", "200", "--pruningnet-audit-plans", "5", "--no-augment",
        "--output", str(tmp_path),
    ]  # fmt: skip
    command = [sys.executable, "-m", "autoprune.service.cli.app", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("train PruningNet, metapruning 3/6"):
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    resumed, whole = JobResult.model_validate_json((tmp_path / "result.json").read_text()), job[0]
    for mine, other in zip(resumed.outcomes, whole.outcomes, strict=True):
        volatile = {"seconds": True, "cached": True, "certificate": True, "trials": {"__all__": {"seconds"}}}
        assert mine.model_dump(exclude=volatile) == other.model_dump(exclude=volatile)


def test_cancelling_keeps_what_was_trained(model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    spec = spec_of(model, {}, policies=["metapruning"])
    steps = lambda: [each.done for each in seen if each.stage == "pruningnet"]  # noqa: E731
    with pytest.raises(Cancelled, match="run the same job again"):
        run_job(spec, tmp_path, progress=seen.append, should_stop=lambda: len(steps()) >= 4)
    run_job(spec, tmp_path, progress=seen.append)
    assert steps() == [1, 2, 3, 4, 5, 6]


def test_only_its_winner_is_experience_for_amc_and_evidence(model: Path, tmp_path: Path) -> None:
    spec = spec_of(model, {"epochs": 1}, policies=["metapruning", "amc"], evaluations=3, amc={"experience": True})
    result = run_job(spec, tmp_path)
    amc = result.outcomes[1].amc
    assert amc is not None
    assert amc.experience == 1
    known = [trial for trial in Evidence.load(tmp_path / EVIDENCE).trials if trial.policy == "metapruning"]
    assert [trial.objective for trial in known] == [result.outcomes[0].search.top1]


def test_in_a_comparison_every_seed_has_a_training_of_its_own(model: Path, tmp_path: Path) -> None:
    job_spec = spec_of(model, {"epochs": 1}, policies=["metapruning"], evaluations=6).model_dump()
    spec = ComparisonSpec.model_validate({**job_spec, "seeds": 2})
    seen: list[Progress] = []
    result = run_comparison(spec, tmp_path, progress=seen.append)
    runs = [run for run in result.runs if run.policy == "metapruning"]
    assert [run.seed for run in runs] == [0, 1]
    for run in runs:
        assert [trial.competes for trial in run.trials] == [False] * 5 + [True]
        assert [each.done for each in seen if (each.stage, each.seed) == ("pruningnet", run.seed)] == [1, 2, 3]
    assert [trial.objective for trial in runs[0].trials] != [trial.objective for trial in runs[1].trials]
    assert not any(tmp_path.rglob(CHECKPOINTS))


def test_too_few_evaluations_are_refused_before_anything_is_trained(model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(SearchError, match="needs at least 2 evaluations, the last one for its winner; found 1"):
        run_job(spec_of(model, {}, evaluations=1), tmp_path, progress=seen.append)
    assert not any(each.stage == "pruningnet" for each in seen)


@pytest.mark.parametrize("plans", [-1, 1, FEWEST_PLANS - 1])
def test_an_audit_that_shows_nothing_is_refused(plans: int) -> None:
    with pytest.raises(SpecError, match=r"pruningnet.audit_plans"):
        read_spec({"model": "m", "dataset": "digits", "budget": "macs=50%", "pruningnet": {"audit_plans": plans}})
    assert pruningnet_options.FEWEST_PLANS == FEWEST_PLANS
