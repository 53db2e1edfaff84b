"""One whole job: what it leaves, that it is true, and that a killed one ends the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from autoprune.artifact import load_pruned
from autoprune.certificate import check_parity, count_onnx
from autoprune.errors import Cancelled, SearchError
from autoprune.files import file_sha256
from autoprune.formats.load import load_network
from autoprune.formats.onnx_export import export_onnx
from autoprune.pruning.plan import Plan
from autoprune.search.journal import Journal
from autoprune.service.cli.demo_network import train_demo_network
from autoprune.service.pipeline.inputs import load_inputs, ranks_alike
from autoprune.service.pipeline.run import run_job
from autoprune.service.results.job_result import JobResult
from autoprune.service.results.wording import verdicts
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.progress import Progress
from tests.search.dask_cluster import dask_cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trained digits network as an ONNX file with folded batch norm."""
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    network, module, _ = train_demo_network(epochs=3)
    export_onnx(module, path, input_shape=network.input_shape)
    return path


def _spec(model: Path, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model),
        "dataset": "digits",
        "budget": "macs=50%",
        "policies": ["uniform", "random", "sensitivity"],
        "evaluations": 14,
        "finetune_epochs": 1,
        "seed": 3,
    }
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path]:
    """Return the result of an undisturbed job, and its folder."""
    folder = tmp_path_factory.mktemp("job")
    return run_job(_spec(model), folder), folder


def test_every_policy_ends_within_budget_with_a_certificate(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    assert [outcome.policy for outcome in result.outcomes] == ["uniform", "random", "sensitivity"]
    for outcome in result.outcomes:
        certificate = json.loads((folder / outcome.artifacts["certificate"]).read_text())
        onnx = folder / outcome.artifacts["onnx"]
        assert outcome.cost["macs"] <= result.limits["macs"] == result.cost["macs"] // 2
        assert certificate["holds"] is True
        assert certificate["cost"] == count_onnx(onnx) == outcome.cost
        assert certificate["onnx_sha256"] == file_sha256(onnx)
        assert certificate["file_bytes"] == onnx.stat().st_size
        assert certificate["parity_error"] <= 1e-4
        assert certificate["masked_error"] <= 1e-5
        assert certificate["latency"]["speedup"] > 0
        assert set(certificate["splits"]) == {"fit", "search", "report"}
    assert JobResult.model_validate_json((folder / "result.json").read_text()) == result


def test_artifacts_load_back_to_the_same_network(job: tuple[JobResult, Path], model: Path) -> None:
    result, folder = job
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for outcome in result.outcomes:
        onnx = folder / outcome.artifacts["onnx"]
        plan = Plan.load(folder / outcome.artifacts["plan"])
        module = load_pruned(load_network(model), plan, folder / outcome.artifacts["weights"])
        assert check_parity(onnx, module, images) <= 1e-5
        again = load_network(onnx)
        with torch.no_grad():
            assert torch.allclose(again.module(images), module(images), atol=1e-4)
        session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        for batch in (1, 3):
            (logits,) = session.run(None, {"image": np.zeros((batch, 1, 8, 8), np.float32)})
            assert logits.shape == (batch, 10)


def test_the_same_seed_gives_the_same_job(job: tuple[JobResult, Path], model: Path, tmp_path: Path) -> None:
    result, folder = job
    again = run_job(_spec(model), tmp_path)
    _assert_same(again, result)
    for outcome in result.outcomes:
        for kind in ("plan", "onnx", "weights"):
            assert file_sha256(tmp_path / outcome.artifacts[kind]) == file_sha256(folder / outcome.artifacts[kind])


def test_a_fine_tuning_that_does_harm_is_said(model: Path, tmp_path: Path) -> None:
    mild, harsh = (
        run_job(
            _spec(model, policies=["uniform"], evaluations=1, workers=1, finetune={"learning_rate": rate}),
            tmp_path / str(rate),
        )
        for rate in (0.003, 0.5)
    )
    assert not any("fine-tuning took" in text for text in mild.warnings)
    assert any("policy 'uniform': fine-tuning took its network from" in text for text in harsh.warnings)


def test_a_few_evaluations_are_refused_before_images_are_read(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"never opened")
    with pytest.raises(SearchError, match="in every comparison, and in searches that name no policy"):
        run_job(_spec(model, evaluations=3, dataset=str(tmp_path / "images.zip")), tmp_path / "job")


def test_a_cluster_changes_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"policies": ["random"], "evaluations": 8, "finetune_epochs": 0}
    alone = run_job(_spec(model, **settings, workers=1), tmp_path / "alone")
    said: list[Progress] = []
    with dask_cluster(tmp_path, 1) as cluster:
        monkeypatch.setenv("AUTOPRUNE_CLUSTER", cluster.url)
        _assert_same(run_job(_spec(model, **settings), tmp_path / "clustered", progress=said.append), alone)
    assert [each.message for each in said if each.stage == "cluster"] == [f"evaluating on {cluster.url}"]


