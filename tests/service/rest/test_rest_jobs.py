"""Jobs over REST: what is refused before it is queued, and what is shown of what is queued."""

import json

import httpx
import numpy as np
import pytest

from autoprune.service.specs.job_spec import JobSpec, read_spec
from autoprune.service.specs.reading import SpecError
from tests.service.live_service import Live, images_npz, images_zip, npz, tiny_onnx

BLANK = np.zeros((30, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(live: Live) -> str:
    return str(live.post_model(tiny_onnx()).json()["id"])


@pytest.fixture(scope="module")
def ids(live: Live) -> dict[str, str]:
    uploads = {
        "colour": live.post_model(tiny_onnx(image=(3, 16, 16)), "colour.onnx"),
        "two classes": live.post_model(tiny_onnx(classes=2), "two.onnx"),
        "thirty": live.post_dataset(images_npz(30), "thirty.npz"),
        "large": live.post_dataset(images_npz(30, shape=(9, 9)), "large.npz"),
        "unlabelled": live.post_dataset(npz(images=BLANK), "unlabelled.npz"),
        "floats": live.post_dataset(npz(images=BLANK / np.float32(255), labels=np.arange(30) % 10), "floats.npz"),
        "three": live.post_dataset(images_npz(3), "three.npz"),
        "pets": live.post_dataset(images_zip(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]), "pets.zip"),
    }
    return {name: answer.json()["id"] for name, answer in uploads.items()}


def refused(answer: httpx.Response, status: int = 422) -> str:
    """Return the detail of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"budget": "macs=0"}, "above 0"),
        ({"budget": "macs=200%"}, "less than 100%"),
        ({"budget": "macs=-5%"}, "above 0"),
        ({"budget": "macs=0.01%"}, "smallest reachable value is"),
        ({"budget": "energy=50%"}, "unknown budget quantity 'energy'"),
        ({"budget": "half"}, "cannot read budget 'half'"),
        ({"budget": "macs=nan%"}, "cannot read budget"),
        ({"budget": 50}, "body.budget: expected a text, in quotes (found 50)"),
        ({"model": "mdl_unknown"}, "expected the id of an uploaded model"),
        ({"model": "/etc/passwd"}, "expected the id of an uploaded model"),
        ({"dataset": "dat_unknown"}, "expected 'digits' or the id of an uploaded dataset"),
        ({"dataset": "../../x.npz"}, "expected 'digits' or the id of an uploaded dataset"),
        ({"report_dataset": "dat_unknown"}, "report_dataset: expected 'digits' or the id"),
        ({"policies": ["unform"]}, "Did you mean 'uniform'?"),
        ({"policies": []}, "body.policies: expected at least 1 item(s) (found [])"),
        ({"policies": ["uniform", "uniform"]}, "each policy once"),
        ({"criterion": "l3"}, "body.criterion: unknown criterion 'l3'. Known: apoz, bn-gamma, "),
        ({"criterion": "bn-gamma"}, "needs a trained batch norm behind every pruned group; group"),
        ({"architecture": "resnet20_cifar"}, "architecture: expected what the model was uploaded as"),
        ({"evaluations": 0}, "body.evaluations"),
        ({"evaluations": "10"}, "body.evaluations: expected a whole number, without quotes (found '10')"),
        ({"evaluations": True}, "body.evaluations: expected a whole number (found True)"),
        ({"max_ratio": 1.0}, "body.max_ratio"),
        ({"round_to": 0}, "body.round_to"),
        ({"seed": -1}, "body.seed"),
        ({"opset": 9}, "body.opset"),
        ({"threads": 10_000}, "body.threads"),
        ({"normalization": "magic"}, "normalization: expected one of"),
        ({"normalization": "imagenet"}, "expected 1 mean(s) and standard deviation(s), one per channel"),
        ({"normalization": "0.5,0.5/1,1"}, "found 2 of each"),
        ({"fit_images": 1000, "search_images": 797}, "too few images: 1797 for the splits fit 1000, search 797"),
        ({"fit_images": 1}, "expected at least 2 fit images"),
        ({"fit_images": 1, "reconstruction": False, "criterion": "l1", "policies": ["uniform"]}, "at least 2 fit"),
        ({"search_images": 100, "screening_images": 100}, "expected fewer than the 100 search images, found 100"),
        ({"policies": ["sensitivity"], "evaluations": 1}, "policy 'sensitivity' needs at least"),
        ({"policies": ["netadapt"], "evaluations": 1}, "policy 'netadapt' needs at least"),
        ({"policies": ["metapruning"], "evaluations": 1}, "policy 'metapruning' needs at least 2 evaluations"),
        ({"policies": ["nsga2"], "front": {"least": "macs=90%"}}, "macs"),
        ({"policies": ["nsga2"], "front": {"least": "macs=0.01%"}}, "macs"),
        ({"policies": ["nsga2"], "front": {"least": "macs=30%,params=30%"}}, "expected one quantity"),
        ({"policies": ["nsga2"], "front": {"least": "half"}}, "cannot read budget 'half'"),
        ({"finetune": {"learning_rate": 0}}, "body.finetune.learning_rate"),
        ({"finetune": {"lr": 0.1}}, "body.finetune.lr: there is no such setting; there are: augment, batch_size, "),
        ({"policies": ["amc"], "amc": {"reward": "accuracy"}}, "body.amc.reward"),
        ({"policies": ["amc"], "amc": {"free_episodes": -1}}, "body.amc.free_episodes"),
        ({"policies": ["amc", "uniform"], "amc": {"experience": True}}, "needs a policy before it"),
        ({"policies": ["amc"], "amc": {"agent": "/etc/passwd"}}, "amc.agent: expected the id of a job that succeeded"),
        ({"policies": ["amc"], "amc": {"agent": "../../agent.safetensors"}}, "amc.agent: expected the id of a job"),
        ({"front": {"least": "macs=30%"}}, "body.front: a front is what policy 'nsga2' looks for"),
        ({"policies": ["nsga2"], "front": {"least": "macs=30%", "points": 0}}, "body.front.points"),
        ({"budgets": "macs=50%"}, "body.budgets: there is no such setting; did you mean 'budget'?"),
        ({"budget": "macs=50%\ud800"}, "body.budget"),
    ],
)
def test_bad_jobs_are_refused_before_they_are_queued(
    live: Live, model: str, setting: dict[str, object], message: str
) -> None:
    spec = {"model": model, "dataset": "digits", "budget": "macs=50%", **setting}
    before = live.client.get("/v1/jobs").json()
    json_headers = {"content-type": "application/json"}
    assert message in refused(live.client.post("/v1/jobs", content=json.dumps(spec), headers=json_headers))
    assert live.client.get("/v1/jobs").json() == before


def test_criteria_that_need_labels_are_refused_without(live: Live, model: str) -> None:
    unlabelled = live.post_dataset(npz(images=np.zeros((60, 8, 8), dtype=np.uint8)), "unlabelled.npz").json()["id"]
    spec = {"model": model, "dataset": unlabelled, "budget": "macs=50%", "policies": ["uniform"]}
    answer = live.client.post("/v1/jobs", json={**spec, "criterion": "taylor"})
    assert "criterion 'taylor' needs labels, the images have none" in refused(answer)
    assert answer.json()["type"] == "urn:autoprune:problem:criterion-error"
    assert live.submit(**spec, criterion="apoz")["state"] == "queued"
    assert live.submit(**{**spec, "dataset": "digits"}, criterion="taylor")["state"] == "queued"


def test_models_and_images_must_fit(live: Live, model: str, ids: dict[str, str]) -> None:
    def posted(**spec: object) -> str:
        return refused(live.client.post("/v1/jobs", json={"budget": "macs=50%", **spec}))

    assert "found [1, 8, 8]" in posted(model=ids["colour"], dataset="digits")
    assert "expected images of shape [1, 8, 8]" in posted(model=model, dataset=ids["large"])
    assert "tells 2 classes apart, the dataset has 10" in posted(model=ids["two classes"], dataset="digits")
    assert "31 report images were asked for, it has 30" in posted(
        model=model, dataset=ids["thirty"], report_dataset=ids["thirty"], report_images=31
    )
    report = {"model": model, "dataset": ids["thirty"]}
    assert "unlabelled.npz has no labels, thirty.npz has" in posted(**report, report_dataset=ids["unlabelled"])
    assert "expected values of uint8" in posted(**report, report_dataset=ids["floats"])
    classes = posted(model=model, dataset="digits", report_dataset=ids["pets"])
    assert "expected the classes of digits in their order" in classes
    assert "found 1 of them" in posted(model=model, dataset=ids["three"])
    assert live.submit(model=ids["two classes"], dataset=ids["pets"], budget="macs=50%")["state"] == "queued"


NO_JOBS = [b"", b"{", b"[]", b"null", b'{"seed": 1e999}', b"[" * 100_000, b'{"seed": ' + b"9" * 9999 + b"}"]


@pytest.mark.parametrize("content", NO_JOBS, ids=range(len(NO_JOBS)))
def test_bodies_that_are_no_job_are_refused(live: Live, content: bytes) -> None:
    answer = live.client.post("/v1/jobs", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    refused(answer, answer.status_code)


def test_accepted_jobs_are_shown_and_can_be_cancelled(live: Live, model: str) -> None:
    job = live.submit(model=model, dataset="digits", budget="macs=50%", evaluations=7, finetune={"batch_size": 32})
    assert job["state"] == "queued"
    assert (job["spec"]["evaluations"], job["spec"]["policies"]) == (7, ["uniform", "sensitivity", "exact"])
    assert job["spec"]["finetune"]["batch_size"] == 32
    assert job["progress"] is job["error"] is job["started_at"] is None
    assert live.job(job["id"]) == job
    assert live.client.get("/v1/jobs?state=queued&limit=1").json() == [job]
    assert live.client.get(f"/v1/jobs/{job['id']}/artifacts").json() == []
    for name in ("result.json", "..%2f..%2fautoprune.sqlite", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd"):
        assert "is queued" in refused(live.client.get(f"/v1/jobs/{job['id']}/artifacts/{name}"), 409)
    for _ in range(2):
        answer = live.client.post(f"/v1/jobs/{job['id']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert job["id"] not in [other["id"] for other in live.client.get("/v1/jobs?state=queued").json()]
    refused(live.client.post("/v1/jobs/none/cancel"), 404)


def test_specs_of_the_command_line_name_every_wrong_setting() -> None:
    with pytest.raises(SpecError) as caught:
        read_spec({"model": "m.onnx", "dataset": 3, "budget": "macs=50%", "max_ratio": 2, "colour": "red"})
    assert [problem["where"] for problem in caught.value.problems] == ["dataset", "max_ratio", "colour"]
    spec = read_spec({"model": "m.onnx", "dataset": "digits", "budget": "macs=50%", "policies": ["uniform"]})
    assert spec == JobSpec(model="m.onnx", dataset="digits", budget="macs=50%", policies=("uniform",))
    assert JobSpec.model_validate(spec.model_dump(mode="json")) == spec
