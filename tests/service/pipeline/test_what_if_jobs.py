"""Other budgets asked of finished jobs, and jobs that go on from earlier ones: nothing known is evaluated again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from autoprune.errors import SearchError
from autoprune.search.evidence import Evidence
from autoprune.search.journal import Journal
from autoprune.service.pipeline.job_files import EVIDENCE, JOURNAL
from autoprune.service.pipeline.run import run_job
from autoprune.service.pipeline.what_if import MEANING, IncludesView, WhatIfView, what_if
from autoprune.service.results.job_result import JobResult, PolicyOutcome
from autoprune.service.results.wording import verdicts
from autoprune.service.specs.job_spec import JobSpec, read_spec
from tests.service.commands import said

EVALUATIONS = 16


def spec_of(model: Path, **changes: object) -> JobSpec:
    values: dict[str, object] = {
        "model": str(model), "dataset": "digits", "fit_images": 400, "budget": "macs=40%", "refit": False,
        "policies": ["uniform", "random", "exact"], "evaluations": EVALUATIONS, "precision": "fp32",
    }  # fmt: skip
    return read_spec(values | changes)


@pytest.fixture(scope="module")
def job(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[JobResult, Path]:
    """Return the result of a job within 40% of the MACs, and its folder."""
    folder = tmp_path_factory.mktemp("job")
    return run_job(spec_of(model), folder), folder


def test_the_command_answers_for_several_budgets(
    job: tuple[JobResult, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result, folder = job
    monkeypatch.chdir(tmp_path)  # no file of the model or the images is looked for
    monkeypatch.setattr(torch.nn.Module, "__call__", None)  # nor is anything run
    budgets = ("macs=60%", "macs=40%", "macs=30%,params=50%")
    asked = [word for budget in budgets for word in ("--budget", budget)]
    view = WhatIfView.model_validate_json(said("what-if", folder, *asked, "--json"))
    assert view == what_if(folder / EVIDENCE, budgets)
    loose, same, tight = view.budgets
    assert (view.metric, view.unpruned, view.images) == ("top1", result.search.top1, result.search.images)
    exact = next(outcome for outcome in result.outcomes if outcome.policy == "exact")
    assert same.measured
    assert same.score == exact.trials[0].objective
    assert same.cost["macs"] == exact.trials[0].cost["macs"]
    assert tight.low < tight.score < tight.high
    assert loose.low < loose.score <= loose.high
    assert tight.score <= loose.score
    assert tight.cost["macs"] <= 0.3 * result.cost["macs"]
    assert tight.cost["params"] <= 0.5 * result.cost["params"]
    assert tight.within is None
    assert loose.within is not None
    assert loose.within.score == max(t.objective for outcome in result.outcomes for t in outcome.trials)
    assert view.gain is not None
    assert view.gain.gain == pytest.approx(loose.within.score - same.score)
    shown = " ".join(said("what-if", folder, *asked).split())
    assert view.includes == IncludesView(reconstruction=True, refit=False, finetuning=False)
    assert " ".join(MEANING.split()) in shown
    for text in ("90% interval", "evaluated", "assumes (channels kept): stem.conv", "searching gained", *budgets):
        assert text in shown, text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{job}", "--budget", "macs=1%"), "the smallest reachable value is"),
        (("{job}", "--budget", "latency=10ms"), "the job had no latency table"),
        (("{job}", "--budget", "macs"), "cannot read budget"),
        (("{job}/exact", "--budget", "macs=50%"), "give the folder of such a job"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    job: tuple[JobResult, Path], arguments: tuple[str, ...], message: str
) -> None:
    stderr = said("what-if", *(text.format(job=job[1]) for text in arguments), code=2)
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) == 1
    assert message in stderr


def test_a_looser_budget_begins_with_what_is_known(job: tuple[JobResult, Path], model: Path, tmp_path: Path) -> None:
    result, folder = job
    spec = spec_of(model, budget="macs=60%", continue_from=str(folder), precision="auto")
    continued = run_job(spec, tmp_path)
    before, after = Evidence.load(folder / EVIDENCE), Evidence.load(tmp_path / EVIDENCE)
    assert after.precision == before.precision  # left open, so as the evaluations that are reused
    known, tried = ({trial.kept for trial in after.trials if trial.own is own} for own in (False, True))
    assert known == {trial.kept for trial in before.trials}
    exact = next(outcome for outcome in continued.outcomes if outcome.policy == "exact")
    best = max(trial.objective for outcome in result.outcomes for trial in outcome.trials)
    assert exact.trials[0].objective == best
    assert max(trial.objective for trial in exact.trials) >= best
    assert all(trial.cost["macs"] <= continued.limits["macs"] for trial in exact.trials)
    assert max(trial.cost["macs"] for trial in exact.trials[1:3]) > result.limits["macs"]  # brought to the new budget
    assert continued.continued is not None
    assert (continued.continued.budget, continued.continued.known) == ("macs=40%", len(known))
    assert continued.continued.reused == len(known & tried) >= 1
    assert recorded(tmp_path) == len(known | tried)  # every network once, whoever evaluated it
    assert any("went on from" in text and "not evaluated again" in text for text in verdicts(continued))
    assert json.loads((tmp_path / "result.json").read_text())["continued"]["reused"] >= 1


def trials(outcomes: Sequence[PolicyOutcome]) -> list[dict[str, object]]:
    """What was tried and found; how long it took differs from run to run."""
    return [trial.model_dump(exclude={"seconds"}) for outcome in outcomes for trial in outcome.trials]


def test_the_same_job_continued_evaluates_nothing(job: tuple[JobResult, Path], model: Path, tmp_path: Path) -> None:
    result, folder = job
    again = run_job(spec_of(model, policies=["uniform", "random"], continue_from=str(folder)), tmp_path)
    assert trials(again.outcomes) == trials(result.outcomes[:2])
    assert all(outcome.cached == len(outcome.trials) for outcome in again.outcomes)
    assert recorded(tmp_path) == recorded(folder)
    resumed = run_job(spec_of(model, policies=["uniform", "random"], continue_from=str(folder)), tmp_path)
    assert resumed.continued == again.continued


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"seed": 5}, "the fit images, the search images"),
        ({"search_images": 100}, "the search images"),
        ({"include_residual": True}, "what is reconstructed"),
    ],
)
def test_a_job_with_other_evaluations_is_refused(
    job: tuple[JobResult, Path], model: Path, tmp_path: Path, changes: dict[str, object], differs: str
) -> None:
    spec = spec_of(model, **changes, continue_from=str(job[1]))
    with pytest.raises(SearchError, match=f"nothing evaluated there holds here; what differs: .*{differs}"):
        run_job(spec, tmp_path)
    assert not (tmp_path / JOURNAL).exists()


def test_a_folder_without_a_search_is_refused(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stderr = said("search", model, "--data", "digits", "--budget", "macs=30%", "--continue-from", tmp_path, "-o", out,
                 code=2)  # fmt: skip
    assert f"cannot use {tmp_path / EVIDENCE}" in stderr


def recorded(folder: Path) -> int:
    """Count the evaluations in a job's journal."""
    with Journal.open(folder / JOURNAL) as journal:
        return len(journal)