def test_workers_and_screening_change_nothing_that_they_should_not(model: Path, tmp_path: Path) -> None:
    """The same trials in one process and in two; the record says how well cheap scores ranked."""
    settings = {"policies": ["exact"], "evaluations": 30, "finetune_epochs": 0, "screening_images": 60}
    alone = run_job(_spec(model, **settings, workers=1), tmp_path / "alone")
    pooled = run_job(_spec(model, **settings, workers=2), tmp_path / "pooled")
    _assert_same(alone, pooled)
    outcome = pooled.outcomes[0]
    assert outcome.screening is not None
    assert outcome.screening.pairs >= 16
    assert outcome.evaluations <= 30 < len(outcome.trials)
    assert any("Screening of exact" in text for text in verdicts(pooled))


@pytest.mark.parametrize("policy", ["uniform", "sensitivity"])
def test_a_warm_start_is_for_policies_that_are_no_baselines(policy: str, model: Path, tmp_path: Path) -> None:
    settings = {"policies": [policy, "exact"], "evaluations": 12, "finetune_epochs": 0, "refit": False}
    cold = run_job(_spec(model, **settings), tmp_path / "cold")
    warm = run_job(_spec(model, **settings, warm_start=True), tmp_path / "warm")
    first, exact = warm.outcomes[0].trials[0], warm.outcomes[1].trials[0]
    if policy == "uniform":
        _assert_same(warm, cold)
    else:
        assert (first.objective, first.cost) == (exact.objective, exact.cost)


def test_a_refit_is_taken_where_the_search_images_are_better_off(job: tuple[JobResult, Path]) -> None:
    for outcome in job[0].outcomes:
        if outcome.search_refit is not None:
            found, better = outcome.search, outcome.search_refit
            assert found.top1 is not None
            assert better.top1 is not None
            assert better.top1 >= found.top1


def test_a_second_run_evaluates_nothing(job: tuple[JobResult, Path], model: Path) -> None:
    result, folder = job
    again = run_job(_spec(model), folder)
    _assert_same(again, result)
    assert [outcome.cached for outcome in again.outcomes] == [outcome.evaluations for outcome in again.outcomes]


def test_killed_in_mid_search_and_run_again_gives_the_same_result(
    job: tuple[JobResult, Path], model: Path, tmp_path: Path
) -> None:
    """The command line is killed with SIGKILL as soon as the journal holds a few evaluations, three times over."""
    result, _ = job
    command = [
        sys.executable, "-m", "autoprune.service.cli.app", "search", str(model), "--data", "digits",
        "--budget", "macs=50%",
        "--policy", "uniform", "--policy", "random", "--policy", "sensitivity", "--evaluations", "14",
        "--finetune-epochs", "1", "--seed", "3", "--output", str(tmp_path / "job"),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    recorded = []
    for target in (3, 9, 16):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and _recorded(tmp_path / "job") < target:
            assert time.monotonic() < deadline, "the search does not get on"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the search ended before it could be killed"
        recorded.append(_recorded(tmp_path / "job"))
        assert not (tmp_path / "job" / "result.json").exists()
    assert recorded == sorted(recorded)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resumed = JobResult.model_validate_json((tmp_path / "job" / "result.json").read_text())
    _assert_same(resumed, result)
    assert sum(outcome.cached for outcome in resumed.outcomes) >= recorded[-1]


def test_cancelling_keeps_what_was_evaluated(model: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(Cancelled):
        run_job(_spec(model), tmp_path, progress=seen.append, should_stop=lambda: _searched(seen) >= 5)
    assert _recorded(tmp_path) >= 4
    assert not (tmp_path / "result.json").exists()


def test_unlabelled_images_are_scored_against_the_unpruned_network(model: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((300, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "images.npz", images=images)
    spec = _spec(model, dataset=str(tmp_path / "images.npz"), policies=["uniform"])
    result = run_job(spec, tmp_path / "job")
    outcome = result.outcomes[0]
    assert outcome.report.top1 is None
    assert outcome.report.agreement is not None
    assert outcome.report.kl is not None
    assert any("agreement" in warning for warning in result.warnings)


def test_bf16_is_held_against_float32_the_same_way_every_time(model: Path) -> None:
    inputs = load_inputs(_spec(model, search_images=60), lambda _: None)
    verdicts = {ranks_alike(inputs.problem, inputs.splits.for_search()) for _ in range(2)}
    assert len(verdicts) == 1


def _assert_same(a: JobResult, b: JobResult) -> None:
    """Equal but for wall times and what the journal answered."""
    volatile = {"seconds": True, "cached": True, "certificate": True, "trials": {"__all__": {"seconds"}}}
    assert a.model_dump(exclude={"seconds", "outcomes"}) == b.model_dump(exclude={"seconds", "outcomes"})
    for mine, other in zip(a.outcomes, b.outcomes, strict=True):
        assert mine.model_dump(exclude=volatile) == other.model_dump(exclude=volatile)
        certificates = [{k: v for k, v in o.certificate.items() if k != "latency"} for o in (mine, other)]
        assert certificates[0] == certificates[1]


def _recorded(folder: Path) -> int:
    """Count the evaluations in a job's journal."""
    if not (folder / "journal.sqlite").exists():
        return 0
    with Journal.open(folder / "journal.sqlite") as journal:
        return len(journal)


def _searched(seen: list[Progress]) -> int:
    """Count the candidates evaluated so far."""
    return sum(progress.stage == "search" for progress in seen)
