"""Studies that jobs leave: Optuna's own command line and dashboard open them, a killed job writes them anew."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import optuna
import pytest
from optuna.trial import TrialState

from autoprune.errors import SearchError
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.policies import make_searcher
from autoprune.search.screening import Screening
from autoprune.service.pipeline.job_files import STUDIES
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.studies import study_file
from autoprune.service.results.job_result import JobResult
from autoprune.service.specs.job_spec import JobSpec, read_spec
from tests.components import require_module
from tests.search.small_problems import FormulaEvaluator, small_problem

POLICIES = ("uniform", "tpe", "nsga2")
EVALUATIONS = 20


def spec_of(model: Path) -> JobSpec:
    return read_spec(
        {
            "model": str(model), "dataset": "digits", "fit_images": 400, "budget": "macs=80%", "seed": 3,
            "refit": False, "policies": POLICIES, "evaluations": EVALUATIONS,
            "front": {"least": "macs=30%", "points": 2},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path]:
    folder = tmp_path_factory.mktemp("job")
    return run_job(spec_of(model), folder), folder


def contents(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all studies of a file, without dates."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    try:
        studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
        return {
            study.study_name: [
                (t.number, t.state, t.values, t.params, t.distributions, t.user_attrs) for t in study.get_trials()
            ]
            for study in studies
        }
    finally:
        storage.remove_session()
        storage.engine.dispose()


def command(*arguments: str) -> str:
    """Run Optuna's command line, and return what it prints."""
    program = Path(sys.executable).with_name("optuna")
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_study_holds_every_trial_as_it_was_evaluated(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    studies = contents(folder / STUDIES)
    assert set(studies) == {"tpe", "nsga2"}
    sizes = {group.name: group.units for group in result.groups}
    for outcome in result.outcomes[1:]:
        trials = studies[outcome.policy]
        assert [number for number, *_ in trials] == list(range(EVALUATIONS))
        for trial, (_, state, values, params, space, attrs) in zip(outcome.trials, trials, strict=True):
            costs = [float(trial.cost["macs"])] if outcome.policy == "nsga2" else []
            assert (state, values) == (TrialState.COMPLETE, [trial.objective, *costs])
            assert (attrs["trial"], attrs["cost"]) == (trial.number, trial.cost)
            kept = {name: round(sizes[name] * (1 - ratio)) for name, ratio in params.items()}
            assert kept == {name: attrs["kept"][name] for name in params}
            assert set(params) == set(space) == set(result.decision_groups)


def test_the_command_line_of_optuna_opens_it(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    url = f"sqlite:///{folder / STUDIES}"
    listed = json.loads(command("studies", "--storage", url, "-f", "json"))
    assert {each["name"]: each["n_trials"] for each in listed} == {"tpe": EVALUATIONS, "nsga2": EVALUATIONS}
    best = json.loads(command("best-trial", "--storage", url, "--study-name", "tpe", "-f", "json"))
    assert best["value"] == {"top-1 accuracy": max(trial.objective for trial in result.outcomes[1].trials)}
    front = json.loads(command("best-trials", "--storage", url, "--study-name", "nsga2", "-f", "json"))
    told = {(each["values"]["top-1 accuracy"], each["values"]["macs"]) for each in front}
    trials = {trial.number: trial for trial in result.outcomes[2].trials}
    assert told == {(trials[n].objective, float(trials[n].cost["macs"])) for n in result.outcomes[2].front}


def test_the_dashboard_of_optuna_shows_it(job: tuple[JobResult, Path]) -> None:
    """The real program, in a process of its own, asked over HTTP."""
    require_module("optuna_dashboard")
    _, folder = job
    program, port = Path(sys.executable).with_name("optuna-dashboard"), free_port()
    arguments = [str(program), f"sqlite:///{folder / STUDIES}", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            summaries = asked(f"http://127.0.0.1:{port}/api/studies", process)["study_summaries"]
            by_name = {each["study_name"]: each["study_id"] for each in summaries}
            assert set(by_name) == {"tpe", "nsga2"}
            shown = asked(f"http://127.0.0.1:{port}/api/studies/{by_name['nsga2']}", process)
            assert len(shown["trials"]) == EVALUATIONS
            assert "top-1 accuracy" in json.dumps(shown)
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def asked(url: str, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Return the JSON that a program answers, as soon as it does."""
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the program ended"
        assert time.monotonic() < deadline, "the program does not answer"
        try:
            answer = httpx.get(url, timeout=60)
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def test_a_killed_job_writes_the_same_studies_anew(job: tuple[JobResult, Path], model: Path, tmp_path: Path) -> None:
    """Killed while tpe searches: what the file held is replaced by the replay."""
    _, folder = job
    arguments = [
        sys.executable, "-m", "autoprune.service.cli.app", "search", str(model), "--data", "digits",
        "--fit-images", "400",
        "--budget", "macs=80%", "--seed", "3", "--no-refit", *(w for name in POLICIES for w in ("--policy", name)),
        "--evaluations", str(EVALUATIONS), "--front", "macs=30%", "--front-points", "2", "--output", str(tmp_path),
    ]  # fmt: skip
    process = subprocess.Popen(
        arguments, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 180
    while process.poll() is None and written(tmp_path / STUDIES) < 3:
        assert time.monotonic() < deadline, "the search does not get on"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the search ended before it could be killed"
    assert written(tmp_path / STUDIES) < 2 * EVALUATIONS
    run_job(spec_of(model), tmp_path)
    assert contents(tmp_path / STUDIES) == contents(folder / STUDIES)


def written(file: Path) -> int:
    """Count the trials in a file that another process writes."""
    if not file.exists():
        return 0
    connection = sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)
    try:
        return int(connection.execute("select count(*) from trials").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet, or locked
        return 0
    finally:
        connection.close()


def test_any_path_and_screened_trials(tmp_path: Path) -> None:
    problem, file = small_problem(), tmp_path / "50% of {it}? yes.sqlite"
    searcher = make_searcher("qmc", problem, seed=0, evaluations=12)
    with Journal("sqlite://") as journal, study_file(file, "qmc", problem, score="score", cost=None) as write:
        result = run_search(
            problem,
            FormulaEvaluator(problem),
            searcher,
            evaluations=12,
            journal=journal,
            batch=8,
            screening=Screening(10, audit=4, threshold=-1),
            progress=lambda done, total, trial: write(trial),
        )
    file.rename(tmp_path / "plain.sqlite")
    trials = contents(tmp_path / "plain.sqlite")["qmc"]
    pruned = {attrs["trial"] for _, state, *_, attrs in trials if state == TrialState.PRUNED}
    assert pruned == {trial.number for trial in result.trials if trial.screened_out} != set()


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    problem, file = small_problem(), tmp_path / STUDIES
    file.write_bytes(b"no database" * 1000)
    with (
        pytest.raises(SearchError, match=r"cannot write .*studies.sqlite"),
        study_file(file, "tpe", problem, score="score", cost=None),
    ):
        pass
