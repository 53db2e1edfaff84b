"""Models and datasets over REST: what is accepted, and that what is refused leaves nothing behind."""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.torch import save

from autoprune.service.settings import Settings
from autoprune.zoo.registry import build
from tests.service.live_service import Live, images_npz, images_zip, in_thread, npz, stored_files, tiny_onnx

LIMIT = 2_000_000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("uploads") / "home"
    settings = Settings(home, max_model_bytes=LIMIT, max_dataset_bytes=LIMIT, run_jobs=False)
    with in_thread(settings) as service:
        yield service


def problem(answer: httpx.Response, status: int = 422) -> str:
    """Return the detail of an error after checking its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["title"]
    assert {"type", "detail"} <= set(document)
    assert "/tmp" not in answer.text  # noqa: S108 - no path of the service
    assert ".upload-" not in answer.text
    return str(document["detail"])


def records_of(live: Live) -> tuple[list[str], list[str], list[Path]]:
    """Return everything that an upload could leave behind."""
    models = [model["id"] for model in live.client.get("/v1/models").json()]
    datasets = [dataset["id"] for dataset in live.client.get("/v1/datasets").json()]
    return models, datasets, stored_files(live.settings.home)


def test_onnx_is_read_and_kept_once(live: Live) -> None:
    content = tiny_onnx(seed=1)
    answer = live.post_model(content, "My tiny model.onnx")
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert (model["name"], model["format"], model["input_shape"]) == ("My tiny model.onnx", "onnx", [1, 8, 8])
    assert model["cost"]["macs"] == 64 * 9 * (8 + 64) + 80
    assert model["prunable_groups"] == 2
    assert live.client.get(answer.headers["location"]).json() == model
    before = records_of(live)
    again = live.post_model(content, "other name.onnx")
    assert (again.status_code, again.json()) == (200, model)
    assert records_of(live) == before


def test_safetensors_are_weights_of_an_architecture(live: Live) -> None:
    network = build("resnet20_cifar", num_classes=7, input_shape=(1, 16, 16))
    content = save({name: tensor.contiguous() for name, tensor in network.module.state_dict().items()})
    form = {"architecture": "resnet20_cifar", "num_classes": "7", "input_shape": "1,16,16"}
    answer = live.post_model(content, "weights.safetensors", **form)
    assert answer.status_code == 201, answer.text
    assert answer.json()["output_shape"] == [7]
    before = records_of(live)
    assert "weights" in problem(live.post_model(content, "w.safetensors", architecture="vgg11_bn"))
    assert "name the" in problem(live.post_model(content, "w.safetensors"))
    assert "Did you mean 'resnet20_cifar'?" in problem(
        live.post_model(content, "w.safetensors", architecture="resnet20_cifer")
    )
    assert "found '1,8'" in problem(live.post_model(content, "w.safetensors", **{**form, "input_shape": "1,8"}))
    assert "num_classes" in problem(live.post_model(content, "w.safetensors", **{**form, "num_classes": "many"}))
    assert records_of(live) == before


def test_datasets_are_looked_into(live: Live) -> None:
    arrays = live.post_dataset(images_npz(30), "digits like.npz")
    assert arrays.status_code == 201, arrays.text
    assert [arrays.json()[key] for key in ("images", "classes", "image_shape")] == [30, 10, [1, 8, 8]]
    pictures = live.post_dataset(images_zip(["cat/1.png", "cat/2.png", "dog/1.png"]), "pets.zip")
    assert [pictures.json()[key] for key in ("images", "class_names", "image_shape")] == [3, ["cat", "dog"], None]
    flat = live.post_dataset(images_zip(["1.png", "2.png"]), "flat.zip").json()
    assert (flat["images"], flat["classes"]) == (2, None)
    assert live.post_dataset(images_npz(30), "again.npz").status_code == 200
    builtin = live.client.post("/v1/datasets", json={"builtin": "digits"})
    assert (builtin.status_code, builtin.json()["images"]) == (200, 1797)
    assert live.client.get("/v1/datasets/digits").json() == builtin.json()
    assert [d["name"] for d in live.client.get("/v1/datasets").json()][-4:] == [
        "flat.zip", "pets.zip", "digits like.npz", "digits",
    ]  # fmt: skip


def test_file_names_are_reduced_to_harmless_ones(live: Live) -> None:
    answer = live.post_dataset(images_npz(12, seed=2), "../../etc/passwd\x00\u202e.npz")
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"].startswith("passwd_")
    assert not {"/", "\\", "\x00"} & set(answer.json()["name"])


def pickled_npz() -> bytes:
    """Return a .npz whose images are pickled objects."""
    stream = io.BytesIO()
    np.savez(stream, images=np.array([{"a": 1}, None], dtype=object))
    return stream.getvalue()


def zip_of(*entries: tuple[str, bytes]) -> bytes:
    """Return a zip with these entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


