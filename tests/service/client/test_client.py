"""The Python client against a real service: uploads, jobs, downloads, pruned networks."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from autoprune import AutopruneError, Client, ClientError
from autoprune.certificate import count_onnx
from autoprune.errors import DatasetError, ModelError, UnknownNameError
from autoprune.formats.weights import save_weights
from autoprune.network.network import network_of
from autoprune.service.client.job import Comparison, Job
from autoprune.service.client.views import Dataset, Model
from autoprune.service.settings import Settings
from autoprune.service.specs.progress import Progress
from autoprune.zoo.registry import build
from tests.service.live_service import Live, images_npz, in_thread, tiny_onnx

QUICK = {"policies": ["uniform", "random"], "evaluations": 3, "fit_images": 200, "search_images": 100,
         "report_images": 100}  # fmt: skip

ENDLESS = {**QUICK, "policies": ["uniform"], "evaluations": 1, "finetune_epochs": 10_000, "fit_images": 1500}


class Small(nn.Module):
    """A user's own network, with batch norm and a name for every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.body = nn.Sequential(nn.Conv2d(12, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.body(torch.relu(self.norm(self.stem(images))))
        return self.head(features.mean((2, 3)))


def small(seed: int = 0) -> Small:
    """Return the network with random weights and statistics, in training mode, as a user may leave it."""
    torch.manual_seed(seed)
    module = Small()
    for norm in (module.norm, module.body[1]):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return module


