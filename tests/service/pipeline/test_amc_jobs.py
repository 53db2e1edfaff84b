"""Policy amc in whole jobs: what it leaves, what it starts from, and that a killed job ends with the same agent."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plotly.graph_objects import Figure
from safetensors import safe_open
from typer.testing import CliRunner

from autoprune.envs.rewards import REWARDS
from autoprune.errors import SearchError
from autoprune.files import file_sha256
from autoprune.search.driver import run_search
from autoprune.search.journal import Journal
from autoprune.search.uniform import Uniform
from autoprune.service.cli.app import app
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.searchers import Found, experience
from autoprune.service.reports.amc_figures import turns
from autoprune.service.reports.job_report import figures
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.results.wording import verdicts
from autoprune.service.specs.amc_options import AGENT_ARTIFACT, LOG_FOLDER, AmcOptions
from autoprune.service.specs.job_spec import JobSpec, read_spec
from tests.search.small_problems import FormulaEvaluator, small_problem

POLICIES = ("uniform", "random", "amc")
EVALUATIONS = 12
EXPERIENCE = 1 + EVALUATIONS


def spec_of(model: Path, amc: dict[str, object], **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model), "dataset": "digits", "fit_images": 400, "budget": "macs=50%", "policies": POLICIES,
        "evaluations": EVALUATIONS, "seed": 3, "refit": False, "amc": amc,
    }  # fmt: skip
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path]:
    """Return the result of an undisturbed job, and its folder."""
    folder = tmp_path_factory.mktemp("job")
    return run_job(spec_of(model, {"experience": True, "tensorboard": True}), folder), folder


def amc_of(result: JobResult) -> PolicyOutcome:
    """Return what amc found."""
    return next(outcome for outcome in result.outcomes if outcome.policy == "amc")


def logs(folder: Path) -> list[Path]:
    """Return the files that TensorBoard reads."""
    return list((folder / LOG_FOLDER).glob("events.out.tfevents.*"))


def test_amc_is_a_policy_like_any_other(job: tuple[JobResult, Path]) -> None:
    result, folder = job
    found = amc_of(result)
    assert found.cost["macs"] <= result.limits["macs"]
    assert all(trial.cost["macs"] <= result.limits["macs"] for trial in found.trials)
    assert found.evaluations == len(found.trials) == EVALUATIONS
    assert found.certificate["holds"] is True
    assert found.artifacts["agent"] == AGENT_ARTIFACT
    with safe_open(folder / AGENT_ARTIFACT, "np") as file:
        about = json.loads(file.metadata()["agent"])
    assert about["episodes"] == EXPERIENCE + EVALUATIONS
    assert about["model_sha256"] == result.model_sha256
    assert len(logs(folder)) == 1
    assert all("agent" not in outcome.artifacts and outcome.amc is None for outcome in result.outcomes[:-1])


def test_what_it_knew_before_is_said(job: tuple[JobResult, Path]) -> None:
    found = amc_of(job[0]).amc
    assert found is not None
    assert (found.experience, found.warmup, found.episodes, found.agent) == (EXPERIENCE, 0, EVALUATIONS, None)
    assert f"amc learned from {EXPERIENCE} trials of the policies before it first" in " ".join(verdicts(job[0]))


def test_killed_in_mid_search_and_run_again_ends_with_the_same_agent(
    job: tuple[JobResult, Path], model: Path, tmp_path: Path
) -> None:
    """The command line, killed when amc has a few trials in the journal and run again, ends as the undisturbed job."""
    result, folder = job
    arguments = [
        "search", str(model), "--data", "digits", "--budget", "macs=50%", "--evaluations", str(EVALUATIONS),
        *(word for name in POLICIES for word in ("--policy", name)), "--seed", "3", "--no-refit", "--fit-images", "400",
        "--amc-experience", "--amc-tensorboard", "--output", str(tmp_path),
    ]  # fmt: skip
    command = [sys.executable, "-m", "autoprune.service.cli.app", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and recorded(tmp_path) < EXPERIENCE + 4:
        assert time.monotonic() < deadline, "the search does not get on"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the search ended before it could be killed"
    assert logs(tmp_path)
    assert not (tmp_path / AGENT_ARTIFACT).exists()
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    resumed = JobResult.model_validate_json((tmp_path / "result.json").read_text())
    assert trials_of(resumed) == trials_of(result)
    assert amc_of(resumed).amc == amc_of(result).amc
    assert amc_of(resumed).cached >= 4
    assert file_sha256(tmp_path / AGENT_ARTIFACT) == file_sha256(folder / AGENT_ARTIFACT)
    assert len(logs(tmp_path)) == 1  # the resumed search logs from its first episode


def trials_of(result: JobResult) -> list[dict[str, object]]:
    return [trial.model_dump(exclude={"seconds"}) for outcome in result.outcomes for trial in outcome.trials]


def test_an_agent_goes_on_in_a_search_with_another_budget(
    job: tuple[JobResult, Path], model: Path, tmp_path: Path
) -> None:
    agent = str(job[1] / AGENT_ARTIFACT)
    spec = spec_of(model, {"agent": agent}, policies=["amc"], budget="params=60%", evaluations=3, warm_start=True)
    result = run_job(spec, tmp_path)
    found = amc_of(result).amc
    assert found is not None
    assert (found.first, found.episodes, found.warmup, found.agent) == (2, 2, 0, agent)
    assert any("went on with an agent that was trained before" in text for text in verdicts(result))
    with safe_open(tmp_path / AGENT_ARTIFACT, "np") as file:
        assert json.loads(file.metadata()["agent"])["episodes"] == EXPERIENCE + EVALUATIONS + 2


def test_an_agent_that_the_job_would_overwrite_is_refused(
    job: tuple[JobResult, Path], model: Path, tmp_path: Path
) -> None:
    (tmp_path / AGENT_ARTIFACT).parent.mkdir()
    shutil.copy(job[1] / AGENT_ARTIFACT, tmp_path / AGENT_ARTIFACT)
    with pytest.raises(SearchError, match="lies where this job leaves its own"):
        run_job(spec_of(model, {"agent": str(tmp_path / AGENT_ARTIFACT)}, policies=["amc"]), tmp_path)
    assert file_sha256(tmp_path / AGENT_ARTIFACT) == file_sha256(job[1] / AGENT_ARTIFACT)


def test_an_early_stop_is_said(model: Path, tmp_path: Path) -> None:
    amc: dict[str, object] = {"stop_early": True, "warmup_episodes": 1, "fill": True}
    spec = spec_of(model, amc, policies=["uniform", "amc"], evaluations=33, budget="macs=20%")
    result = run_job(spec, tmp_path)
    found = amc_of(result)
    assert found.amc is not None
    assert found.amc.stopped_below is not None
    assert found.amc.episodes == found.evaluations < 33
    said = [text for text in verdicts(result) if "stopped after" in text]
    assert len(said) == 1
    expected = r"amc stopped after (\d+) episodes and \1 of 33 evaluations: the rest .* less than \d\.\d points, .*"
    assert re.fullmatch(expected, said[0])


@pytest.mark.parametrize(
    ("changes", "episodes"), [({"evaluations": 3}, 3), ({"evaluations": 1, "warm_start": True}, 0)]
)
def test_an_agent_that_was_never_asked_is_said(
    model: Path, tmp_path: Path, changes: dict[str, object], episodes: int
) -> None:
    result = run_job(spec_of(model, {"warmup_episodes": 50}, policies=["uniform", "amc"], **changes), tmp_path)
    found = amc_of(result).amc
    assert found is not None
    assert (found.episodes, found.warmup) == (episodes, 50)
    assert sum(f"its {episodes} episodes were all of the warm-up" in text for text in verdicts(result)) == 1
    for element, _, _, figure in figures(result):
        if element == "episodes":
            Figure(json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps(figure))), skip_invalid=False)


def test_pictures_only_where_amc_ran(job: tuple[JobResult, Path]) -> None:
    result, _ = job
    drawn = {element: figure for element, _, _, figure in figures(result)}
    for element in ("episodes", "density"):
        themed = json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps(drawn[element])))
        Figure(themed, skip_invalid=False)
    names = {trace["name"] for trace in drawn["episodes"]["data"]}  # type: ignore[attr-defined]
    assert names == {"amc, episodes", "mean of the last 20", "best of uniform", "best of random"}
    assert "3x3" in json.dumps(drawn["density"])
    without = result.model_copy(update={"outcomes": result.outcomes[:-1], "best": "random"})
    assert not {"episodes", "density"} & {element for element, *_ in figures(without)}


@pytest.mark.parametrize(
    ("values", "peaks", "crests"),
    [
        ([], [], []),
        ([1, 2], [], []),
        ([1, 3, 2], [1], []),
        ([3, 1, 1, 1, 2, 0, 5], [4], [2, 5]),
        ([1, 2, 2, 3, 3, 2], [3], []),  # a step on the way up is no turn
        ([2, 2, 2], [], []),
    ],
)
def test_peaks_and_crests(values: list[float], peaks: list[int], crests: list[int]) -> None:
    assert turns(values) == (peaks, crests)


def test_a_reward_with_a_cost_is_drawn_as_such(job: tuple[JobResult, Path]) -> None:
    result, _ = job
    found = amc_of(result)
    assert found.amc is not None
    changed = found.model_copy(update={"amc": found.amc.model_copy(update={"reward": "-error*log(macs)", "warmup": 3})})
    outcomes = [*result.outcomes[:-1], changed]
    titles = {
        element: (title, figure)
        for element, title, _, figure in figures(result.model_copy(update={"outcomes": outcomes}))
    }
    title, figure = titles["episodes"]
    assert title == "Reward by episode"
    drawn = Figure(json.loads(re.sub(r'"--[a-z0-9]+"', '"#123456"', json.dumps(figure))), skip_invalid=False)
    last = found.trials[-1]
    assert drawn.data[0].y[-1] == pytest.approx(-(1 - last.objective) * math.log(last.cost["macs"]))
    assert (drawn.layout.shapes[0].x0, drawn.layout.shapes[0].x1) == (0.5, 3.5)


def test_experience_is_what_was_scored_as_the_agents_own_episodes_are(model: Path) -> None:
    problem = small_problem(measured=False)
    with Journal("sqlite://") as journal:
        found = Found(run_search(problem, FormulaEvaluator(problem), Uniform(problem), evaluations=1, journal=journal))
    before = {"uniform": found, "netadapt": found}
    spec = {"policies": ["uniform", "netadapt", "amc"]}
    assert experience(spec_of(model, {"experience": True}, **spec), before) == 2 * list(found.result.trials)
    trained = spec_of(model, {"experience": True}, short_term_steps=1, **spec)
    assert experience(trained, before) == list(found.result.trials)
    assert experience(spec_of(model, {}, **spec), before) == []


def test_options_are_those_of_the_search() -> None:
    assert AmcOptions.model_validate(AmcOptions().model_dump()) == AmcOptions()
    rewards = AmcOptions.model_json_schema()["properties"]["reward"]["enum"]
    assert set(rewards) < set(REWARDS)
    assert all(REWARDS[name].quantity in (None, "macs", "params") for name in rewards)


def recorded(folder: Path) -> int:
    """Count the evaluations in a job's journal."""
    if not (folder / "journal.sqlite").exists():
        return 0
    with Journal.open(folder / "journal.sqlite") as journal:
        return len(journal)