PNG = zipfile.ZipFile(io.BytesIO(images_zip(["a.png"]))).read("a.png")

BAD_MODELS = {
    "truncated": (tiny_onnx()[:-700], "m.onnx", "m.onnx"),
    "empty": (b"", "m.onnx", "m.onnx"),
    "not onnx": (b"hello" * 100, "m.onnx", "m.onnx"),
    "pickle": (pickle.dumps({"a": 1}), "m.pt", "ends in .onnx or .safetensors"),
    "no suffix": (tiny_onnx(), "model", "ends in .onnx or .safetensors"),
}

BAD_DATASETS = {
    "not a zip": (b"hello" * 100, "d.zip", "d.zip: expected a complete zip archive"),
    "truncated zip": (images_zip(["a/1.png", "b/1.png"])[:-40], "d.zip", "damaged or truncated"),
    "traversal": (zip_of(("../../evil.png", PNG), ("a/1.png", PNG)), "d.zip", "leads out of the archive's folder"),
    "absolute": (zip_of(("/etc/a.png", PNG)), "d.zip", "absolute name"),
    "bomb": (zip_of(("a/1.png", b"\0" * 50_000_000)), "d.zip", "zip bomb"),
    "no images": (zip_of(("readme.txt", b"x")), "d.zip", "d.zip"),
    "broken image": (zip_of(("a/1.png", PNG[:30]), ("b/1.png", PNG)), "d.zip", "'a/1.png' cannot be read"),
    "one class": (images_zip(["a/1.png", "a/2.png"]), "d.zip", "class"),
    "pickled": (pickled_npz(), "d.npz", "pickled"),
    "not npz": (b"\x93NUMPY nonsense", "d.npz", "d.npz"),
    "no images array": (npz(pictures=np.zeros((3, 8, 8))), "d.npz", "no array 'images'"),
    "label count": (npz(images=np.zeros((3, 8, 8)), labels=np.array([0, 1])), "d.npz", "2 labels for 3 images"),
    "NaN": (npz(images=np.full((3, 8, 8), np.nan), labels=np.arange(3)), "d.npz", "NaN"),
    "csv": (b"a,b", "d.csv", "ends in .zip or .npz"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_are_refused_and_leave_nothing(live: Live, case: str) -> None:
    content, name, message = BAD_MODELS[case]
    before = records_of(live)
    assert message in problem(live.post_model(content, name))
    assert records_of(live) == before


@pytest.mark.parametrize("case", BAD_DATASETS)
def test_bad_datasets_are_refused_and_leave_nothing(live: Live, case: str) -> None:
    content, name, message = BAD_DATASETS[case]
    before = records_of(live)
    assert message in problem(live.post_dataset(content, name))
    assert records_of(live) == before


def test_oversized_uploads_are_refused_and_leave_nothing(live: Live) -> None:
    before = records_of(live)
    for size in (LIMIT + 1, LIMIT + 10_000_000):  # within and above what the request as a whole may have
        assert "at most" in problem(live.post_model(b"x" * size, "m.onnx"), 413)
        assert "at most" in problem(live.post_dataset(b"x" * size, "d.zip"), 413)

    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n'
        for _ in range(50):
            yield b"x" * 100_000
        yield b"\r\n--x--\r\n"

    for path in ("/v1/models", "/v1/datasets"):  # no length announced
        answer = live.client.post(path, content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"})
        assert "at most" in problem(answer, 413)
    assert "at most" in problem(live.client.post("/v1/jobs", json={"model": "x" * 2**21}), 413)
    assert records_of(live) == before


def test_malformed_requests_are_refused(live: Live) -> None:
    before, post = records_of(live), live.client.post
    file = {"file": ("m.onnx", tiny_onnx(seed=3))}
    for path in ("/v1/models", "/v1/datasets"):
        assert "extra" in problem(post(path, files=file, data={"extra": "1"}))
        assert "file" in problem(post(path, files={"data": ("m.onnx", b"x")}))
        assert problem(post(path, files=[*file.items(), *file.items()]), 422 if path == "/v1/models" else 400)
        assert problem(post(path, content=b"no form", headers={"content-type": "multipart/form-data; boundary=x"}), 400)
        assert problem(post(path, content=b"--x", headers={"content-type": "multipart/form-data"}), 400)
    assert "found ''" in problem(post("/v1/datasets", content=b"x"), 415)
    assert "builtin" in problem(post("/v1/datasets", json={"builtin": "cifar"}))
    assert "extra" in problem(post("/v1/datasets", json={"builtin": "digits", "extra": 1})).lower()
    assert problem(post("/v1/datasets", content=b"{", headers={"content-type": "application/json"}))
    assert problem(post("/v1/models", json={"file": "m.onnx"}))
    assert records_of(live) == before


def test_unknown_ids_paths_and_methods_are_problems_too(live: Live) -> None:
    for path in ("/v1/models/x", "/v1/datasets/x", "/v1/jobs/x", "/v1/jobs/x/artifacts", "/v1/jobs/x/artifacts/a"):
        assert "no " in problem(live.client.get(path), 404)
    problem(live.client.get("/nowhere"), 404)
    problem(live.client.get("/v1/models/%00%ff%0a"), 404)
    problem(live.client.delete("/v1/models"), 405)
    assert live.client.delete("/v1/models").headers["allow"] == "GET, POST"
    assert "limit" in problem(live.client.get("/v1/models?limit=0"))
    assert "state" in problem(live.client.get("/v1/jobs?state=asleep"))


def test_docs_need_no_other_machine(live: Live) -> None:
    page = live.client.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"(src|href)=.https?:", page.text)
    parts = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert len(parts) >= 3
    for part in parts:
        assert live.client.get(part).status_code == 200, part
    problem(live.client.get("/static-offline-docs/../api.py"), 404)


def test_openapi_describes_uploads_and_problems(live: Live) -> None:
    document = live.client.get("/openapi.json").json()
    kinds = (("jobs", "job"), ("comparisons", "comparison"), ("studies", "study"))
    below = ("", "/cancel", "/events", "/artifacts", "/artifacts/{name}")
    assert set(document["paths"]) == {
        "/v1/models", "/v1/models/{model_id}", "/v1/datasets", "/v1/datasets/{dataset_id}",
        *(f"/v1/{many}" for many, _ in kinds),
        *(f"/v1/{many}/{{{one}_id}}{path}" for many, one in kinds for path in below),
        "/v1/jobs/{job_id}/what-if", "/v1/criteria", "/healthz", "/readyz", "/metrics",
        "/v1/latency-tables", "/v1/latency-tables/{table_id}",
        "/v1/latency-tables/{table_id}/file", "/v1/devices", "/v1/devices/{name}/work",
        "/v1/devices/{name}/work/{work_id}", "/v1/devices/{name}/work/{work_id}/result",
        "/v1/devices/{name}/files/{sha256}",
    }  # fmt: skip
    shown = document["paths"]["/v1/studies/{study_id}"]["get"]
    assert (shown["summary"], shown["operationId"]) == ("Show a study", "get_study_v1_studies__study_id__get")
    assert shown["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/StudyView")
    submit = document["paths"]["/v1/jobs"]["post"]
    assert "application/problem+json" in submit["responses"]["422"]["content"]
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(document))
    assert {name.rpartition("/")[0] for name in references} == {"#/components/schemas"}
    assert {name.rpartition("/")[2] for name in references} <= document["components"]["schemas"].keys()
    assert document["components"]["schemas"]["JobSpec"]["examples"]
    assert "multipart/form-data" in document["paths"]["/v1/datasets"]["post"]["requestBody"]["content"]
    assert "ONNX" in json.dumps(document["paths"]["/v1/models"]["post"])
    assert live.client.get("/healthz").json()["status"] == "ok"
