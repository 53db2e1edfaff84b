"""Jobs that are killed while a winner is refitted or fine-tuned go on there, and end as undisturbed ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoprune.errors import Cancelled
from autoprune.formats.onnx_export import export_onnx
from autoprune.service.cli.demo_network import train_demo_network
from autoprune.service.comparisons.comparison_spec import ComparisonSpec
from autoprune.service.comparisons.run import run_comparison
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.searching import CHECKPOINTS
from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.progress import Progress

#: 400 images in batches of 64.
STEPS = 6


class Killed(BaseException):
    """Nobody in a job catches it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    network, module, _ = train_demo_network(epochs=2)
    export_onnx(module, path, input_shape=network.input_shape)
    return path


def spec_of(model: Path, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model), "dataset": "digits", "fit_images": 400, "budget": "macs=50%", "seed": 3, "workers": 1,
        "policies": ["uniform", "random"], "evaluations": 4, "finetune_epochs": 2,
    }  # fmt: skip
    return read_spec(values | changes)


def killer(stage: str, policy: str, done: int, seen: list[Progress]) -> Callable[[Progress], None]:
    """Return a progress that ends a job at a step of a stage."""

    def progress(said: Progress) -> None:
        seen.append(said)
        if (said.stage, said.policy, said.done) == (stage, policy, done):
            raise Killed

    return progress


def steps(seen: list[Progress], stage: str) -> list[tuple[str | None, int]]:
    """Return what was done in a stage, by policy."""
    return [(said.policy, said.done) for said in seen if said.stage == stage]


def assert_same_files(found: Path, expected: Path, policies: tuple[str, ...]) -> None:
    for policy in policies:
        for name in ("plan.json", "weights.safetensors", "model.onnx"):
            assert (found / policy / name).read_bytes() == (expected / policy / name).read_bytes(), (policy, name)
    assert not any(found.rglob(CHECKPOINTS))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an undisturbed job."""
    folder = tmp_path_factory.mktemp("whole")
    run_job(spec_of(model), folder)
    return folder


def test_nothing_that_was_done_is_done_again(model: Path, whole: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    for stage, policy, done in (("finetune", "uniform", 9), ("refit", "random", 1), ("finetune", "random", 6)):
        with pytest.raises(Killed):
            run_job(spec_of(model), tmp_path, progress=killer(stage, policy, done, seen))
    run_job(spec_of(model), tmp_path, progress=seen.append)
    assert_same_files(tmp_path, whole, ("uniform", "random"))
    taken = steps(seen, "finetune")
    again = {("uniform", 7), ("uniform", 8), ("uniform", 9)}  # the last checkpoint was that of an epoch
    assert set(taken) == {(policy, done) for policy in ("uniform", "random") for done in range(1, 2 * STEPS + 1)}
    assert {step for step in taken if taken.count(step) > 1} <= again
    layers = [done for policy, done in steps(seen, "refit") if policy == "uniform"]
    assert layers == sorted(set(layers))
    assert steps(seen, "refit").count(("random", 0)) == 2  # its refit was killed


def test_cancelled_it_loses_no_step(model: Path, whole: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    with pytest.raises(Cancelled, match="stopped while fine-tuning; run the same again to go on"):
        run_job(spec_of(model), tmp_path, progress=seen.append, should_stop=lambda: len(steps(seen, "finetune")) == 3)
    run_job(spec_of(model), tmp_path, progress=seen.append)
    assert_same_files(tmp_path, whole, ("uniform", "random"))
    assert steps(seen, "finetune") == [
        (policy, done)
        for policy in ("uniform", "random")
        for done in range(1, 2 * STEPS + 1)
        if (policy, done) != ("uniform", 4)
    ]


def test_other_settings_begin_anew(model: Path, whole: Path, tmp_path: Path) -> None:
    other = spec_of(model, finetune_epochs=3)
    with pytest.raises(Killed):
        run_job(other, tmp_path, progress=killer("finetune", "random", 9, []))
    seen: list[Progress] = []
    run_job(spec_of(model), tmp_path, progress=seen.append)
    assert_same_files(tmp_path, whole, ("uniform", "random"))
    assert len(steps(seen, "finetune")) == 2 * 2 * STEPS
    assert not steps(seen, "refit")  # it does not depend on them


def test_killed_while_fine_tuning_it_goes_on(model: Path, tmp_path: Path) -> None:
    """The command line, killed with SIGKILL."""
    epochs, folder = 60, tmp_path / "job"
    command = [
        sys.executable, "-m", "autoprune.service.cli.app", "search", str(model), "--data", "digits",
        "--fit-images", "400", "--budget", "macs=50%", "--policy", "uniform", "--evaluations", "1",
        "--finetune-epochs", str(epochs), "--seed", "3", "--workers", "1", "--output", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (folder / CHECKPOINTS / "uniform" / "finetune.safetensors").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the job ended before it could be killed"
    seen: list[Progress] = []
    spec = spec_of(model, policies=["uniform"], evaluations=1, finetune_epochs=epochs)
    run_job(spec, folder, progress=seen.append)
    run_job(spec, tmp_path / "whole")
    assert_same_files(folder, tmp_path / "whole", ("uniform",))
    taken = [done for _, done in steps(seen, "finetune")]
    assert STEPS < taken[0] <= taken[-1] == epochs * STEPS
    assert not steps(seen, "refit")


def test_in_a_comparison_every_seed_goes_on(model: Path, tmp_path: Path) -> None:
    job = spec_of(model, policies=["uniform", "random", "sensitivity"], evaluations=6, finetune_epochs=1)
    spec = ComparisonSpec.model_validate({**job.model_dump(), "seeds": 2})
    before: list[Progress] = []

    def progress(said: Progress) -> None:
        before.append(said)
        if (said.stage, said.seed, said.done) == ("finetune", 1, STEPS):
            raise Killed

    with pytest.raises(Killed):
        run_comparison(spec, tmp_path / "killed", progress=progress)
    after: list[Progress] = []
    resumed = run_comparison(spec, tmp_path / "killed", progress=after.append)
    whole = run_comparison(spec, tmp_path / "whole")
    assert_same_files(tmp_path / "killed", tmp_path / "whole", ("uniform", "random", "sensitivity"))
    assert [run.report for run in resumed.runs] == [run.report for run in whole.runs]
    done = {(said.policy, said.seed) for said in before if said.stage == "finetune"}
    assert ("random", 1) in done
    assert not done & {(said.policy, said.seed) for said in after if said.stage in ("finetune", "refit")}