def onnx_outputs(path: Path, images: torch.Tensor) -> torch.Tensor:
    """Return what onnxruntime computes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with in_thread(Settings(tmp_path_factory.mktemp("client") / "home")) as service:
        yield service


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    path.write_bytes(tiny_onnx())
    return path


@pytest.fixture(scope="module")
def done(live: Live, tiny: Path) -> Iterator[Job]:
    """Return a job of a file that has succeeded."""
    with Client(live.url) as client:
        yield client.submit(tiny, "digits", "macs=50%", **QUICK).wait(120)


def test_a_file_goes_in_and_its_pruned_network_comes_out(done: Job, tmp_path: Path) -> None:
    result = done.result()
    assert (done.state, [outcome.policy for outcome in result.outcomes]) == ("succeeded", QUICK["policies"])
    files = done.download(tmp_path / "all")
    listed = {artifact.name: artifact for artifact in done.artifacts()}
    assert {path.relative_to(tmp_path / "all").as_posix() for path in files} == set(listed)
    assert {path for path in (tmp_path / "all").rglob("*") if path.is_file()} == set(files)  # nothing half-written
    for name, artifact in listed.items():
        content = (tmp_path / "all" / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact.size_bytes, artifact.sha256)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for policy in (None, "uniform", "random"):
        network = done.network(policy)
        path = tmp_path / "all" / (policy or result.best) / "model.onnx"
        assert count_onnx(path)["macs"] <= result.limits["macs"]
        with torch.no_grad():
            torch.testing.assert_close(network(images), onnx_outputs(path, images), atol=1e-5, rtol=0)
    assert not network.training


def test_some_artifacts_are_fetched_by_name(done: Job, tmp_path: Path) -> None:
    (tmp_path / "uniform").mkdir()
    (tmp_path / "uniform" / "plan.json").write_text("of an earlier job")
    [plan, report] = done.download(tmp_path, "uniform/plan.json", "report.html")
    assert plan == tmp_path / "uniform" / "plan.json"
    assert b"autoprune-plan/1" in plan.read_bytes()
    assert report.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnknownNameError, match=r"unknown artifact 'report.htm'. Did you mean 'report.html'"):
        done.download(tmp_path, "report.htm")
    with pytest.raises(UnknownNameError, match=r"unknown policy 'exact'.*random, uniform"):
        done.network("exact")
    with pytest.raises(ClientError, match="cannot be written") as caught:
        done.download(plan)
    assert caught.value.type == "unwritable-folder"


def test_a_live_module_comes_back_pruned_with_the_names_of_its_layers(client: Client, tmp_path: Path) -> None:
    module = small()
    job = client.submit(module, "digits", "macs=50%", input_shape=(1, 8, 8), **QUICK)
    assert module.training  # not touched
    pruned = job.wait(120).network()
    names = {name: tuple(tensor.shape) for name, tensor in pruned.state_dict().items()}
    assert set(names) == set(module.state_dict())
    assert names["stem.weight"][0] < 12 or names["body.0.weight"][0] < 16
    assert names["stem.weight"][0] == names["norm.running_mean"][0] == names["body.0.weight"][1]
    [path] = job.download(tmp_path, job.result().outcomes[0].artifacts["onnx"])
    images = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        by_plan = job.network("uniform")(images)
        by_file = client.job(job.id).network("uniform")(images)  # this client knows the module no more
    torch.testing.assert_close(by_plan, onnx_outputs(path, images), atol=1e-4, rtol=0)
    torch.testing.assert_close(by_file, onnx_outputs(path, images), atol=1e-5, rtol=0)
    loss = pruned.train()(images).square().mean()  # it can be trained on
    loss.backward()
    assert pruned.get_submodule("stem").weight.grad is not None


def test_modules_are_uploaded_once_for_several_jobs(client: Client) -> None:
    model = client.upload_model(small(), input_shape=(1, 8, 8))
    assert (model.name, model.input_shape, model.output_shape) == ("Small.onnx", (1, 8, 8), (10,))
    assert client.upload_model(small().eval(), input_shape=(1, 8, 8)) == model
    assert model.cost["params"] > 0
    assert len(repr(model)) < 1000
    job = client.submit(model, "digits", "params=60%", **QUICK)
    assert job.status.spec["model"] == model.id
    assert set(job.wait(120).network().state_dict()) == set(small().state_dict())


def test_models_and_images_of_every_kind(client: Client, tmp_path: Path) -> None:
    network = build("resnet20_cifar")
    save_weights(network.module, tmp_path / "w.safetensors")
    model = client.upload_model(tmp_path / "w.safetensors", architecture="resnet20_cifar", input_shape=(3, 16, 16))
    assert model.input_shape == (3, 16, 16)
    (tmp_path / "images.npz").write_bytes(images_npz(30))
    arrays = client.upload_dataset(tmp_path / "images.npz")
    assert (arrays.images, arrays.classes) == (30, 10)
    for number in range(12):
        folder = tmp_path / "pets" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    (tmp_path / "pets" / ".secret").write_text("stays at home")
    pets = client.upload_dataset(tmp_path / "pets")
    assert (pets.name, pets.images, pets.classes) == ("pets.zip", 12, 2)
    assert client.upload_dataset(tmp_path / "pets") == pets
    by_id = client.submit(model.id, pets.id, "macs=50%")
    by_value = client.submit(model, pets, "macs=50%", report_dataset=tmp_path / "pets")
    assert by_id.status.spec["dataset"] == by_value.status.spec["dataset"] == pets.id
    assert by_value.status.spec["report_dataset"] == pets.id
    weights, shape = tmp_path / "w.safetensors", (3, 16, 16)
    by_path = client.submit(weights, tmp_path / "pets", "macs=50%", architecture="resnet20_cifar", input_shape=shape)
    assert (by_path.status.spec["model"], by_path.status.spec["dataset"]) == (model.id, pets.id)
    for job in (by_id, by_value, by_path):
        job.cancel()


def test_comparisons(client: Client, tiny: Path) -> None:
    comparison = client.compare(tiny, "digits", "macs=50%", seeds=2, **{**QUICK, "evaluations": 7})
    seen: list[Progress] = []
    assert comparison.wait(200, progress=seen.append) is comparison
    assert seen[-1].stage == "done"
    found = comparison.comparison()
    assert found.seeds == [0, 1]
    assert comparison.result() == found.delivered
    with torch.no_grad():
        assert comparison.network("random")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert isinstance(client.job(comparison.id), Comparison)
    assert comparison.id in [other.id for other in client.comparisons(state="succeeded")]
    assert comparison.id not in [other.id for other in client.jobs(limit=1000)]


def test_jobs_are_listed_waited_for_and_cancelled(client: Client, tiny: Path) -> None:
    running = client.submit(tiny, "digits", "macs=50%", **ENDLESS)
    waiting = client.submit(tiny, "digits", "macs=50%", continue_from=None, **QUICK)
    assert [job.id for job in client.jobs(limit=2)] == [waiting.id, running.id]
    assert repr(waiting) == f"<Job {waiting.id}: queued>"
    with pytest.raises(ClientError, match=r"is still .* after 0.5 s") as caught:
        running.wait(0.5)
    assert caught.value.type == "timeout"
    for refused in (waiting.result, waiting.network, lambda: waiting.download("nowhere")):
        with pytest.raises(ClientError, match="wait for its end first"):
            refused()
    waiting.cancel()
    running.cancel()
    for job in (waiting, running):
        with pytest.raises(ClientError, match="was cancelled") as caught:
            job.wait(20)
        assert caught.value.type == "job-cancelled"
    assert waiting.id in [job.id for job in client.jobs(state="cancelled")]


def test_a_search_goes_on_from_another(client: Client, done: Job) -> None:
    model = str(done.status.spec["model"])
    job = client.submit(model, "digits", "macs=60%", continue_from=done, **QUICK)
    assert job.status.spec["continue_from"] == done.id
    job.wait(120)
    assert job.result().continued is not None


def test_a_job_that_fails_raises_its_reason(tiny: Path, tmp_path: Path) -> None:
    with in_thread(Settings(tmp_path / "home", job_seconds=1)) as live, Client(live.url) as client:
        job = client.submit(tiny, "digits", "macs=50%", finetune_epochs=10_000)
        with pytest.raises(ClientError, match=f"job {job.id} failed: ") as caught:
            job.wait(120)
        assert caught.value.type == "time-limit"
        assert caught.value.status is None
        with pytest.raises(ClientError, match="failed: "):
            client.job(job.id).result()


def test_what_the_service_refuses(client: Client, tiny: Path) -> None:
    with pytest.raises(ClientError, match="smallest reachable value") as caught:
        client.submit(tiny, "digits", "macs=0.01%")
    assert (caught.value.type, caught.value.status) == ("infeasible-budget-error", 422)
    assert caught.value.detail == str(caught.value)
    with pytest.raises(ClientError, match=r"body.colour"):
        client.submit(tiny, "digits", "macs=50%", colour="blue")
    with pytest.raises(ClientError, match="JSON"):
        client.submit(tiny, "digits", "macs=50%", seed=object())
    for job_id in ("none", "cmp_none", "../models", ""):
        with pytest.raises(ClientError):
            client.job(job_id)
    with pytest.raises(ClientError, match=r"body|query"):
        client.jobs(state="lost")
    with pytest.raises(ClientError) as caught:
        client.submit("mdl_unknown", "digits", "macs=50%")
    assert caught.value.type == "spec-error"


def test_what_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    client = Client("http://127.0.0.1:9")
    for model in ("missing.onnx", "resnet20_cifar", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            client.submit(model, "digits", "macs=50%")
    with pytest.raises(ModelError, match=r"input_shape=\(channels, height, width\)"):
        client.upload_model(small())
    with pytest.raises(ModelError, match=r"expected the path of a model or an nn.Module, found OrderedDict"):
        client.upload_model(small().state_dict())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="leave out architecture"):
        client.upload_model(small(), architecture="resnet20_cifar", input_shape=(1, 8, 8))
    with pytest.raises(DatasetError, match="cannot be read"):
        client.upload_dataset("digit")
    with pytest.raises(DatasetError, match="no image files found"):
        client.upload_dataset(tmp_path)
    for url in ("localhost:8765", "ftp://127.0.0.1", "http://", "http://[::1"):
        with pytest.raises(ClientError, match=r"expected an address such as http://127.0.0.1:8765"):
            Client(url)
    with pytest.raises(ClientError, match="printable ASCII") as caught:
        Client(api_key="secret\nkey")
    assert "secret" not in str(caught.value)
    assert issubclass(ClientError, AutopruneError)


def test_answers_that_know_more_are_understood() -> None:
    model = {"id": "mdl_1", "name": "m", "input_shape": [1, 2, 2], "output_shape": [3], "cost": {}, "colour": "red"}
    assert Model.model_validate({**model, "prunable_groups": 1}).input_shape == (1, 2, 2)
    assert Dataset.model_validate({"id": "dat_1", "name": "d", "images": 3, "classes": None, "x": 1}).images == 3


def test_networks_of_files_have_no_batch_norm_left_to_recalibrate(done: Job) -> None:
    network = done.network()
    assert not [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert isinstance(network, torch.fx.GraphModule)
    assert network_of(network, (1, 8, 8)).output_shape == (10,)
