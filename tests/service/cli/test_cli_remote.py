"""The commands about jobs of a running service, against a real one."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest

from autoprune.certificate import count_onnx
from autoprune.service.cli.app import search, submit
from autoprune.service.comparisons.comparison_result import ComparisonResult
from autoprune.service.results.job_result import JobResult
from autoprune.service.settings import Settings
from tests.service.commands import run
from tests.service.live_service import Live, in_thread, tiny_onnx

QUICK = ("--data", "digits", "--budget", "macs=50%", "--policy", "uniform", "--evaluations", "2", "--fit-images", "200",
         "--search-images", "100", "--report-images", "100")  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with in_thread(Settings(tmp_path_factory.mktemp("remote") / "home")) as service:
        yield service


@pytest.fixture(autouse=True)
def _address(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_URL", live.url)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    path.write_bytes(tiny_onnx())
    return path


def test_a_job_is_submitted_watched_and_fetched(model: Path, tmp_path: Path) -> None:
    printed, stderr = run("submit", model, *QUICK, "--no-refit", "--amc-fill")
    job_id = printed.strip()
    assert (printed, stderr) == (f"{job_id}\n", "")
    assert job_id.startswith("job_")
    stdout, stderr = run("watch", job_id)
    assert "uniform" in stdout
    assert "done" in stderr
    assert f"autoprune get {job_id}" in stdout
    document, _ = run("watch", job_id, "--json")
    result = JobResult.model_validate_json(document)
    stdout, _ = run("get", job_id, "-o", tmp_path / "out")
    assert str(tmp_path / "out" / "uniform" / "model.onnx") in stdout.replace("\n", "")
    assert count_onnx(tmp_path / "out" / "uniform" / "model.onnx")["macs"] <= result.limits["macs"]
    assert JobResult.model_validate_json((tmp_path / "out" / "result.json").read_text()) == result
    listed, _ = run("jobs", "--state", "succeeded")
    assert job_id in listed
    [job] = [entry for entry in json.loads(run("jobs", "--json")[0]) if entry["id"] == job_id]
    assert (job["spec"]["refit"], job["spec"]["amc"]["fill"], job["spec"]["evaluations"]) == (False, True, 2)
    _, stderr = run("cancel", job_id, code=2)
    assert "succeeded" in stderr


def test_submit_waits_and_goes_on_from_another_job(model: Path, live: Live) -> None:
    stdout, _ = run("submit", model, *QUICK, "--no-refit", "--wait", "--url", live.url)
    job_id = stdout.splitlines()[0]
    assert "best: uniform" in stdout
    model_id = live.job(job_id)["spec"]["model"]
    again, _ = run("submit", model_id, *QUICK, "--no-refit", "--continue-from", job_id)
    spec = live.job(again.strip())["spec"]
    assert (spec["model"], spec["continue_from"]) == (model_id, job_id)
    run("cancel", again.strip())


def test_a_job_that_fails_gives_exit_code_2(model: Path, tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", job_seconds=1)) as short:
        failing, _ = run("submit", model, *QUICK, "--finetune-epochs", "10000", "--url", short.url)
        stdout, stderr = run("watch", failing.strip(), "--url", short.url, code=2)
        assert stdout == ""
        assert f"error: job {failing.strip()} failed: " in stderr
        _, stderr = run("get", failing.strip(), "--url", short.url, code=2)
        assert "failed: " in stderr


def test_a_job_that_is_cancelled_gives_exit_code_2(model: Path) -> None:
    endless, _ = run("submit", model, *QUICK, "--finetune-epochs", "10000", "--fit-images", "1500")
    job_id = endless.strip()
    _, stderr = run("get", job_id, code=2)
    assert "wait for its end first" in stderr
    watching = subprocess.Popen(
        [sys.executable, "-m", "autoprune.service.cli.app", "watch", job_id], stderr=subprocess.PIPE, text=True
    )
    assert watching.stderr is not None
    assert watching.stderr.readline()  # it is told how far the job is
    watching.send_signal(signal.SIGINT)
    _, stderr = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert f"stopped: job {job_id} goes on; `autoprune watch {job_id}`" in stderr
    assert "Traceback" not in stderr
    assert run("cancel", job_id)[0] in (f"{job_id}: is being ended\n", f"{job_id}: cancelled\n")
    _, stderr = run("watch", job_id, code=2)
    assert f"job {job_id} was cancelled" in stderr


def test_comparisons_are_watched_and_fetched_too(live: Live, model: Path, tmp_path: Path) -> None:
    uploaded = live.post_model(model.read_bytes()).json()["id"]
    spec = {"model": uploaded, "dataset": "digits", "budget": "macs=50%", "policies": ["random"], "evaluations": 7,
            "seeds": 2, "refit": False, "fit_images": 200, "search_images": 100, "report_images": 100}  # fmt: skip
    comparison = live.client.post("/v1/comparisons", json=spec).json()["id"]
    stdout, _ = run("watch", comparison)
    assert "over seeds" in " ".join(stdout.split())
    result = ComparisonResult.model_validate_json(run("watch", comparison, "--json")[0])
    assert result.seeds == [0, 1]
    run("get", comparison, "-o", tmp_path)
    assert (tmp_path / "comparison.csv").is_file()
    assert comparison in run("jobs")[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("submit", "missing.onnx", *QUICK), "missing.onnx: cannot be read"),
        (("submit", "{model}", "--data", "nowhere", "--budget", "macs=50%"), "dataset nowhere: cannot be read"),
        (("submit", "{model}", "--data", "digits", "--budget", "macs=1%"), "smallest reachable value"),
        (("submit", "{model}", *QUICK, "--round-to", "0"), "body.round_to"),
        (("submit", "{model}", *QUICK, "--continue-from", "job_none"), "continue_from"),
        (("watch", "job_none"), "job_none"),
        (("get", "cmp_none"), "cmp_none"),
        (("cancel", "job_none"), "job_none"),
        (("jobs", "--state", "lost"), "query.state"),
        (("jobs", "--url", "here"), "expected an address such as http://127.0.0.1:8765, found 'here'"),
        (("jobs", "--url", "http://127.0.0.1:9"), "start the service with `autoprune serve`"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(arguments: tuple[str, ...], expected: str, model: Path) -> None:
    started = time.monotonic()
    stdout, stderr = run(*(text.format(model=model) for text in arguments), code=2)
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert expected in stderr
    assert stderr.count("\n") == 1
    assert time.monotonic() - started < 30  # nothing is retried


def test_submit_has_the_options_of_search() -> None:
    theirs, own = signature(search).parameters, signature(submit).parameters
    assert set(theirs) - set(own) == {"output", "as_json", "cluster"}
    assert set(own) - set(theirs) == {"wait", "url"}
    changed = {name for name in own if name in theirs and own[name] != theirs[name]}
    assert changed == {"continue_from", "amc_agent"}
    assert all(own[name].default == theirs[name].default for name in changed)
