"""ResNet-56 trained on CIFAR-10, pruned to half of its MACs by sensitivity: over the command line and over REST."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autoprune.service.cli.app import app
from autoprune.service.settings import Settings
from tests.service.live_service import in_thread

# As few images and candidates as a search over the 27 groups can have; the studies are in benchmarks/.
EVALUATIONS, SEARCH_IMAGES, FIT_IMAGES, REPORT_IMAGES = 29, 80, 160, 200
UNPRUNED_MACS = 125_485_696


def _check(result: dict[str, Any]) -> None:
    (outcome,) = result["outcomes"]
    certificate = outcome["certificate"]
    assert result["cost"]["macs"] == UNPRUNED_MACS
    assert 0.48 * UNPRUNED_MACS < outcome["cost"]["macs"] <= 0.5 * UNPRUNED_MACS
    assert certificate["holds"] is True
    assert certificate["cost"] == outcome["cost"]
    assert certificate["parity_error"] <= 1e-4
    assert result["report"]["top1"] > 0.85
    assert outcome["report"]["top1"] > 0.15, "pruned without fine-tuning, and still far from chance"


@pytest.mark.parametrize("form", ["onnx", "zoo"])
def test_by_the_command_line(shared: Path, tmp_path: Path, form: str) -> None:
    file = shared / "models" / "resnet56_cifar10_jpeg"
    model = [f"{file}.onnx"] if form == "onnx" else ["resnet56_cifar", "--weights", f"{file}.safetensors"]
    options = [
        "--data", shared / "data" / "cifar10_jpeg_train.zip",
        "--report-data", shared / "data" / "cifar10_jpeg_test.zip",
        "--policy", "sensitivity", "--budget", "macs=50%", "--evaluations", EVALUATIONS, "--output", tmp_path, "--json",
        "--search-images", SEARCH_IMAGES, "--fit-images", FIT_IMAGES, "--report-images", REPORT_IMAGES,
    ]  # fmt: skip
    answer = CliRunner().invoke(app, ["search", *model, *map(str, options)], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    _check(json.loads(answer.stdout))


def test_over_rest(shared: Path, tmp_path: Path) -> None:
    with in_thread(Settings(home=tmp_path / "home")) as live:
        model = live.post_model((shared / "models" / "resnet56_cifar10_jpeg.onnx").read_bytes(), "resnet56.onnx").json()
        data, report = (
            live.post_dataset((shared / "data" / f"cifar10_jpeg_{part}.zip").read_bytes(), f"{part}.zip").json()
            for part in ("train", "test")
        )
        job = live.submit(
            model=model["id"], dataset=data["id"], report_dataset=report["id"], budget="macs=50%",
            policies=["sensitivity"], evaluations=EVALUATIONS, search_images=SEARCH_IMAGES, fit_images=FIT_IMAGES,
            report_images=REPORT_IMAGES,
        )  # fmt: skip
        done = live.finished(job["id"], timeout_s=280)
        assert done["state"] == "succeeded", done
        _check(live.client.get(f"/v1/jobs/{job['id']}/artifacts/result.json").json())
