"""The demo, run for real: it is the first thing that a user sees."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.certificate import count_onnx
from autoprune.files import file_sha256
from autoprune.service.cli.app import app
from autoprune.service.cli.demo import JOB
from autoprune.service.cli.demo_network import demo_network, train_demo_network
from autoprune.service.results.job_result import JobResult


@pytest.mark.timeout(600)
def test_demo_leaves_a_pruned_network_and_says_what_to_look_at(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    done = CliRunner().invoke(app, ["demo", "--output", str(output)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = JobResult.model_validate_json((output / "result.json").read_text(encoding="utf-8"))
    assert [outcome.policy for outcome in result.outcomes] == JOB["policies"]
    for outcome in result.outcomes:
        assert outcome.cost["macs"] <= result.limits["macs"] == result.cost["macs"] // 2
        assert outcome.policy in done.stdout
        assert all((output / name).is_file() for name in outcome.artifacts.values())
        finetuned = outcome.report_finetuned
        assert finetuned is not None
        assert finetuned.top1 is not None
        assert finetuned.top1 > 0.9
    certificate = json.loads((output / "certificate.json").read_text(encoding="utf-8"))
    assert certificate["holds"] is True
    assert certificate["onnx_sha256"] == file_sha256(output / "model.onnx")
    assert count_onnx(output / "model.onnx")["macs"] == certificate["cost"]["macs"] <= result.limits["macs"]
    assert "Density per layer" in (output / "report.html").read_text(encoding="utf-8")
    for name in ("report.html", "model.onnx", "plan.json", "weights.safetensors", "certificate.json"):
        assert (output / name).is_file()
        assert name in done.stdout


def test_the_demo_network_learns_and_is_what_it_says() -> None:
    network, _, accuracy = train_demo_network(epochs=2)
    assert accuracy > 0.5
    assert demo_network().fingerprint() == network.fingerprint() == demo_network().fingerprint()
