"""Studies from the command line and over REST: what they measure, leave, refuse and show."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from autoprune.criteria.catalog import CRITERIA
from autoprune.errors import AutopruneError, Cancelled
from autoprune.service.cli.app import app
from autoprune.service.cli.study import oracle, schedule, sensitivity
from autoprune.service.client.client import Client
from autoprune.service.client.errors import ClientError
from autoprune.service.client.job import Study
from autoprune.service.pipeline.job_files import NOTEBOOK
from autoprune.service.settings import Settings
from autoprune.service.specs.progress import Progress
from autoprune.service.specs.reading import SpecError, read_as
from autoprune.service.specs.study_spec import StudySpec
from autoprune.service.studies.run import run_study
from autoprune.service.studies.study_result import StudyResult
from tests.service.live_service import Live, images_npz, in_process, in_thread, npz, tiny_onnx

SMALL = {"dataset": "digits", "fit_images": 200, "search_images": 100}
FEW = {
    "sensitivity": {"steps": 2, "recoveries": ["none", "reconstruction"]},
    "oracle": {"criteria": ["l2", "taylor-gate", "obs"], "channels": 4, "images": 64},
    "schedule": {"rounds": 2, "epochs": 1, "repeats": 2, "kept": 0.6, "criterion": "l1"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    path.write_bytes(tiny_onnx())
    return path


def spec_of(study: str, model: Path, **changes: object) -> StudySpec:
    return read_as(StudySpec, {"study": study, "model": str(model), **SMALL, study: FEW[study], **changes})


@pytest.mark.parametrize("study", FEW)
def test_a_study_leaves_a_document_a_table_and_a_report(study: str, model: Path, tmp_path: Path) -> None:
    said: list[Progress] = []
    result = run_study(spec_of(study, model), tmp_path, progress=said.append)
    assert [each.stage for each in said][-2:] == ["study", "done"]
    assert StudyResult.model_validate_json((tmp_path / "study.json").read_bytes()) == result
    rows = list(csv.DictReader(io.StringIO((tmp_path / "study.csv").read_text())))
    lines = {
        "sensitivity": sum(len(curve.removed) for curve in result.curves),
        "oracle": 3 * (2 + 2),  # criteria x (all, normalised, two groups)
        "schedule": 2 * (1 + 2),
    }
    assert len(rows) == lines[study]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert figures
    assert all(f'id="{element}"' in text and figure["data"] for element, figure in figures.items())
    assert "tiny.onnx" in text
    assert str(model.parent) not in text


def test_a_study_goes_on_where_it_was_stopped(model: Path, tmp_path: Path) -> None:
    spec, said = spec_of("sensitivity", model), list[Progress]()
    with pytest.raises(Cancelled):
        run_study(spec, tmp_path / "a", progress=said.append, should_stop=lambda: len(said) > 4)
    noted = (tmp_path / "a" / NOTEBOOK).read_text().count("\n")
    assert noted > 2
    assert not (tmp_path / "a" / "study.json").exists()
    resumed, whole = run_study(spec, tmp_path / "a"), run_study(spec, tmp_path / "b")
    assert resumed.model_copy(update={"seconds": 0}) == whole.model_copy(update={"seconds": 0})
    assert (tmp_path / "a" / NOTEBOOK).read_text().count("\n") > noted


def test_without_labels_there_are_curves_of_agreement_and_no_oracle(model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images.npz"
    images.write_bytes(npz(images=np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)))
    unlabelled = {"dataset": str(images), "fit_images": 100, "search_images": 50}
    result = run_study(spec_of("sensitivity", model, **unlabelled), tmp_path / "curves")
    assert (result.labels, {curve.quality[0] for curve in result.curves}) == (False, {1.0})
    for study in ("oracle", "schedule"):
        with pytest.raises(AutopruneError, match="needs labels"):
            run_study(spec_of(study, model, **unlabelled), tmp_path / study)


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("sensitivity", {"groups": ["conv9"]}, "conv1"),
        ("sensitivity", {"criterion": "bn-gamma"}, "trained batch norm"),
        ("oracle", {"criteria": ["bn-gamma"]}, "trained batch norm"),
    ],
)
def test_what_cannot_be_studied_is_refused(
    study: str, options: dict[str, object], message: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(AutopruneError, match=message):
        run_study(spec_of(study, model, **{study: options}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"oracle": {"channels": 1}}, "oracle.channels"),
        ({"oracle": {"criteria": ["l3"]}}, "oracle.criteria"),
        ({"schedule": {"criterion": "obs"}}, "schedule.criterion"),
        ({"schedule": {"rounds": 1}}, "schedule.rounds"),
        ({"study": "sensibility"}, "study"),
        ({"budget": "macs=50%"}, "budget"),
    ],
)
def test_settings_that_cannot_be_read_are_named(changes: dict[str, object], where: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_as(StudySpec, {"study": "oracle", "model": "a.onnx", "dataset": "digits", **changes})
    assert [problem["where"] for problem in caught.value.problems] == [where]


def test_the_command_line_studies(model: Path, tmp_path: Path) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        shared = (model, "--data", "digits", "--fit-images", 200, "--search-images", 100, "-o", tmp_path / "out")
        found = CliRunner().invoke(app, ["study", *map(str, (*arguments, *shared))], catch_exceptions=False)
        assert found.exit_code == code, found.output
        return found.output if code else found.stdout

    text = run("oracle", "--channels", 0, "--loss-images", 50, "--criterion", "l2", "--criterion", "fisher")
    assert "report.html" in text
    assert "ranks channels most like the oracle" in text
    result = StudyResult.model_validate_json((tmp_path / "out" / "study.json").read_bytes())
    assert result.oracle is not None
    assert {name: len(changes) for name, changes in result.oracle.changes.items()} == {"conv1": 8, "conv2": 8}
    assert "holds the results of a job with other settings" in run("sensitivity", "--steps", 1, code=2)
    (tmp_path / "out" / "study.json").unlink()
    curves = json.loads(run("sensitivity", "--steps", 1, "--recovery", "none", "--group", "conv2", "--json"))["curves"]
    assert [(curve["group"], curve["recovery"], curve["kept"]) for curve in curves] == [("conv2", "none", [8, 4])]


@pytest.mark.parametrize("command", [sensitivity, oracle, schedule])
def test_the_command_line_has_all_options_with_the_same_defaults(command: Callable[..., None]) -> None:
    spec = StudySpec(study="oracle", model="a.onnx", dataset="digits")
    own = {**dict(spec), **dict(getattr(spec, command.__name__))}
    parameters = dict(signature(command).parameters)
    for name in ("ctx", "output", "weights", "as_json"):
        del parameters[name]
    assert set(parameters) == set(own) - {"study", "sensitivity", "oracle", "schedule"}
    for name, parameter in parameters.items():
        if parameter.default not in (None, parameter.empty):
            assert parameter.default == own[name], name


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that accepts jobs and runs none."""
    with in_thread(Settings(tmp_path_factory.mktemp("waiting") / "home", run_jobs=False)) as service:
        yield service


def submit(live: Live, study: str = "oracle", **changes: object) -> dict[str, Any]:
    """Submit a study that must be accepted."""
    uploaded = live.post_model(tiny_onnx()).json()["id"]
    body = {"study": study, "model": uploaded, **SMALL, study: FEW[study], **changes}
    answer = live.client.post("/v1/studies", json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/studies/{document['id']}"
    return document


def test_a_study_goes_through_in_the_service_s_own_processes(tmp_path: Path) -> None:
    with in_process(Settings(tmp_path / "home")) as (live, _):
        study = submit(live)
        done = live.finished(study["id"], 240, "studies")
        assert (done["state"], done["error"], done["progress"]["stage"]) == ("succeeded", None, "done")
        with Client(live.url) as client:
            job = client.job(study["id"])
            assert isinstance(job, Study)
            assert [path.name for path in job.download(tmp_path / "files")] == [
                "report.html",
                "study.csv",
                "study.json",
            ]
            found = job.study()
            assert (found.study, found.model.rpartition("/")[2]) == ("oracle", "tiny.onnx")
            with pytest.raises(ClientError, match="delivers no network"):
                job.result()
            assert [each.id for each in client.studies()] == [study["id"]]
        events = live.client.get(f"/v1/studies/{study['id']}/events").text
        assert '"state":"succeeded"' in events
        page = live.client.get(f"/studies/{study['id']}").text
        assert f"/v1/studies/{study['id']}/artifacts/report.html" in page
        assert str(live.settings.home) not in (tmp_path / "files" / "study.json").read_text()


def test_studies_are_listed_cancelled_and_told_apart_from_jobs(waiting: Live) -> None:
    study = submit(waiting, "sensitivity")
    assert study["id"].startswith("std_")
    assert [each["id"] for each in waiting.client.get("/v1/studies?state=queued").json()] == [study["id"]]
    for address in (f"/v1/jobs/{study['id']}", f"/v1/comparisons/{study['id']}", "/v1/studies/std_none"):
        answer = waiting.client.get(address)
        assert answer.status_code == 404
    assert "GET /v1/studies lists them" in answer.json()["detail"]
    assert "sensitivity" in waiting.client.get("/").text
    page = waiting.client.get(f"/studies/{study['id']}")
    assert (page.status_code, "Cancel this study" in page.text) == (200, True)
    assert waiting.client.post(f"/v1/studies/{study['id']}/cancel").json()["state"] == "cancelled"


def test_what_cannot_succeed_is_refused_before_it_is_queued(waiting: Live) -> None:
    uploaded = waiting.post_model(tiny_onnx()).json()["id"]
    images = waiting.post_dataset(images_npz(), "images.npz").json()["id"]
    body = {"study": "oracle", "model": uploaded, "dataset": images}
    cases: list[tuple[dict[str, object], str]] = [
        ({"oracle": {"criteria": ["bn-gamma"]}}, "trained batch norm"),
        ({"fit_images": 1_000}, "images"),
        ({"dataset": "dat_unknown"}, "expected 'digits' or the id of an uploaded dataset"),
        ({"study": "sensitivity", "sensitivity": {"groups": ["conv9"]}}, "conv1"),
        ({"colour": "red"}, "body.colour"),
    ]
    for changes, message in cases:
        answer = waiting.client.post("/v1/studies", json={**body, **changes})
        assert (answer.status_code, message in answer.json()["detail"]) == (422, True), answer.text


def test_the_catalogue_of_criteria_is_served(waiting: Live) -> None:
    listed = waiting.client.get("/v1/criteria").json()
    assert [each["name"] for each in listed] == list(CRITERIA)
    assert next(each for each in listed if each["name"] == "taylor-gate")["arxiv"] == "1906.10771"
